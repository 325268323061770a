"""Server-sent events, without I/O: bytes in, the data of finished events out.

Laws:
- Every split of the same bytes gives the same events.
- A line ends with LF, CRLF or CR and with nothing else: U+2028, U+0085 and form feeds are text.
- Time is linear in the bytes, even when they come one at a time.
- No line and no event's data is kept above `event_bytes_max`: such an event is skipped up to its
  end, and `skipped` says so from then on.
Source: the WHATWG HTML standard, "Server-sent events", parsing an event stream.
"""

EVENT_BYTES_MAX = 1024 * 1024

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SKIPPED_LINE = b":"
"""What stands for the dropped part of a line: a comment, so that the rest of the line is one too."""


class EventParser:
    """Splits one event stream. `skipped` turns True when an event was too large to keep."""

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self.skipped = False
        self._event_bytes_max = event_bytes_max
        self._line = bytearray()  # the beginning of a line whose end has not come
        self._data: bytearray | None = None  # of the event whose blank line has not come
        self._skipping = False
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take bytes; return the data of each event that they finish, without the field name."""
        if self._after_cr and chunk.startswith(b"\n"):  # the second half of a CRLF
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        lines = chunk.splitlines()  # of bytes: at LF, CRLF and CR only
        rest = b"" if chunk.endswith((b"\n", b"\r")) else lines.pop()
        events: list[bytes] = []
        if lines and self._line:
            lines[0] = bytes(self._line + lines[0])
            self._line.clear()
        for line in lines:
            self._take_line(line, events)
        if rest:
            self._line += rest
            if self._skipping or len(self._line) > self._event_bytes_max:
                self._skip()
                self._line[:] = _SKIPPED_LINE
        return events

    def unfinished(self) -> bytes | None:
        """The data of the event that would be finished if the stream ended here, if there is any.

        The standard drops such an event; a bill must not. Asking changes nothing.
        """
        if self._skipping:
            return None
        value = _data_of(self._without_mark(bytes(self._line)))
        if value is None:
            return None if self._data is None else bytes(self._data)
        return value if self._data is None else bytes(self._data) + b"\n" + value

    def kept_bytes(self) -> int:
        """How much is held for events that are not finished."""
        return len(self._line) + len(self._data or b"")

    def _take_line(self, line: bytes, events: list[bytes]) -> None:
        if len(line) > self._event_bytes_max:
            self._skip()
        if self._at_start:
            line = self._without_mark(line)
            self._at_start = False
        if not line:
            if self._data is not None:
                events.append(bytes(self._data))
            self._data = None
            self._skipping = False
            return
        value = _data_of(line)
        if value is None or self._skipping:
            return
        if self._data is None:
            self._data = bytearray(value)
        else:
            self._data += b"\n"
            self._data += value
        if len(self._data) > self._event_bytes_max:
            self._skip()

    def _skip(self) -> None:
        self._skipping = self.skipped = True
        self._data = None

    def _without_mark(self, line: bytes) -> bytes:
        return line.removeprefix(_BYTE_ORDER_MARK) if self._at_start else line


def _data_of(line: bytes) -> bytes | None:
    """The value of a `data` line; None for comments and every other field."""
    if line.startswith(b"data:"):
        return line[6:] if line.startswith(b"data: ") else line[5:]
    return b"" if line == b"data" else None
