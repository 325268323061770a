"""JSON with one meaning: what is priced here is what the upstream will read.

Two parsers may read the same sloppy bytes differently: two keys of one name, NaN, a byte-order
mark, half a surrogate pair, a number too large for a double. A budget that is checked on one reading and
spent on another is no budget, so such bodies are refused, each with a sentence that says why.

Laws:
- The work is linear in the body, done in C, and bounded: `DEPTH_MAX` levels, `VALUES_MAX` values, `ESCAPES_MAX`
  backslashes. No body within these bounds keeps the event loop from its other work for a twentieth of a second.
- `encode(decode(body))` has the same meaning as `body` to every parser that follows RFC 8259.
"""

import json
import math
from collections.abc import Generator, Iterator
from itertools import accumulate
from typing import NoReturn, TypeAlias

import msgspec

from gateway.billing.errors import DuplicateKey, InvalidJSON

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
JSONObject: TypeAlias = dict[str, "JSON"]

DEPTH_MAX = 64
VALUES_MAX = 20_000
"""Six thousand messages. Building a value takes a microsecond or two, in which nothing else runs."""

ESCAPES_MAX = 3_000_000
"""Three million letters written as \\uXXXX are more than any model's context; each is read by itself."""

PADDING_BYTES_MAX = 12 * 1024 * 1024
"""What stands outside strings: 20,000 long numbers on lines of their own, each with its indent, are less."""

DIGITS_MAX = 400
"""A double has at most 309 digits before its point; converting thousands of digits is quadratic."""


def decode(body: bytes) -> JSONObject:
    """Read a request's body: one JSON object in strict UTF-8.

    Raises DuplicateKey (at any depth, in any spelling: the message and `param` name the key) and
    InvalidJSON (everything else), both 400.
    """
    text = _text_of(body)
    if not _is_modest(body):
        for _ in _counted(body):
            pass
    value = _object_in(text)
    _refuse_lone_surrogates(body, value)
    return value


def decode_in_steps(body: bytes) -> Generator[None, None, JSONObject]:
    """As `decode`, with a pause between steps: for a large body each takes milliseconds, in which nothing else runs."""
    text = _text_of(body)
    yield
    yield from _counted(body)
    value = _object_in(text)
    yield
    _refuse_lone_surrogates(body, value)
    return value


def encode(value: object) -> bytes:
    """Write a decoded value compactly, in UTF-8, without escapes that are not needed.

    Floats are written so that they read back as the same double. Values that `decode` never
    makes, such as NaN, have no place here.
    """
    return msgspec.json.encode(value)


_TOO_DEEP = f"The body is nested too deeply: at most {DEPTH_MAX} levels of arrays and objects."
_TOO_MANY = f"The body holds too many values: at most {VALUES_MAX}, counted by its commas, brackets and braces."
_TOO_MANY_ESCAPES = (
    f"The body holds too many backslashes: at most {ESCAPES_MAX}. Write letters in UTF-8, unescaped, or send less."
)
_TOO_MUCH_PADDING = "The body holds too much white space between its values; send it without."
_LARGE_BYTES = 16 * 1024
_PIECE_BYTES = 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def _object_in(text: str) -> JSONObject:
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        # `msg` is json's own wording; it never quotes the body.
        reason = error.msg.removesuffix(" at")
        raise InvalidJSON(
            f"The body is not valid JSON: {reason} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise InvalidJSON(_TOO_DEEP) from None
    if not isinstance(value, dict):
        raise InvalidJSON('The body must be a JSON object, such as {"model": "…", …}.')
    return value


def _text_of(body: bytes) -> str:
    if body.startswith(_BYTE_ORDER_MARK):
        raise InvalidJSON("The body begins with a byte-order mark; send plain UTF-8.")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"The body is not UTF-8: wrong byte at offset {error.start}.") from None


def _is_modest(body: bytes) -> bool:
    """Whether counting bytes is enough, as for nearly every body: what stands inside strings only raises the count."""
    if len(body) >= _LARGE_BYTES:
        # One pass takes out what is not counted, which is nearly all of it.
        body = body.translate(None, _NOT_COUNTED)
    containers = body.count(b"[") + body.count(b"{")
    few_values = containers <= DEPTH_MAX and containers + body.count(b",") <= VALUES_MAX
    return few_values and (len(body) <= ESCAPES_MAX or body.count(b"\\") <= ESCAPES_MAX)


