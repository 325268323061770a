"""The faults that change what an answer consists of; each is one row of a table and one small function.

`delivery` has the faults about how and when its bytes go out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.emulator.answers import DONE, Answer, Event, Usage, usage_of
from gateway.emulator.faults import Faults

JSON = b"application/json"
HTML = b"text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer that is no stream."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_reply(status: int, body: object) -> Reply:
    return Reply(status, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


def error_reply(status: int, message: str, code: str, param: str | None = None) -> Reply:
    """An error in OpenAI's shape, which is what chat clients understand."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return json_reply(status, {"error": {"message": message, "type": kind, "param": param, "code": code}})


def replaced(faults: Faults, authorization: str) -> Reply | None:
    """What is answered in place of an answer, None when nothing is."""
    for name, make in REPLIES.items():
        if name in faults:
            return make(faults, authorization)
    return None


def stream(answer: Answer, faults: Faults) -> list[Event]:
    """All events of an answer, changed as the faults ask."""
    events = list(answer.events)
    events += [answer.usage_event(usage) for usage in _claims(answer, faults)]
    if "no_done" not in faults:
        events.append(DONE)
    for name, change in CHANGES.items():
        if name in faults:
            events = change(events, faults)
    return events


def _claims(answer: Answer, faults: Faults) -> list[Usage]:
    for name, claim in CLAIMS.items():
        if name in faults:
            return claim(answer.prompt_tokens, answer.completion_tokens)
    more = faults.integer("usage_more") or 0
    return [usage_of(answer.prompt_tokens, answer.completion_tokens + more)]


def _status(faults: Faults, authorization: str) -> Reply:
    status = faults.integer("status") or 500
    if status in (204, 304):
        return Reply(status, b"")
    if faults.values.get("body") == "html":
        return _html(status, f"Error {status}")
    return error_reply(status, f"emulated status {status}", "emulated_error")


def _html(status: int, title: str) -> Reply:
    page = f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
    return Reply(status, page.encode(), HTML)


REPLIES: dict[str, Callable[[Faults, str], Reply]] = {
    "status": _status,
    "json200": lambda faults, authorization: error_reply(200, "emulated error with status 200", "emulated_error"),
    "html200": lambda faults, authorization: _html(200, "Maintenance"),
    "redirect": lambda faults, authorization: Reply(
        307, b"", HTML, ((b"location", b"http://redirected.invalid/api/"),)
    ),
    "echo_key": lambda faults, authorization: error_reply(
        500, f"could not handle the call with Authorization: {authorization}", "emulated_error"
    ),
}


def _claimed_as(convert: Callable[[int], object]) -> Callable[[int, int], list[Usage]]:
    def claim(prompt: int, completion: int) -> list[Usage]:
        usage = usage_of(prompt, completion)
        for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
            usage[name] = convert(usage[name])
        return [usage]

    return claim


CLAIMS: dict[str, Callable[[int, int], list[Usage]]] = {
    "no_usage": lambda prompt, completion: [],
    "usage_twice": lambda prompt, completion: [
        usage_of(prompt, completion // 2),
        usage_of(prompt, completion),
    ],
    "usage_zero": lambda prompt, completion: [usage_of(0, 0)],
    "usage_negative": lambda prompt, completion: [usage_of(-prompt, -completion)],
    "usage_huge": lambda prompt, completion: [usage_of(10**18, 10**18)],
    "usage_bool": _claimed_as(lambda tokens: True),
    "usage_float": _claimed_as(lambda tokens: tokens + 0.5),
    "usage_string": _claimed_as(str),
}


def _with_broken_event(events: list[Event], faults: Faults) -> list[Event]:
    middle = len(events) // 2
    return [
        *events[:middle],
        Event(b'data: {"id":"chatcmpl-broken","choices":[{"index"\n\n'),
        *events[middle:],
    ]


def _with_big_event(events: list[Event], faults: Faults) -> list[Event]:
    # OpenAI pads its chunks by a field of this name; it costs no tokens, so the bill stays as it is.
    padding = b',"obfuscation":"' + b"x" * (faults.integer("big_event") or 0) + b'"}\n\n'
    middle = len(events) // 2 if len(events) > 2 else 0
    big = replace(events[middle], wire=events[middle].wire.removesuffix(b"}\n\n") + padding)
    return [*events[:middle], big, *events[middle + 1 :]]


def _with_line_ends(end: bytes) -> Callable[[list[Event], Faults], list[Event]]:
    def change(events: list[Event], faults: Faults) -> list[Event]:
        return [replace(event, wire=event.wire.replace(b"\n", end)) for event in events]

    return change


# In the order they are applied: padding before breaking, line ends last.
CHANGES: dict[str, Callable[[list[Event], Faults], list[Event]]] = {
    "big_event": _with_big_event,
    "broken_event": _with_broken_event,
    "comment": lambda events, faults: [
        replace(event, wire=b": the emulator is still here\n\n" + event.wire) for event in events
    ],
    "crlf": _with_line_ends(b"\r\n"),
    "cr": _with_line_ends(b"\r"),
}
