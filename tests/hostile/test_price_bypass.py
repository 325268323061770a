"""Calls that ask for more than their hold would cover: refused, or held for; what is billed is never above the hold."""

import base64
import itertools
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from gateway.billing.money import parse_usd
from tests.e2e.client import CHAT, IMAGES, OPENAI_CHAT, Answer, send
from tests.hostile.conftest import Target
from tests.stack import chat

ESTIMATE, OPENAI_IMAGES = "/v1/estimate", "/v1/images/generations"
CHATS = (CHAT, OPENAI_CHAT, ESTIMATE)
M = 1_000_000

INVALID, UNSUPPORTED, UNKNOWN = (400, "invalid_request"), (400, "unsupported_parameter"), (404, "model_not_found")

NO_COUNT: tuple[Any, ...] = (0, -1, 1.5, 1.0, True, False, "2", "", [1], {"a": 1}, 10**12, 10**300)
DEARER: Mapping[str, Any] = {
    "audio": {"voice": "alloy", "format": "wav"},
    "functions": [{"name": "a"}],
    "function_call": "auto",
    "modalities": ["text", "audio"],
    "parallel_tool_calls": True,
    "prediction": {"type": "content", "content": "a"},
    "prompt_cache_key": "a",
    "reasoning_effort": "high",
    "safety_identifier": "a",
    "service_tier": "priority",
    "store": True,
    "tools": [{"type": "web_search"}],
    "tool_choice": "required",
    "verbosity": "high",
    "web_search_options": {},
    "web_search_options ": {},
    "Max_Completion_Tokens": 1,
    "model\n": "gpt-4o",
    "__proto__": {"model": "gpt-4o"},
    "extra_body": {"model": "gpt-4o"},
}
NO_MODEL = ("gpt-5", " gpt-4o", "gpt-4o ", "GPT-4O", "gpt-4o\n", "gpt-4o\0", "gpt\u20114o", "realvision", "x" * M, "")
NO_NAME = (["gpt-4o"], {"id": "gpt-4o"}, 4, True, None)


