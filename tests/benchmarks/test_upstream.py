"""The upstream of the benches: an answer that the gateway could not bill would be measured too cheap."""

import json

import pytest

from benchmarks.calls import body_of
from benchmarks.upstream import Shape, pieces_of
from gateway.billing.usage import Usage
from gateway.wire.chat_meter import ChatMeter
from tests.wire.recordings import CALL


@pytest.mark.parametrize("events", [1, 2, 3, 50])
def test_an_answer_has_as_many_events_as_asked_and_ends(events: int) -> None:
    """Figures by event are divided by that number."""
    *said, done = events_of(Shape(events))
    assert events == len(said)
    assert b"data: [DONE]" == done


def test_an_answer_is_billed_by_its_usage() -> None:
    """As the gateway's own meter reads it."""
    meter = ChatMeter(CALL)
    meter.feed(b"\n\n".join(events_of(Shape(3))) + b"\n\n")
    assert Usage(prompt_tokens=110, completion_tokens=7) == meter.outcome().usage
    assert meter.done


def test_a_call_asks_for_its_shape_by_a_field_that_is_forwarded() -> None:
    """Default-deny would refuse any other."""
    assert "50x10" == json.loads(body_of(Shape(events=50, gap_ms=10)))["user"]


def events_of(shape: Shape) -> list[bytes]:
    """The events of an answer, without head and chunks' lengths."""
    body = b"".join(pieces_of(shape)).partition(b"\r\n\r\n")[2]
    return [line.strip() for line in body.split(b"\r\n") if line.startswith(b"data: ")]
