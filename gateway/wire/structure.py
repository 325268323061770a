"""What a JSON body is made of, counted before anything is built of it, piece by piece.

Counting takes a few milliseconds a megabyte; building may take a thousand times as much. The bounds are such that what
is built within them takes no longer than others can wait (`strictjson`).
"""

import re
from itertools import accumulate

from gateway.billing.errors import InvalidRequest, RequestTooLarge

DEPTH_MAX = 64
VALUES_MAX = 25_000
"""Eight thousand messages. Building a value takes a microsecond or two, in which nothing else runs."""

ESCAPES_MAX = 1_250_000
"""A megabyte of tabs; and so many letters written as \\uXXXX are about what the largest context takes. Each is read by
itself."""

LARGE_BODY_BYTES = 8 * 1024 * 1024
LARGE_BODY_ESCAPES_MAX = 500_000
"""Of a body above that size, which is most of it pictures: PHP writes each 64th letter of one as an escape."""

TEXT_BYTES_MAX = 8 * 1024 * 1024
"""Strings with letters beyond ASCII, together: eight bytes for each token of the largest context there is. Pictures are
ASCII, and no part of this."""

PADDING_BYTES_MAX = 12 * 1024 * 1024
"""What stands outside strings: 20,000 long numbers on lines of their own, each with its indent, are less."""

TOO_DEEP = f"The body is nested too deeply: at most {DEPTH_MAX} levels of arrays and objects."
_TOO_MANY = f"The body holds too many values: at most {VALUES_MAX}, counted by its commas, brackets and braces."
_TOO_MANY_ESCAPES = (
    f"The body holds too many backslashes: at most {ESCAPES_MAX}, or {LARGE_BODY_ESCAPES_MAX} where it has more than "
    f"{LARGE_BODY_BYTES} bytes. Write letters in UTF-8, unescaped, or send less."
)
_TOO_MUCH_TEXT = (
    f"The body holds too much text: at most {TEXT_BYTES_MAX} bytes of strings with letters beyond ASCII, more than any "
    "model takes. Send less of it; pictures do not count."
)
_TOO_MUCH_PADDING = "The body holds too much white space between its values; send it without."


class Structure:
    """A body's brackets, braces and commas outside its strings, and what its strings will take."""

    has_wide_escapes = False
    """Whether a letter beyond ASCII is written as an escape."""
    _bytes = _escapes = _quotes = _outside_bytes = _marks = _values = _depth = _wide_bytes = 0
    _within_string = 0  # or 1: which of the parts between quotes is outside
    _half_escape = b""
    _open_bytes = 0
    _open_is_wide = False
    _open_end = b""

    @property
    def is_within_string(self) -> bool:
        return self._within_string == 1

    def add(self, piece: bytes) -> None:
        """Raises InvalidRequest or RequestTooLarge as soon as a bound is passed, before much is made of the piece."""
        self._escapes += piece.count(b"\\")
        self._bytes += len(piece)
        if self._escapes > (LARGE_BODY_ESCAPES_MAX if self._bytes > LARGE_BODY_BYTES else ESCAPES_MAX):
            raise InvalidRequest(_TOO_MANY_ESCAPES)
        parts = self._parts_of(piece)
        within = self._within_string
        self._within_string ^= (len(parts) - 1) & 1
        self._count_text(parts[1 - within :: 2], goes_on=bool(within))
        outside = b"".join(parts[within::2])
        self._outside_bytes += len(outside)
        if self._outside_bytes > PADDING_BYTES_MAX:
            raise InvalidRequest(_TOO_MUCH_PADDING)
        structure = outside.translate(None, _NOT_STRUCTURE)
        self._marks += len(structure)
        self._values += structure.count(b"[") + structure.count(b"{") + structure.count(b",")
        if self._values > VALUES_MAX or self._marks > 2 * VALUES_MAX:  # a bracket that opens has one that closes
            raise InvalidRequest(_TOO_MANY)
        depths = list(accumulate(map(_STEP.__getitem__, structure), initial=self._depth))
        self._depth = depths[-1]
        if max(depths) > DEPTH_MAX:
            raise InvalidRequest(TOO_DEEP)

    def _parts_of(self, piece: bytes) -> list[bytes]:
        """Without escaped backslashes and quotes, what lies between each second pair of quotes is no string."""
        piece = self._half_escape + piece
        if b"\\" in piece:  # one byte is found a hundred times as fast as two
            self._half_escape = b"\\" if (len(piece) - len(piece.rstrip(b"\\"))) % 2 else b""
            whole = piece[: len(piece) - len(self._half_escape)]
            piece = whole.replace(b"\\\\", b"").replace(b'\\"', b"")
        self._quotes += piece.count(b'"')
        if self._quotes > 4 * VALUES_MAX:  # a member has at most four
            raise InvalidRequest(_TOO_MANY)
        return piece.split(b'"')

    def _count_text(self, strings: list[bytes], *, goes_on: bool) -> None:
        """Count strings with letters beyond ASCII: one of them makes its string take up to four times its bytes.

        `goes_on`: the first is more of the last one of the piece before.
        """
        if goes_on:
            self._add_to_open(strings[0])
        began = strings[goes_on:]
        if began:
            wide = b"".join(string for string in began[:-1] if not string.isascii() or b"\\u" in string)
            self._wide_bytes += len(wide)
            self._look_for_escapes(wide)
            self._open_bytes, self._open_is_wide, self._open_end = 0, False, b""
            self._add_to_open(began[-1])
        if self._wide_bytes > TEXT_BYTES_MAX:
            raise RequestTooLarge(_TOO_MUCH_TEXT)

    def _add_to_open(self, string: bytes) -> None:
        """The string that the piece ends in, or the last that ended in it."""
        ending = self._open_end + string
        has_escapes = b"\\" in ending
        if not self._open_is_wide and (not string.isascii() or (has_escapes and b"\\u" in ending)):
            self._open_is_wide = True
            self._wide_bytes += self._open_bytes
        if self._open_is_wide:
            self._wide_bytes += len(string)
        if has_escapes:
            self._look_for_escapes(ending)
        self._open_bytes += len(string)
        self._open_end = ending[-_ESCAPE_BYTES:]

    def _look_for_escapes(self, strings: bytes) -> None:
        if not self.has_wide_escapes and b"\\u" in strings:
            self.has_wide_escapes = _WIDE_ESCAPE.search(strings) is not None


_WIDE_ESCAPE = re.compile(rb"\\u(?:[^0]|0[^0]|00[^0-7])")
_ESCAPE_BYTES = 6
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[]{},"))
_STEP = [0] * 256
for _opening, _closing in (b"[]", b"{}"):
    _STEP[_opening], _STEP[_closing] = 1, -1
