"""What a chat answer said, from its chunks: the text that an estimate counts when no usage came.

Each choice has its own text, so that n interleaved answers are counted as they were generated.
"""

from collections.abc import Iterable, Iterator

import msgspec

from gateway.wire.chat_options import CHOICES_MAX

TEXT_CHARACTERS_MAX = 4 * 1024 * 1024


class Transcript:
    """The texts of all choices, in bounded memory; `complete` turns False when they were too long."""

    def __init__(self, characters_max: int = TEXT_CHARACTERS_MAX) -> None:
        self.complete = True
        self.characters = 0
        self._characters_max = characters_max
        self._texts: dict[int, list[str]] = {}

    def add(self, events: Iterable[bytes]) -> None:
        """Append what these chunks say. A chunk that cannot be read says nothing."""
        if not self.complete:
            return
        for choice, text in _joined(events).items():
            self.characters += len(text)
            self._texts.setdefault(choice, []).append(text)
        if self.characters > self._characters_max:
            self.clear()
            self.complete = False

    def text(self, last: bytes = b"") -> str:
        """The texts, choice after choice, a line end between them; `last` is one more chunk to read."""
        more = _joined([last])
        choices = sorted(self._texts.keys() | more.keys())
        return "\n".join("".join([*self._texts.get(at, ()), more.get(at, "")]) for at in choices)

    def clear(self) -> None:
        """Forget the texts; they are not needed, or too long to be."""
        self._texts.clear()
        self.characters = 0


class _Said(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None  # of an answer that is one object instead of a stream


class _Chunk(msgspec.Struct):
    choices: list[_Choice]


_chunks = msgspec.json.Decoder(_Chunk)


def _joined(events: Iterable[bytes]) -> dict[int, str]:
    pieces: dict[int, list[str]] = {}
    for event in events:
        for choice, text in _texts_of(event):
            pieces.setdefault(choice, []).append(text)
    return {choice: "".join(texts) for choice, texts in pieces.items()}


def _texts_of(event: bytes) -> Iterator[tuple[int, str]]:
    try:
        chunk = _chunks.decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    for choice in chunk.choices:
        said = choice.delta or choice.message
        text = (said.content or said.refusal) if said is not None else None
        if text:
            # Memory is bounded by a number of choices, whatever numbers the upstream gives them.
            yield max(0, min(choice.index, CHOICES_MAX)), text
