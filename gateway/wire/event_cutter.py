"""A stream of server-sent events cut into its events, every byte kept: for whoever leaves some out or adds one.

Laws:
- What comes out, put together, is what went in; every split of the same bytes gives the same events, but that the LF
  of a last CRLF may come after its event.
- An event comes out at once when its blank line has come, with that line; a blank line ends with LF, CRLF or CR.
- No more than `event_bytes_max` of an unfinished event is kept. A longer one passes in parts, which are no events.
- Time is linear in the bytes, even when they come one at a time.
Source: the WHATWG HTML standard, "Server-sent events", parsing an event stream.
"""

import re
from typing import NamedTuple

from gateway.wire.sse import EVENT_BYTES_MAX

_BLANK_LINE = re.compile(rb"[\n\r](?:\r\n?|(?<=\n)\n)")
"""A blank line with the last byte of the line end before it: an LF behind a CR would only end that line."""
_BLANK_LINE_LAST = re.compile(_BLANK_LINE.pattern + rb"\Z")


class Piece(NamedTuple):
    """Some bytes of a stream. What is no event belongs to the one before it: its late LF, or more of a long one."""

    data: bytes
    is_event: bool


class EventCutter:
    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._rest = bytearray()  # of the event whose blank line has not come
        self._searched = 0  # so much of it has no blank line within
        self._passed = 0  # so much of it has come out already, because the event is too long
        self._after_cr = False

    @property
    def is_between_events(self) -> bool:
        """Whether the next byte surely begins an event."""
        return not self._rest and not self._after_cr

    def feed(self, chunk: bytes) -> list[Piece]:
        """Take bytes; return the events that they finish, in their order."""
        pieces: list[Piece] = []
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk.startswith(b"\n"):  # the second half of a CRLF
                pieces.append(Piece(b"\n", is_event=False))
                chunk = chunk[1:]
        self._rest += chunk
        while blank := _BLANK_LINE.search(self._rest, self._searched):
            pieces.append(self._taken(blank.end()))
            self._after_cr = not self._rest and pieces[-1].data.endswith(b"\r")
        self._searched = max(0, len(self._rest) - 1)
        if len(self._rest) > self._event_bytes_max:
            pieces.append(self._part())
        return pieces

    def rest(self) -> Piece:
        """What no blank line has ended, at the stream's end."""
        return self._taken(len(self._rest))

    def _taken(self, end: int) -> Piece:
        is_event = not self._passed and end <= self._event_bytes_max
        piece = Piece(bytes(self._rest[self._passed : end]), is_event)
        del self._rest[:end]
        self._searched = self._passed = 0
        return piece

    def _part(self) -> Piece:
        """All that is there of an event that is too long; its last byte is needed to find its blank line."""
        part = bytes(self._rest[self._passed :])
        del self._rest[:-1]
        self._passed = len(self._rest)
        self._searched = 0
        return Piece(part, is_event=False)


def ends_event(data: bytes) -> bool:
    """Whether it ends in a blank line, so that what follows is apart from it."""
    return _BLANK_LINE_LAST.search(data) is not None
