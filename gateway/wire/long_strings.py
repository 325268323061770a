"""Long strings of a large body, taken out before it is read as JSON and put back behind: pictures, as a rule.

json looks at each letter of a string by itself and copies it more than once, all in one step in which nothing else
runs. Where a string ends is found a hundred times as fast, and then it is read alone.
"""

import secrets
from collections.abc import Callable, Generator
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from gateway.billing.errors import InvalidJSON

if TYPE_CHECKING:
    from gateway.wire.strictjson import JSON, JSONObject

_ESCAPED_QUOTES_MAX = 100
_BACKSLASHES_MAX = 64
"""Pictures have neither in a row. Text may, and is then read with the rest."""

_NOT_A_STRING = (
    "The body is not valid JSON: a long string holds a bad escape, half a surrogate pair or a control character."
)


class LongStrings:
    """Of one body, which is UTF-8. `look` is called for places in it, in order; what is longer than they are apart is
    found, unless it ends in a way that is not worth the search."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._spans: list[tuple[int, int]] = []
        """From quote to quote, both included, as slices have it."""
        # Stands in the place of a string. Nobody who writes a body can know it.
        self._mark = secrets.token_hex(16)

    def look(self, place: int) -> None:
        """`place` is within a string, or just before the quote that ends it."""
        if self._spans and place < self._spans[-1][1]:
            return
        opening, closing = self._body.rfind(b'"', 0, place), self._closing_behind(place)
        if closing >= 0 and self._backslashes_before(opening) == 0:
            self._spans.append((opening, closing + 1))

    def without(self) -> bytes:
        """The body with a mark in the place of each: the same JSON, but for what these strings say."""
        if not self._spans:
            return self._body
        ends = [0, *(end for span in self._spans for end in span), len(self._body)]
        between = [self._body[start:end] for start, end in list(pairwise(ends))[::2]]
        marks = [f'"{self._mark}{number}"'.encode() for number in range(len(self._spans))]
        return b"".join(part for pair in zip(between, [*marks, b""], strict=True) for part in pair)

    def put_back(
        self, value: "JSONObject", object_of: "Callable[[list[tuple[str, JSON]]], JSONObject]"
    ) -> Generator[None, None, None]:
        """Each where its mark is, with a pause behind it. `object_of` makes an object of its members.

        Raises InvalidJSON: it is no string; what `object_of` raises.
        """
        open_values: list[JSON] = [value] if self._spans else []
        while open_values:
            parent = open_values.pop()
            if isinstance(parent, dict) and any(map(self._is_mark, parent)):
                members = object_of([(self._string_at(key), child) for key, child in parent.items()])
                parent.clear()
                parent.update(members)
            children = parent.items() if isinstance(parent, dict) else enumerate(parent)  # type: ignore[arg-type]
            for place, child in list(children):
                if isinstance(child, dict | list):
                    open_values.append(child)
                elif isinstance(child, str) and self._is_mark(child):
                    parent[place] = self._string_at(child)  # type: ignore[index,call-overload]
                    yield

    def _closing_behind(self, place: int) -> int:
        """The quote that ends the string; -1 where there is none, or too much before it."""
        for _ in range(_ESCAPED_QUOTES_MAX):
            place = self._body.find(b'"', place)
            backslashes = self._backslashes_before(place) if place >= 0 else _BACKSLASHES_MAX
            if backslashes == _BACKSLASHES_MAX:
                return -1
            if backslashes % 2 == 0:
                return place
            place += 1
        return -1

    def _backslashes_before(self, place: int) -> int:
        """In a row; `_BACKSLASHES_MAX` stands for more."""
        before = self._body[max(0, place - _BACKSLASHES_MAX) : place]
        return len(before) - len(before.rstrip(b"\\"))

    def _is_mark(self, text: str) -> bool:
        return text.startswith(self._mark)

    def _string_at(self, text: str) -> str:
        """What stood where a mark stands; another text is itself."""
        if not self._is_mark(text):
            return text
        start, end = self._spans[int(text[len(self._mark) :])]
        try:
            return msgspec.json.decode(memoryview(self._body)[start:end], type=str)
        except msgspec.DecodeError:
            raise InvalidJSON(_NOT_A_STRING) from None
