"""Every fault the emulator can be asked for: its name, what it takes, what it does.

A call asks for faults in the header `x-emulator-fault: NAME[=VALUE][;NAME=VALUE…]`, or, where a header does
not reach the emulator, by a marker `[[fault:NAME=VALUE;…]]` in the last message's text or the image prompt.
`POST /__faults` queues faults for the next calls that ask for none. Asking for an unknown fault is a 400.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

HEADER = b"x-emulator-fault"
MARKER = re.compile(r"\[\[fault:([^\]]*)\]\]")
KINDS = ("chat", "image", "poll")

Value = int | float | str | bool


class BadFault(ValueError):
    """A fault was asked for that does not exist, or with a value it does not take."""


def _status(text: str) -> int:
    if not 200 <= int(text) <= 599:
        raise ValueError
    return int(text)


def _count(text: str) -> int:
    if int(text) < 0:
        raise ValueError
    return int(text)


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def _seconds(text: str) -> float:
    if not 0 <= float(text) <= 86_400:
        raise ValueError
    return float(text)


def _body(text: str) -> str:
    if text not in ("json", "html"):
        raise ValueError
    return text


Read = Callable[[str], Value]

FAULTS: dict[str, tuple[Read | None, str]] = {
    # instead of an answer
    "status": (_status, "status=CODE: answers that status with a JSON error"),
    "body": (_body, "body=html: the body of `status` is HTML (default: json)"),
    "json200": (None, "200 with a JSON error in place of an answer"),
    "html200": (None, "200 with an HTML page in place of an answer"),
    "redirect": (None, "307 to another host"),
    "echo_key": (None, "500 whose body repeats the Authorization header it received"),
    # when
    "delay": (_seconds, "delay=SECONDS before the headers"),
    "withhold": (None, "headers and body go out only after POST /__release"),
    "withhold_after": (
        _count,
        "withhold_after=K: headers and K events go out, the rest after POST /__release",
    ),
    "gap": (_seconds, "gap=SECONDS between two events"),
    # broken connections
    "reset": (
        None,
        "the connection is reset (RST) before any byte of the answer; the call is billed its prompt",
    ),
    "reset_at": (_count, "reset_at=K: the connection closes after K events, the chunked body unfinished"),
    "reset_byte": (_count, "reset_byte=B: the connection closes after B bytes of the body"),
    # usage
    "no_usage": (None, "no usage chunk"),
    "usage_twice": (None, "two usage chunks: first a smaller one, then the right one"),
    "usage_more": (_count, "usage_more=N: usage claims N completion tokens more than there are"),
    "usage_zero": (None, "usage claims 0 tokens"),
    "usage_negative": (None, "usage claims negative tokens"),
    "usage_huge": (None, "usage claims 10^18 tokens"),
    "usage_bool": (None, "usage claims `true` tokens"),
    "usage_float": (None, "usage claims half a token more than there are"),
    "usage_string": (None, "usage claims its numbers as strings"),
    # the shape of the stream
    "no_done": (None, "no `data: [DONE]`"),
    "crlf": (None, "lines end in CRLF"),
    "cr": (None, "lines end in CR"),
    "u2028": (None, "raw U+2028 and U+2029 inside the JSON of the content"),
    "echo": (None, "the answer is the text of the last message, without the marker, in one event"),
    "broken_event": (None, "an event that is not JSON in the middle"),
    "comment": (None, "an SSE comment line before each event"),
    "big_event": (_count, "big_event=BYTES: an event padded by that many bytes in the middle"),
    "tokens": (_positive, "tokens=N: the answer is N tokens long, within max_completion_tokens"),
    "past_max": (_positive, "past_max=N: the answer goes on N tokens past max_completion_tokens, and is billed so"),
    "endless": (None, "the content repeats and never stops"),
    # how the bytes go out
    "one_byte": (None, "writes of one byte"),
    "split": (_positive, "split=N: writes of N bytes, across event borders"),
    "gzip": (None, "Content-Encoding: gzip that nobody asked for"),
    # image jobs
    "no_job": (None, "image: the submission is answered with status error"),
    "job_fails": (None, "image: the job pends, then fails, and its bill line is voided"),
    "job_never": (None, "image: the job pends for ever"),
    "job_again": (None, "image: the job is accepted and billed, and the answer names the one before it once more"),
    "job_elsewhere": (None, "image: the picture is said to be on the machine that asks, where nobody serves it"),
    "job_pending": (_count, "job_pending=N: image: the job pends for N polls"),
}


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of one call. `text` is how they were asked for, None when there are none."""

    text: str | None = None
    values: dict[str, Value] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def integer(self, name: str) -> int | None:
        value = self.values.get(name)
        return None if value is None else int(value)

    def seconds(self, name: str, default: float = 0.0) -> float:
        return float(self.values.get(name, default))


NO_FAULTS = Faults()


def parse(text: str) -> Faults:
    """Read `NAME[=VALUE][;NAME=VALUE…]`. Raises BadFault."""
    values: dict[str, Value] = {}
    for item in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = item.partition("=")
        if name not in FAULTS:
            raise BadFault(f"there is no fault {name}; GET /__faults lists them")
        read = FAULTS[name][0]
        if (read is None) == bool(equals):
            raise BadFault(f"fault {name} takes {'no value' if read is None else 'a value'}")
        try:
            values[name] = True if read is None else read(value)
        except ValueError:
            raise BadFault(f"fault {name} does not take {value!r}: {FAULTS[name][1]}") from None
    return Faults(text, values)


def asked_for(header: str | None, text: str) -> Faults | None:
    """The faults in the header, else in a marker inside `text`, else None. Raises BadFault."""
    if header is not None:
        return parse(header)
    marker = MARKER.search(text)
    return parse(marker.group(1)) if marker else None


def without_marker(text: str) -> str:
    return MARKER.sub("", text)


@dataclass(slots=True)
class _Queued:
    faults: Faults
    left: int
    kinds: tuple[str, ...]


class FaultQueue:
    """Faults for the next calls that ask for none themselves, oldest order first."""

    def __init__(self) -> None:
        self._queue: deque[_Queued] = deque()

    def add(self, faults: Faults, count: int, kinds: tuple[str, ...]) -> None:
        self._queue.append(_Queued(faults, count, kinds))

    def take(self, kind: str) -> Faults:
        """The faults of the next call of this kind; each order lasts `count` calls."""
        for queued in self._queue:
            if kind in queued.kinds:
                queued.left -= 1
                if queued.left <= 0:
                    self._queue.remove(queued)
                return queued.faults
        return NO_FAULTS

    def clear(self) -> None:
        self._queue.clear()

    def listed(self) -> list[dict[str, object]]:
        return [{"fault": item.faults.text, "count": item.left, "kinds": list(item.kinds)} for item in self._queue]
