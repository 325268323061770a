"""What MiniToolAI documents is accepted; everything else is refused with the field's name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.emulator.contract import (
    IMAGE_MODELS,
    SCHEDULERS,
    BadRequest,
    parse_chat,
    parse_image,
    parse_poll,
)
from tests.emulator.driver import chat_body

PART = {"type": "image_url", "image_url": {"url": "https://example.com/image.jpg", "detail": "auto"}}


def messages(*contents: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content} for content in contents]


def test_a_chat_with_an_image_is_read_in_parts() -> None:
    """The documented sample with image input."""
    body = chat_body(messages=messages([{"type": "text", "text": "What's in this image?"}, PART]))
    (message,) = parse_chat(json.dumps(body).encode()).messages
    assert ("What's in this image?",) == message.texts
    assert "auto" == message.images[0].detail


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("model", {"model": "gpt-5"}),
        ("model", {"model": None}),
        ("messages", {"messages": []}),
        ("messages", {"messages": "Hello"}),
        ("messages[0]", {"messages": ["Hello"]}),
        ("messages[0]", {"messages": [{"role": "user", "content": "", "tool_calls": []}]}),
        ("messages[0].role", {"messages": [{"role": "tool", "content": "x"}]}),
        ("messages[0].name", {"messages": [{"role": "user", "content": "x", "name": 1}]}),
        ("messages[1].content", {"messages": messages("x", None)}),
        ("messages[0].content", {"messages": messages([])}),
        ("messages[0].content[0]", {"messages": messages([{"type": "audio"}])}),
        ("messages[0].content[0].image_url.url", {"messages": messages([{**PART, "image_url": {}}])}),
        (
            "messages[0].content[0].image_url.detail",
            {"messages": messages([{**PART, "image_url": {"url": "x", "detail": "best"}}])},
        ),
        ("temperature", {"temperature": 2.1}),
        ("temperature", {"temperature": True}),
        ("max_completion_tokens", {"max_completion_tokens": 0}),
        ("max_completion_tokens", {"max_completion_tokens": 1.5}),
        ("max_tokens", {"max_completion_tokens": 5, "max_tokens": 6}),
        ("n", {"n": 0}),
        ("stream", {"stream": "yes"}),
        ("tools", {"tools": []}),
    ],
)
def test_a_bad_chat_field_is_named(param: str, fields: dict[str, Any]) -> None:
    """A client hears which field is wrong."""
    with pytest.raises(BadRequest) as refused:
        parse_chat(json.dumps(chat_body() | fields).encode())
    assert param == refused.value.param


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"temperature": NaN}', b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    """Not with a stack trace, whatever the bytes."""
    with pytest.raises(BadRequest):
        parse_chat(raw)


def test_equal_requests_in_other_words_have_equal_digests() -> None:
    """A gateway may write defaults out and drop `stream`; tests compare the answers all the same."""
    plain = chat_body()
    rewritten = {"max_completion_tokens": 1_000, "temperature": 1, "n": 1, **dict(reversed(plain.items()))}
    for other in (rewritten, plain | {"stream": True}, plain | {"max_tokens": 1_000, "temperature": None}):
        assert parse_chat(json.dumps(plain).encode()).digest == parse_chat(json.dumps(other).encode()).digest
    assert parse_chat(json.dumps(plain).encode()).digest != parse_chat(json.dumps(chat_body("Bye")).encode()).digest


def test_openai_fields_known_to_be_harmless_are_accepted() -> None:
    """The contract's list of extra fields."""
    fields: dict[str, Any] = {
        "top_p": 0.5,
        "stop": ["x"],
        "seed": 1,
        "logit_bias": {},
        "user": "an",
        "metadata": {},
        "n": 2,
    }
    assert 2 == parse_chat(json.dumps(chat_body(**fields)).encode()).choices


@pytest.mark.parametrize("model", IMAGE_MODELS)
def test_every_image_model_is_known(model: str) -> None:
    """All fifteen, with the documented default size."""
    request = parse_image(json.dumps({"model": model, "prompt": "x", "steps": None, "width": None}).encode())
    assert (model, 1_024, 1_024) == (request.model, request.width, request.height)


@pytest.mark.parametrize("scheduler", [*SCHEDULERS, None])
def test_every_scheduler_is_known(scheduler: str | None) -> None:
    """All eighteen, and null for the default."""
    parse_image(json.dumps({"model": "amigo", "prompt": "x", "scheduler": scheduler}).encode())


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("model", ["dall-e", None, 1]),
        ("prompt", ["", None, 1]),
        ("negativePrompt", [1]),
        ("scheduler", ["DDIM"]),
        ("steps", [0, 9, 1.5]),
        ("cfgScale", [0.9, 7.1, "2"]),
        ("width", [255, 1_345, 512.5]),
        ("height", [255, 1_345, True]),
        ("size", ["1024x1024"]),
    ],
)
def test_a_bad_image_field_is_named(name: str, values: list[Any]) -> None:
    """Ranges and types as documented."""
    for value in values:
        with pytest.raises(BadRequest) as refused:
            parse_image(json.dumps({"model": "realvision", "prompt": "x", name: value}).encode())
        assert name == refused.value.param


@pytest.mark.parametrize("jobid", ["12345678", 12345678])
def test_a_poll_takes_the_jobid_as_string_or_integer(jobid: object) -> None:
    """The submission answers an integer, the documented poll sends a string."""
    body = {"jobid": jobid, "signature": "abcxyz123"}
    assert ("12345678", "abcxyz123") == parse_poll(json.dumps(body).encode())


@pytest.mark.parametrize("body", [{}, {"jobid": True, "signature": "x"}, {"jobid": "1", "signature": 2}])
def test_a_bad_poll_is_refused(body: dict[str, Any]) -> None:
    """Both members are needed."""
    with pytest.raises(BadRequest):
        parse_poll(json.dumps(body).encode())
