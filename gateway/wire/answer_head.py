"""The head of an answer, as bytes. Pure."""

from collections.abc import Sequence
from http import HTTPStatus

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def head_of(status: int, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The head of an answer. Raises ValueError: a header holds what would end it."""
    first = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    lines = [b"%b: %b" % header for header in headers]
    text = b"\r\n".join(lines)
    if text.count(b"\n") != len(lines) - 1 or text.count(b"\r") != len(lines) - 1 or b"\0" in text:
        raise ValueError("a header of the answer holds a line break")
    return b"%b%b\r\n\r\n" % (first, text)
