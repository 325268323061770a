"""JSON with one meaning: what is priced here is what the upstream will read.

Two parsers may read the same sloppy bytes differently: two keys of one name, NaN, a byte-order
mark, half a surrogate pair, a number too large for a double. A budget that is checked on one reading and
spent on another is no budget, so such bodies are refused, each with a sentence that says why.

Laws:
- The work is linear in the body, done in C, and bounded: `DEPTH_MAX` levels, `VALUES_MAX` values, `ESCAPES_MAX`
  backslashes, `TEXT_BYTES_MAX` of letters beyond ASCII. No body within these bounds keeps the event loop from its other
  work for a twentieth of a second. Above one it is refused as a request, for as JSON it may be valid.
- `encode(decode(body))` has the same meaning as `body` to every parser that follows RFC 8259.
"""

import codecs
import json
import math
from collections.abc import Generator, Iterator
from typing import NoReturn, TypeAlias

import msgspec

from gateway.billing.errors import DuplicateKey, InvalidJSON, InvalidRequest, RequestTooLarge
from gateway.wire.long_strings import LongStrings
from gateway.wire.structure import DEPTH_MAX, ESCAPES_MAX, TOO_DEEP, VALUES_MAX, Structure

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
JSONObject: TypeAlias = dict[str, "JSON"]

MIXED_BYTES_MAX = 4 * 1024 * 1024
"""A body with letters beyond ASCII both as they are and as \\uXXXX. It is read as one text, each letter of which takes
as many bytes as the widest does; so it is smaller."""

REST_BYTES_MAX = 16 * 1024 * 1024
"""What is left of a body without its long strings, which are pictures: twice the text that any model takes."""

DIGITS_MAX = 64
"""Three times what a double can tell apart. What a number takes to be read and written grows with the square of it."""


def decode(body: bytes) -> JSONObject:
    """Read a request's body: one JSON object in strict UTF-8.

    Raises DuplicateKey (at any depth, in any spelling: the message and `param` name the key), InvalidRequest (above a
    bound) and InvalidJSON (everything else), all 400; RequestTooLarge (413: too much text).
    """
    text = _text_of(body)
    if not _is_modest(body):
        for _ in _counted(body, LongStrings(body)):
            pass
    value = _object_in(text)
    _refuse_lone_surrogates(body, value)
    return value


def decode_in_steps(body: bytes) -> Generator[None, None, JSONObject]:
    """As `decode`, with a pause between steps: for a large body each takes milliseconds, in which nothing else runs."""
    long_strings = LongStrings(body)
    has_wide_escapes = yield from _counted(body, long_strings)
    body = long_strings.without()
    yield
    if len(body) > REST_BYTES_MAX:
        raise RequestTooLarge(_TOO_MUCH_REST)
    if body.isascii() or has_wide_escapes:
        if not body.isascii() and len(body) > MIXED_BYTES_MAX:
            raise InvalidRequest(_TOO_MIXED)
        text = body.decode()
        yield
        value = _object_in(text)
        del text
    else:
        value = yield from _wide_object_in(body)
    yield
    if has_wide_escapes:
        _refuse_lone_surrogates(body, value)
    yield from long_strings.put_back(value, _object_of)
    return value


def encode(value: object) -> bytes:
    """Write a decoded value compactly, in UTF-8, without escapes that are not needed.

    Floats are written so that they read back as the same double. Values that `decode` never
    makes, such as NaN, have no place here.
    """
    return msgspec.json.encode(value)