def _counted(body: bytes) -> Generator[None, None, None]:
    """Bound depth and number of values before anything is built, with a pause behind each piece."""
    structure = _Structure()
    for start in range(0, len(body), _PIECE_BYTES):
        structure.add(body[start : start + _PIECE_BYTES])
        yield


class _Structure:
    """A body's brackets, braces and commas outside its strings, counted piece by piece."""

    _escapes = _quotes = _outside_bytes = _marks = _values = _depth = 0
    _within_string = 0  # or 1: which of the parts between quotes is outside
    _half_escape = b""

    def add(self, piece: bytes) -> None:
        """Raises InvalidJSON as soon as a bound is passed, before much is made of the piece."""
        self._escapes += piece.count(b"\\")
        if self._escapes > ESCAPES_MAX:
            raise InvalidJSON(_TOO_MANY_ESCAPES)
        outside = self._outside_strings(piece)
        self._outside_bytes += len(outside)
        if self._outside_bytes > PADDING_BYTES_MAX:
            raise InvalidJSON(_TOO_MUCH_PADDING)
        structure = outside.translate(None, _NOT_STRUCTURE)
        self._marks += len(structure)
        self._values += structure.count(b"[") + structure.count(b"{") + structure.count(b",")
        if self._values > VALUES_MAX or self._marks > 2 * VALUES_MAX:  # a bracket that opens has one that closes
            raise InvalidJSON(_TOO_MANY)
        depths = list(accumulate(map(_STEP.__getitem__, structure), initial=self._depth))
        self._depth = depths[-1]
        if max(depths) > DEPTH_MAX:
            raise InvalidJSON(_TOO_DEEP)

    def _outside_strings(self, piece: bytes) -> bytes:
        """Without escaped backslashes and quotes, what lies between each second pair of quotes is no string."""
        piece = self._half_escape + piece
        self._half_escape = b"\\" if (len(piece) - len(piece.rstrip(b"\\"))) % 2 else b""
        whole = piece[: len(piece) - len(self._half_escape)]
        unescaped = whole.replace(b"\\\\", b"").replace(b'\\"', b"")
        quotes = unescaped.count(b'"')
        self._quotes += quotes
        if self._quotes > 4 * VALUES_MAX:  # a member has at most four
            raise InvalidJSON(_TOO_MANY)
        outside = b"".join(unescaped.split(b'"')[self._within_string :: 2])
        self._within_string ^= quotes & 1
        return outside


_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[]{},"))
_NOT_COUNTED = bytes(set(range(256)) - set(b"[{,\\"))
_STEP = [0] * 256
for _opening, _closing in (b"[]", b"{}"):
    _STEP[_opening], _STEP[_closing] = 1, -1


def _refuse_lone_surrogates(body: bytes, value: JSONObject) -> None:
    """Half a surrogate pair (`"\\ud800"`) is no character: it cannot be sent on in UTF-8."""
    if b"\\" not in body or (b"\\ud" not in body and b"\\uD" not in body):  # one byte is found the fastest
        return
    try:
        for text in _strings_in(value):
            text.encode()
    except UnicodeEncodeError:
        raise InvalidJSON("A string in the body holds half a surrogate pair (\\ud800 to \\udfff).") from None


def _strings_in(value: JSON) -> Iterator[str]:
    """Every string in a value, keys included."""
    open_values = [value]
    while open_values:
        value = open_values.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from value
            open_values.extend(value.values())
        elif isinstance(value, list):
            open_values.extend(value)


def _object_of(pairs: list[tuple[str, JSON]]) -> JSONObject:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _duplicate(pairs)
    return members


def _duplicate(pairs: list[tuple[str, JSON]]) -> DuplicateKey:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            break
        seen.add(key)
    # The key may hold half a surrogate pair, which an answer could not carry.
    name = key[:80].encode(errors="replace").decode()
    return DuplicateKey(f'The key "{name}" appears twice in one object; keep one of them.', param=name)


def _integer_of(digits: str) -> int:
    _refuse_long_number(digits)
    return int(digits)


def _float_of(digits: str) -> float:
    _refuse_long_number(digits)
    number = float(digits)
    if math.isinf(number):
        raise InvalidJSON(f"The number {digits[:40]} is too large for a double.")
    return number


def _refuse_long_number(digits: str) -> None:
    if len(digits) > DIGITS_MAX:
        raise InvalidJSON(f"A number in the body has more than {DIGITS_MAX} digits.")


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJSON(f"{name} is not JSON; numbers must be finite.")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_of,
    parse_int=_integer_of,
    parse_float=_float_of,
    parse_constant=_refuse_constant,
)
