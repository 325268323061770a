"""OpenAI's chat requests: what goes to the upstream, and what is said of how the answer is shown."""

import json
from typing import Any

import pytest

from gateway.billing.errors import GatewayError, InvalidRequest
from gateway.billing.prices import PriceList
from gateway.wire.chat import ChatRules, inspect_chat
from gateway.wire.openai_chat import inspect_openai_chat, openai_presentation
from gateway.wire.presentation import AS_SENT, WITH_COST, Presentation, native_presentation, wants_cost

RULES = ChatRules()
USAGE = {"include_usage": True}


def request(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], **fields}


def with_message(**message: Any) -> dict[str, Any]:
    return request(messages=[{"role": "assistant", "content": "Hi", **message}])


def with_part(**part: Any) -> dict[str, Any]:
    return request(messages=[{"role": "user", "content": [part]}])


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        (request(stream=True, stream_options=USAGE), request()),
        (request(stream=False), request()),
        (request(tools=None, store=None, n=None, max_tokens=None), request()),
        (request(max_tokens=7), request(max_completion_tokens=7)),
        (with_message(refusal=None, tool_calls=None, function_call=None, audio=None, annotations=[]), with_message()),
        (with_message(annotations=None, name=None), with_message()),
        (with_part(type="text", text="a", annotations=None), with_part(type="text", text="a")),
        (
            with_part(type="image_url", image_url={"url": "https://example.com/a.png", "detail": None}),
            with_part(type="image_url", image_url={"url": "https://example.com/a.png"}),
        ),
    ],
)
def test_what_is_null_or_about_the_answer_goes_no_further(
    asked: dict[str, Any], same: dict[str, Any], prices: PriceList
) -> None:
    """The call is the one that MiniToolAI's own path makes of the rest, its bound included."""
    before = json.dumps(asked)
    assert inspect_chat(same, RULES, prices) == inspect_openai_chat(asked, RULES, prices)
    assert before == json.dumps(asked), "a request may be inspected twice"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (request(tools=[]), "tools"),
        (request(store=False), "store"),
        (with_message(annotations=[{"type": "url_citation"}]), "messages[0].annotations"),
        (with_message(refusal="No."), "messages[0].refusal"),
        (with_message(content=None), "messages[0].content"),
        (with_part(type="text", text="a", cache="b"), "messages[0].content[0].cache"),
        (request(messages=None), "messages"),
        (request(messages=[None]), "messages[0]"),
        (request(messages=[{"role": "user", "content": [None]}]), "messages[0].content[0]"),
        (request(max_tokens=1, max_completion_tokens=2), "max_tokens"),
    ],
)
def test_everything_else_is_refused_as_ever(asked: dict[str, Any], param: str, prices: PriceList) -> None:
    """Default-deny, at every depth; the field is named."""
    with pytest.raises(InvalidRequest) as refused:
        inspect_openai_chat(asked, RULES, prices)
    assert param == refused.value.param


def test_what_is_said_to_be_supported_is(prices: PriceList) -> None:
    """About the answer, too: who asks for the wrong thing is told all the right ones."""
    with pytest.raises(InvalidRequest) as refused:
        inspect_openai_chat(request(tools=[]), RULES, prices)
    supported = refused.value.message.split("Supported: ")[1].rstrip(".").split(", ")
    assert {"stream", "stream_options", "messages", "seed"} <= set(supported)


@pytest.mark.parametrize(
    ("fields", "folded", "with_usage"),
    [
        ({}, True, True),
        ({"stream": False}, True, True),
        ({"stream": None, "stream_options": None}, True, True),
        ({"stream": True}, False, False),
        ({"stream": True, "stream_options": None}, False, False),
        ({"stream": True, "stream_options": {}}, False, False),
        ({"stream": True, "stream_options": {"include_usage": None}}, False, False),
        ({"stream": True, "stream_options": {"include_usage": False}}, False, False),
        ({"stream": True, "stream_options": USAGE}, False, True),
    ],
)
@pytest.mark.parametrize("with_cost", [False, True])
def test_stream_and_its_options_say_how_the_answer_is_shown(
    fields: dict[str, Any], folded: bool, with_usage: bool, with_cost: bool
) -> None:
    """One object unless a stream was asked for; its usage only where that was; of as many choices as were asked for."""
    for choices, asked in ((1, fields), (1, {**fields, "n": None}), (3, {**fields, "n": 3})):
        expected = Presentation(
            folded=folded, with_usage=with_usage, with_cost=with_cost, cost_in_usage=with_cost, choices=choices
        )
        assert expected == openai_presentation(asked, with_cost=with_cost)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"stream": "yes"}, "invalid_request", "stream"),
        ({"stream": 1}, "invalid_request", "stream"),
        ({"stream_options": USAGE}, "invalid_request", "stream_options"),
        ({"stream": False, "stream_options": {}}, "invalid_request", "stream_options"),
        ({"stream": True, "stream_options": True}, "invalid_request", "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "invalid_request", "stream_options.include_usage"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": False}},
            "unsupported_parameter",
            "stream_options.include_obfuscation",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused(fields: dict[str, Any], code: str, param: str) -> None:
    """A wish that would be ignored is told."""
    with pytest.raises(GatewayError) as refused:
        openai_presentation(fields, with_cost=False)
    assert (400, code, param) == (refused.value.status, refused.value.code, refused.value.param)


def test_on_minitoolais_own_path_the_answer_always_streams() -> None:
    """And is what it was before there was another face: the very object that the quick way looks for."""
    assert native_presentation({"stream": False}, with_cost=False) is AS_SENT
    assert native_presentation({}, with_cost=True) is WITH_COST


def test_presentations_differ_in_their_words() -> None:
    """By them an Idempotency-Key knows whether the same was asked for; what has none is as it was before."""
    bodies: list[dict[str, Any]] = [{}, {"stream": True}, {"stream": True, "stream_options": USAGE}]
    asked = [openai_presentation(fields, with_cost=with_cost) for fields in bodies for with_cost in (False, True)]
    assert "" == AS_SENT.words
    assert len({*asked, WITH_COST}) == len({presentation.words for presentation in [*asked, WITH_COST]}) == 7


@pytest.mark.parametrize(
    ("sent", "wanted"), [([], False), ([b"1"], True), ([b" True "], True), ([b"0"], False), ([b"false"], False)]
)
def test_the_cost_is_asked_for_by_its_header(sent: list[bytes], wanted: bool) -> None:
    """In the few ways people write yes and no."""
    assert wanted == wants_cost(sent)


@pytest.mark.parametrize("sent", [[b""], [b"yes"], [b"2"], [b"1", b"1"], [b"1", b"0"]])
def test_a_wish_for_the_cost_that_cannot_be_read_is_refused(sent: list[bytes]) -> None:
    """It is not guessed."""
    with pytest.raises(InvalidRequest) as refused:
        wants_cost(sent)
    assert "x-gateway-include-cost" == refused.value.param