_TOO_MIXED = (
    f"A body above {MIXED_BYTES_MAX} bytes writes letters beyond ASCII in one way: all in UTF-8, or all as \\uXXXX."
)
_TOO_MUCH_REST = (
    f"The body holds more than {REST_BYTES_MAX} bytes beside its long strings, more text than any model takes. "
    "Send less of it."
)
_LARGE_BYTES = 16 * 1024
_PIECE_BYTES = 1024 * 1024
_STRING_BYTES = 256
"""To read a string takes as long as so many bytes of it."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def _wide_object_in(body: bytes) -> Generator[None, None, JSONObject]:
    """A large body with letters beyond ASCII in UTF-8, and none as an escape.

    As one text each of its letters would take as many bytes as the widest, pictures too. So each byte is taken for a
    letter at first, which changes nothing that is JSON's, and then those strings are read anew that have any of them.
    """
    text = body.decode("latin-1")
    yield
    try:
        value = _object_in(text, "byte")
    except DuplicateKey as error:
        raise _duplicate_of((error.param or "").encode("latin-1", "ignore").decode(errors="ignore")) from None
    del text
    yield
    yield from _read_as_utf8(value)
    return value


def _read_as_utf8(value: JSONObject) -> Generator[None, None, None]:
    """Read each string anew whose letters are bytes, keys included."""
    work_bytes = 0
    open_values: list[JSON] = [value]
    while open_values:
        parent = open_values.pop()
        if isinstance(parent, dict) and not all(map(str.isascii, parent)):
            members = [(_utf8_in(key), member) for key, member in parent.items()]
            parent.clear()
            parent.update(members)
        children = parent.items() if isinstance(parent, dict) else enumerate(parent) if isinstance(parent, list) else ()
        for place, child in list(children):
            if isinstance(child, dict | list):
                open_values.append(child)
            elif isinstance(child, str) and not child.isascii():
                work_bytes += len(child) + _STRING_BYTES
                if work_bytes > _PIECE_BYTES:
                    work_bytes = 0
                    yield
                parent[place] = text = _utf8_in(child)  # type: ignore[index,call-overload]  # as its kind has it
                if len(child) > _PIECE_BYTES:
                    yield
                    encode(text)  # a string keeps its UTF-8: it is there when it is sent on
                    yield


def _utf8_in(text: str) -> str:
    return text.encode("latin-1").decode()


def _object_in(text: str, column: str = "column") -> JSONObject:
    """`column`: what stands between two breaks of a line."""
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        # `msg` is json's own wording; it never quotes the body.
        reason = error.msg.removesuffix(" at")
        raise InvalidJSON(
            f"The body is not valid JSON: {reason} at line {error.lineno}, {column} {error.colno}."
        ) from None
    except RecursionError:
        raise InvalidRequest(TOO_DEEP) from None
    if not isinstance(value, dict):
        raise InvalidJSON('The body must be a JSON object, such as {"model": "…", …}.')
    return value


def _text_of(body: bytes) -> str:
    _refuse_mark(body)
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(error.start) from None


def _refuse_mark(body: bytes) -> None:
    if body.startswith(_BYTE_ORDER_MARK):
        raise InvalidJSON("The body begins with a byte-order mark; send plain UTF-8.")


def _not_utf8(offset: int) -> InvalidJSON:
    return InvalidJSON(f"The body is not UTF-8: wrong byte at offset {offset}.")


def _is_modest(body: bytes) -> bool:
    """Whether counting bytes is enough, as for nearly every body: what stands inside strings only raises the count."""
    if len(body) >= _LARGE_BYTES:
        # One pass takes out what is not counted, which is nearly all of it.
        body = body.translate(None, _NOT_COUNTED)
    containers = body.count(b"[") + body.count(b"{")
    few_values = containers <= DEPTH_MAX and containers + body.count(b",") <= VALUES_MAX
    return few_values and (len(body) <= ESCAPES_MAX or body.count(b"\\") <= ESCAPES_MAX)


def _counted(body: bytes, long_strings: LongStrings) -> Generator[None, None, bool]:
    """Bound depth and number of values before anything is built, with a pause behind each piece.

    Returns whether letters beyond ASCII are written as escapes. Raises what `decode` does for what is not UTF-8.
    """
    _refuse_mark(body)
    structure, utf8 = Structure(), codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(body), _PIECE_BYTES):
        piece = body[start : start + _PIECE_BYTES]
        before_bytes = len(utf8.getstate()[0])
        try:
            utf8.decode(piece, final=start + _PIECE_BYTES >= len(body))
        except UnicodeDecodeError as error:
            raise _not_utf8(start - before_bytes + error.start) from None
        structure.add(piece)
        if structure.is_within_string:
            long_strings.look(start + len(piece))
        yield
    return structure.has_wide_escapes


_NOT_COUNTED = bytes(set(range(256)) - set(b"[{,\\"))


def _refuse_lone_surrogates(body: bytes, value: JSONObject) -> None:
    """Half a surrogate pair (`"\\ud800"`) is no character: it cannot be sent on in UTF-8."""
    if b"\\" not in body or (b"\\ud" not in body and b"\\uD" not in body):  # one byte is found the fastest
        return
    try:
        for text in _strings_in(value):
            if not text.isascii():
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
    return _duplicate_of(key)


def _duplicate_of(key: str) -> DuplicateKey:
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
        raise InvalidRequest(f"A number in the body has more than {DIGITS_MAX} digits; send fewer.")


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJSON(f"{name} is not JSON; numbers must be finite.")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_of,
    parse_int=_integer_of,
    parse_float=_float_of,
    parse_constant=_refuse_constant,
)
