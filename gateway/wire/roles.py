"""Whose words a stream brings: `"role":"assistant"` in each choice's first delta, where the upstream leaves it out.

OpenAI's first chunk has it, and what puts a stream together for its users (`.stream()` of the official clients) takes
it from there: without it one fails and another makes a message that cannot be sent back as history.

Laws:
- In the first event of a choice that has a delta its role is added, or put in the place of a null; no other byte of it
  changes, however it is spaced and over however many lines its data comes. No other event changes at all.
- A delta that names a role stays as it is.
- Once every choice has begun, nothing more is read.
- Nothing raises: an event that cannot be read stays as it is.
"""

import json
import re

import msgspec

CHOICES_MAX = 128
"""OpenAI's own maximum; the choices behind it are not told apart, so that no request makes this large."""

_NULL = msgspec.Raw(b"null")
_ROLE = '"role":"assistant"'


class Roles:
    """Adds the roles of one stream of `choices` choices, event by event."""

    def __init__(self, choices: int) -> None:
        self._silent = set(range(min(choices, CHOICES_MAX)))  # choices whose first event has not come

    @property
    def all_told(self) -> bool:
        """Whether every event from here on stays as it is."""
        return not self._silent

    def told(self, event: bytes, data: bytes) -> bytes:
        """The event as it is to be shown; `data` is what its lines say together."""
        if not self._silent or b'"delta"' not in data:
            return event
        try:
            text = data.decode()
            said = dict(enumerate(_chunks.decode(data).choices))
            begun = [place for place, choice in said.items() if choice.index in self._silent and choice.delta]
            for place in reversed(begun):  # from the end, so that no place moves that is still to be used
                if said[place].names_no_role:
                    event = _with_role_at_once(event) or _with_role(event, text, place)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return event
        self._silent.difference_update(said[place].index for place in begun)
        return event


class _Delta(msgspec.Struct):
    role: msgspec.Raw = _NULL


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None

    @property
    def names_no_role(self) -> bool:
        return self.delta is not None and self.delta.role == _NULL


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []


_chunks = msgspec.json.Decoder(_Chunk)


def _with_role_at_once(event: bytes) -> bytes | None:
    """The same as `_with_role` at a fraction of its time; None where the place cannot be known without reading.

    The event is one with a delta. A key is spelled otherwise only by escapes, so where the word stands once it is that.
    """
    before, _, after = event.partition(b'"delta":{')
    if after[:1] not in (b'"', b"}") or event.count(b'"delta"') > 1 or b'"role"' in event or b"\\u" in event:
        return None
    return b'%b"delta":{%b%b%b' % (before, _ROLE.encode(), b"" if after[:1] == b"}" else b",", after)


def _with_role(event: bytes, text: str, place: int) -> bytes:
    """The event with the role in the delta of the choice at this place; `text` is its data, which is a chunk."""
    chunk = _values_in(text, _past_space(text, 0))
    delta = _values_in(text, _values_in(text, chunk["choices"])[place])["delta"]
    role = _values_in(text, delta).get("role")
    if role is not None:
        return _replaced(event, text, role, role + len("null"), '"assistant"')
    is_empty = text[_past_space(text, delta + 1)] == "}"
    return _replaced(event, text, delta + 1, delta + 1, _ROLE if is_empty else f"{_ROLE},")


_scan = json.JSONDecoder().raw_decode
_SPACE = re.compile(r"[ \t\n\r]*")


def _values_in(text: str, at: int) -> dict[str | int, int]:
    """Where each value of the object or array that begins at `at` begins, by its name or number; `text` is JSON."""
    is_object = text[at] == "{"
    values: dict[str | int, int] = {}
    at = _past_space(text, at + 1)
    while text[at] not in "}]":
        name: str | int = len(values)
        if is_object:
            name, at = _scan(text, at)
            at = _past_space(text, _past_space(text, at) + 1)  # behind the colon
        values[name] = at
        at = _past_space(text, _scan(text, at)[1])
        if text[at] == ",":
            at = _past_space(text, at + 1)
    return values


def _past_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


_DATA = re.compile(rb"(?:\A(?:\xef\xbb\xbf)?|[\n\r])data(?:: ?|(?=[\n\r]|\Z))")
"""What stands before the value of each line of data."""


def _replaced(event: bytes, text: str, begin: int, end: int, new: str) -> bytes:
    """The event with other characters where its data has those from `begin` to `end`, all on one line."""
    line_begins = text.rfind("\n", 0, begin) + 1
    values = [found.end() for found in _DATA.finditer(event)]
    first = values[text.count("\n", 0, begin)] + len(text[line_begins:begin].encode())
    return event[:first] + new.encode() + event[first + end - begin :]
