"""JSON with one meaning: what is priced here is what the upstream will read.

Two parsers may read the same sloppy bytes differently: two keys of one name, NaN, a byte-order
mark, half a surrogate pair, a number too large for a double. A budget that is checked on one reading and
spent on another is no budget, so such bodies are refused, each with a sentence that says why.

Laws:
- The work is linear in the body, done in C, and bounded: `DEPTH_MAX` levels, `VALUES_MAX` values.
- `encode(decode(body))` has the same meaning as `body` to every parser that follows RFC 8259.
"""

import json
import math
from collections.abc import Generator
from itertools import accumulate
from typing import NoReturn, TypeAlias

import msgspec

from gateway.billing.errors import DuplicateKey, InvalidJSON

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
JSONObject: TypeAlias = dict[str, "JSON"]

DEPTH_MAX = 64
VALUES_MAX = 250_000
"""More values than any conversation has; building them is what would stall the event loop."""

DIGITS_MAX = 400
"""A double has at most 309 digits before its point; converting thousands of digits is quadratic."""


def decode(body: bytes) -> JSONObject:
    """Read a request's body: one JSON object in strict UTF-8.

    Raises DuplicateKey (at any depth, in any spelling: the message and `param` name the key) and
    InvalidJSON (everything else), both 400.
    """
    text = _checked_text(body)
    value = _object_in(text)
    _refuse_lone_surrogates(body, value)
    return value


def decode_in_steps(body: bytes) -> Generator[None, None, JSONObject]:
    """As `decode`, with a pause between steps: for a large body each takes milliseconds, in which nothing else runs."""
    text = _checked_text(body)
    yield
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
_TOO_MANY = f"The body holds too many values: at most {VALUES_MAX}."
_LARGE_BYTES = 16 * 1024
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


def _checked_text(body: bytes) -> str:
    if body.startswith(_BYTE_ORDER_MARK):
        raise InvalidJSON("The body begins with a byte-order mark; send plain UTF-8.")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"The body is not UTF-8: wrong byte at offset {error.start}.") from None
    _refuse_huge_structure(body)
    return text


_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[]{},"))
_STEP = [0] * 256
for _opening, _closing in (b"[]", b"{}"):
    _STEP[_opening], _STEP[_closing] = 1, -1


def _refuse_huge_structure(body: bytes) -> None:
    """Bound depth and number of values before anything is built.

    Counting bytes is enough for nearly every body, for brackets inside strings only raise the
    count; a body that does not pass it has its strings taken out and is counted exactly.
    """
    # Of a large body one pass takes out what is not counted, which is nearly all of it.
    if _is_modest(body if len(body) < _LARGE_BYTES else body.translate(None, _NOT_STRUCTURE)):
        return
    # Without escaped backslashes and quotes, what lies between each second pair of quotes is no string.
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if unescaped.count(b'"') > 4 * VALUES_MAX:  # a member has at most four
        raise InvalidJSON(_TOO_MANY)
    structure = b"".join(unescaped.split(b'"')[::2]).translate(None, _NOT_STRUCTURE)
    if structure.count(b"[") + structure.count(b"{") + structure.count(b",") > VALUES_MAX:
        raise InvalidJSON(_TOO_MANY)
    if max(accumulate(map(_STEP.__getitem__, structure)), default=0) > DEPTH_MAX:
        raise InvalidJSON(_TOO_DEEP)


def _is_modest(structure: bytes) -> bool:
    containers = structure.count(b"[") + structure.count(b"{")
    return containers <= DEPTH_MAX and containers + structure.count(b",") <= VALUES_MAX


def _refuse_lone_surrogates(body: bytes, value: object) -> None:
    """Half a surrogate pair (`"\\ud800"`) is no character: it cannot be sent on in UTF-8."""
    if b"\\" not in body or (b"\\ud" not in body and b"\\uD" not in body):  # one byte is found the fastest
        return
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        raise InvalidJSON("A string in the body holds half a surrogate pair (\\ud800 to \\udfff).") from None


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
