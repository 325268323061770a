"""The line of a call: its fields in their order, and nothing in it that a terminal or a parser would act on."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from gateway.billing.ledger import ESTIMATED, RELEASE, Posting
from gateway.billing.principal import Principal
from gateway.billing.usage import Usage
from gateway.call_log import CallRecord, call_line


def test_a_charged_call_has_all_its_fields_in_their_order() -> None:
    """Lines are read by eye as well as by programs: the same thing stands at the same place."""
    record = CallRecord(
        endpoint="/api/chat-completions/",
        request_id="req-1",
        started_at=10.0,
        principal=Principal("default", "research", "an", "key-1"),
        kind="chat",
        model="gpt-4o-mini",
        hold_nano_usd=60_000,
        sent_at=10.25,
        first_byte_at=10.5,
        upstream_ended_at=11.0004,
        status=200,
        error="upstream_error",
        fault="BrokenOff",
        client_left=True,
        posting=Posting("capture", 4350, Usage(17, 3, 1, 2), "estimated", (ESTIMATED,)),
    )
    line = json.loads(call_line(record, 1.0006), object_pairs_hook=list)
    assert [
        ("event", "call"),
        ("request_id", "req-1"),
        ("endpoint", "/api/chat-completions/"),
        ("status", 200),
        ("error", "upstream_error"),
        ("fault", "BrokenOff"),
        ("org", "default"),
        ("team", "research"),
        ("user", "an"),
        ("key", "key-1"),
        ("kind", "chat"),
        ("model", "gpt-4o-mini"),
        ("hold_nano_usd", 60_000),
        ("outcome", "capture"),
        ("cost_nano_usd", 4350),
        ("prompt_tokens", 17),
        ("completion_tokens", 3),
        ("units", 2),
        ("usage_source", "estimated"),
        ("flags", ["estimated"]),
        ("client_left", True),
        ("duration_ms", 1000.6),
        ("first_byte_ms", 500.0),
        ("upstream_ms", 750.4),
    ] == [tuple(pair) for pair in line[1:]]
    assert "at" == line[0][0]


def test_what_a_call_never_reached_is_null_and_not_empty() -> None:
    """A key that is not valid: nobody is known, nothing is held."""
    line = json.loads(call_line(CallRecord("/v1/x", "req-1", 1.0, status=401, error="invalid_api_key"), 0.5))
    unknown = {name for name, value in line.items() if value is None}
    assert {
        *("fault", "org", "team", "user", "key", "kind", "model", "outcome", "usage_source"),
        *("first_byte_ms", "upstream_ms"),
    } == unknown
    assert [0, 0, 0, []] == [line[name] for name in ("hold_nano_usd", "cost_nano_usd", "units", "flags")]


def test_a_call_that_cost_nothing_has_no_source_of_its_usage() -> None:
    """There was no usage that could have one."""
    line = json.loads(call_line(CallRecord("/v1/x", "req-1", 1.0, posting=RELEASE), 0.5))
    assert ("release", 0, None) == (line["outcome"], line["cost_nano_usd"], line["usage_source"])


@pytest.mark.parametrize("text", ["\r\n{}", "\x1b[2J", "\x00\x08\x7f", "\x85\u2028\u202e", "héllo 😀", '"\\', "\ud800"])
def test_nothing_in_a_line_is_acted_on(text: str) -> None:
    """Line breaks of every kind, what moves a cursor, what turns text around: escaped, and there when it is parsed."""
    line = call_line(CallRecord("/v1/x", "req-1", 1.0, fault=text), 0.5)
    assert line.isascii()
    assert line.isprintable()
    assert text == json.loads(line)["fault"]
    assert json.dumps(json.loads(line), separators=(",", ":")) == line


def test_a_line_has_the_instant_it_was_made() -> None:
    """UTC, to the millisecond, cut off and not rounded: it must not lie ahead."""
    before = datetime.now(UTC)
    at = json.loads(call_line(CallRecord("/v1/x", "req-1", 1.0), 0.5))["at"]
    assert len("2026-01-01T00:00:00.000Z") == len(at)
    assert before - timedelta(milliseconds=1) < datetime.fromisoformat(at) <= datetime.now(UTC)