def message(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"} | fields]}


def schema(value: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": value}}


REFUSED: list[tuple[dict[str, Any], tuple[int, str]]] = [
    *((chat(**{name: value}), INVALID) for name in ("n", "max_completion_tokens", "max_tokens") for value in NO_COUNT),
    (chat(n=10**9), INVALID),
    (chat(n=129), INVALID),
    (chat(max_tokens=1, max_completion_tokens=2), INVALID),
    *((chat(**{name: value}), UNSUPPORTED) for name, value in DEARER.items()),
    *((chat(model=name), UNKNOWN) for name in NO_MODEL),
    *(({**chat(), "model": name}, INVALID) for name in NO_NAME),
    (chat(logit_bias={"<|endoftext|>": 1}), INVALID),
    (chat(logit_bias={"1": 101}), INVALID),
    (chat(metadata={str(number): "a" for number in range(17)}), INVALID),
    (chat(metadata={"a": "a" * 513}), INVALID),
    (chat(stop=["a"] * 5), INVALID),
    (chat(top_logprobs=20), INVALID),
    (chat(response_format=schema({"$ref": "#"})), INVALID),
    (chat(response_format=schema({"a": [{"$dynamicRef": "#"}]})), INVALID),
    (chat(response_format={"type": "grammar", "grammar": "a"}), INVALID),
    (message(name="a" * 65), INVALID),
    (message(role="tool"), INVALID),
    (message(tool_calls=[]), UNSUPPORTED),
    (message(audio={"id": "a"}), UNSUPPORTED),
    (message(content=[{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]), INVALID),
    (message(content=[{"type": "file", "file": {"file_id": "a"}}]), INVALID),
    (message(content=[{"type": "text", "text": "a", "image_url": {"url": "https://example.com/a"}}]), UNSUPPORTED),
    (message(content=[{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]), INVALID),
    (message(content=[{"type": "image_url", "image_url": {"url": "https://example.com/a", "detail": "max"}}]), INVALID),
]


@pytest.mark.parametrize("path", CHATS)
def test_a_field_that_would_raise_the_price_is_refused(target: Target, path: str) -> None:
    """By default, at every depth, on both faces and by the estimate; the message is short, whatever was sent."""
    with target.untouched():
        answers = [send(target.gateway.url, path, body, target.neighbour) for body, _ in REFUSED]
    got = [(answer.status, answer.error["code"]) for answer in answers]
    assert [expected for _, expected in REFUSED] == got
    assert max(len(answer.body) for answer in answers) < 1000


NO_IMAGES: list[tuple[str, dict[str, Any], tuple[int, str]]] = [
    *((OPENAI_IMAGES, {"n": value}, INVALID) for value in (*NO_COUNT, 11, 10**9)),
    *(
        (OPENAI_IMAGES, {"size": size}, INVALID)
        for size in ("99999x1", "0x0", "-256x256", "256x256x9", 256, "\uff11024x256")
    ),
    (OPENAI_IMAGES, {"quality": "hd"}, UNSUPPORTED),
    (IMAGES, {"n": 2}, UNSUPPORTED),
    (IMAGES, {"steps": 9}, INVALID),
    (IMAGES, {"steps": True}, INVALID),
    (IMAGES, {"width": 10**9}, INVALID),
    (IMAGES, {"model": "gpt-4o"}, UNKNOWN),
    (IMAGES, {"model": "Realvision"}, UNKNOWN),
]


def test_more_images_than_are_paid_for_are_refused(target: Target) -> None:
    """The same on the image paths."""
    image = {"model": "realvision", "prompt": "A tree"}
    with target.untouched():
        answers = [send(target.gateway.url, path, image | more, target.neighbour) for path, more, _ in NO_IMAGES]
    assert [expected for *_, expected in NO_IMAGES] == [(each.status, each.error["code"]) for each in answers]


def png(width: int, height: int) -> bytes:
    """A picture that says it has this size; there is not much in it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def image(data: bytes, kind: str = "png", **more: str) -> list[dict[str, Any]]:
    url = f"data:image/{kind};base64," + base64.b64encode(data).decode()
    return [{"type": "image_url", "image_url": {"url": url, **more}}]


ADMITTED: Mapping[str, dict[str, Any]] = {
    "null for every count": chat(n=None, max_tokens=None, max_completion_tokens=None),
    "two answers": chat(n=2),
    "special tokens": chat("<|endoftext|><|im_start|>system<|endofprompt|>" * 1000),
    "usage in the question": chat('\n\ndata: {"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}\n\n'),
    "a megabyte of tabs": chat("\t" * M, "gpt-4.1-nano"),
    "a megabyte of spaces": chat(" " * M, "gpt-4.1-nano"),
    "a megabyte of one letter": chat("a" * M, "gpt-4.1-nano"),
    "half a megabyte of what has no token of its own": chat("\U0001f9ff" * (M // 8), "gpt-4.1-nano"),
    "a thousand empty messages": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": ""}] * 1000},
    "a thousand empty parts": message(content=[{"type": "text", "text": ""}] * 1000),
    "names": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "a", "name": "\u1e9e" * 64}] * 100},
    "a megabyte of stop": chat(stop=["a" * M]),
    "a megabyte of user": chat(user="a" * M),
    "19,000 biases": chat(logit_bias={str(number): 100 for number in range(19_000)}),
    "a schema of 9,000 objects": chat(response_format=schema({"anyOf": [{}] * 9_000})),
    "a picture of 20 MB": message(content=image(png(8000, 8000) + bytes(15 * M))),
    "a picture that says it is small": message(content=image(png(1, 1) + bytes(M))),
    "a picture that says it has no size": message(content=image(png(0, 0))),
    "a picture that says it is huge": message(content=image(png(2**31 - 1, 2**31 - 1))),
    "a picture of another kind than it says": message(content=image(png(1, 1), "jpeg")),
    "no picture at all": message(content=image(b"GIF89a")),
    "a picture at low detail": message(content=image(png(8000, 8000), detail="low")),
}


@pytest.mark.parametrize("body", ADMITTED.values(), ids=ADMITTED)
def test_what_is_admitted_is_held_for(target: Target, body: dict[str, Any]) -> None:
    """The upstream's bill of the call is in the ledger to the nano-dollar, and below what was held."""
    answer = send(target.gateway.url, CHAT, {"max_completion_tokens": 9} | body, target.neighbour)
    assert 200 == answer.status
    assert_held(target, answer)


def assert_held(target: Target, answer: Answer, flags: Sequence[str] = ()) -> None:
    (entry,) = target.admin.ledger(request_id=answer.request_id)
    (line,) = (line for line in target.stack.bill()["lines"] if line["request_id"] == answer.request_id)
    assert ([*flags], line["generated_nano_usd"]) == (entry["flags"], entry["cost_nano_usd"])
    assert entry["cost_nano_usd"] <= parse_usd(answer.headers["x-gateway-hold-usd"])


USAGE = '{"prompt_tokens":0,"completion_tokens":0,"total_tokens":1}'
PRETENDED = (
    f'\n\ndata: {{"choices":[],"usage":{USAGE}}}\n\ndata: [DONE]\n\n',
    f'data: {{"usage":{USAGE}}}',
    f'"}}}}],"usage":{USAGE}}}\n\ndata: [DONE]',
    f'{{"choices":[],"usage":{USAGE}}}',
    f'\\","usage":{USAGE},"a":"',
    f"\\u0022usage\\u0022:{USAGE}",
    '"usage":null}',
    "[DONE]",
    "data: [DONE]\r\n\r\n",
    ": cost 0\r\revent: done\rdata: [DONE]\r\r",
)
"""What an answer says: the end of its event, of the stream, of the JSON around it, and usage behind that."""
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
FACES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "MiniToolAI's": (CHAT, {}),
    "OpenAI's, folded": (OPENAI_CHAT, {"stream": False}),
    "OpenAI's, streamed": (OPENAI_CHAT, {"stream": True}),
    "OpenAI's, streamed with usage": (OPENAI_CHAT, STREAMED),
}


@pytest.mark.parametrize("fault", ["echo", "echo;split=7"])
@pytest.mark.parametrize(("path", "asked"), FACES.values(), ids=FACES)
def test_text_in_the_answer_that_looks_like_usage_is_text(
    target: Target, path: str, asked: dict[str, Any], fault: str
) -> None:
    """Said by both of two answers: each reaches the client as it is, ends nothing, and changes no bill."""
    for said in PRETENDED:
        body = chat(f"[[fault:{fault}]]{said}", n=2, max_tokens=200, **asked)
        answer = send(target.gateway.url, path, body, target.neighbour)
        assert [said, said] == contents(answer)
        assert_held(target, answer)


@pytest.mark.parametrize(("path", "asked"), FACES.values(), ids=FACES)
def test_text_that_looks_like_usage_is_none_where_there_is_none(
    target: Target, path: str, asked: dict[str, Any]
) -> None:
    """What is counted then is the text, all of it; who asked for one object is told, for it would lack its usage."""
    for said in PRETENDED:
        body = chat(f"[[fault:echo;no_usage]]{said}", max_tokens=200, **asked)
        answer = send(target.gateway.url, path, body, target.neighbour)
        if asked.get("stream") is False:
            assert (502, "upstream_error") == (answer.status, answer.error["code"])
        else:
            assert [said] == contents(answer)
        assert_held(target, answer, ["estimated"])


def contents(answer: Answer) -> list[str]:
    """What each choice says, of a stream or of one object. A stream has one end, which is its last event."""
    if answer.body.startswith(b"{"):
        return [choice["message"]["content"] for choice in answer.json["choices"]]
    *events, done, rest = answer.body.decode().split("\n\n")
    assert ("data: [DONE]", "") == (done, rest)
    said: dict[int, str] = {}
    for event in events:
        for choice in json.loads(event.removeprefix("data: "))["choices"]:
            index = choice["index"]
            said[index] = said.get(index, "") + (choice["delta"].get("content") or "")
    return [said[index] for index in sorted(said)]


NAMED_ELSEWHERE = {
    "query": ("?model=gpt-4o&n=9", {}),
    "header": ("", {"x-model": "gpt-4o", "openai-model": "gpt-4o", "x-fault": "usage_zero"}),
    "fragment": ("%3Fmodel=gpt-4o", {}),
}


@pytest.mark.parametrize(("query", "headers"), NAMED_ELSEWHERE.values(), ids=NAMED_ELSEWHERE)
def test_a_model_named_elsewhere_is_not_read(target: Target, query: str, headers: dict[str, str]) -> None:
    """Neither here nor upstream, where nothing but the body that was priced goes; or there is no such path."""
    answer = send(target.gateway.url, CHAT + query, chat(max_tokens=9), target.neighbour, headers)
    if answer.status == 404:
        assert "%3F" in query
        return
    seen = target.stack.emulator.get("/__requests").json()["requests"][-1]
    assert "gpt-4o-mini" == target.admin.ledger(request_id=answer.request_id)[0]["model"]
    assert not {"x-model", "openai-model", "x-fault"}.intersection(name for name, _ in seen["headers"])
    assert_held(target, answer)


def test_a_bound_above_the_models_own_holds_no_more_than_that(target: Target) -> None:
    """A billion tokens pass as they are asked for: the upstream refuses them, and nothing is billed."""
    answer = send(target.gateway.url, CHAT, chat(max_tokens=10**9), target.neighbour)
    (entry,) = target.admin.ledger(request_id=answer.request_id)
    assert (400, "release") == (answer.status, entry["type"])
    assert parse_usd(answer.headers["x-gateway-hold-usd"]) < 10**8


def test_all_together_the_ledger_is_the_bill(target: Target) -> None:
    """After whatever the tests before have sent."""
    costs = itertools.accumulate(entry["cost_nano_usd"] for entry in target.admin.ledger())
    assert target.stack.bill()["totals"]["generated_nano_usd"] == list(costs)[-1]
