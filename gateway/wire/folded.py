"""A stream of chat events folded into the one object that OpenAI's API answers where no stream was asked for.

Strategy: each event is decoded when it is whole; of it only what the object needs is kept: texts, log probabilities
and the last usage. The object is written once, when the call's cost is known.

Laws:
- Content is the concatenation of the stream's, choice by choice, whatever the order choices come in.
- What the object repeats from the stream (ids, names, numbers, usage) is what was sent, byte for byte.
- It stands for the whole answer or is not made: `missing` says why not.
- Memory is bounded by `bytes_max`, whatever the upstream sends; nothing it sends raises.
"""

import io

import msgspec

from gateway.wire.headers import StreamMask, mask
from gateway.wire.presentation import Presentation, usage_with_cost
from gateway.wire.sse import EVENT_BYTES_MAX, EventParser
from gateway.wire.strictjson import encode

_DONE = b"[DONE]"
_CHOICE_BYTES = 1024
"""What a choice is reckoned to take beside its texts, so that many empty ones are bounded as well."""
_HEAD = ("id", "created", "model")
_TAIL = ("service_tier", "system_fingerprint")
_NULL = msgspec.Raw(b"null")


class Folded:
    """Shows nothing until the end, and then one `chat.completion` (`wire.presentation.View`)."""

    def __init__(self, presentation: Presentation, secret: bytes, bytes_max: int) -> None:
        self._asked = presentation
        self._secret = secret
        self._mask = StreamMask(secret)
        self._parser = EventParser(min(EVENT_BYTES_MAX, bytes_max))
        self._left_bytes = bytes_max
        self._said: dict[str, msgspec.Raw] = {}  # what the chunks say of the whole answer
        self._choices: dict[int, _Choice] = {}
        self._usage: dict[str, msgspec.Raw] | None = None
        self._fault = ""

    def feed(self, chunk: bytes) -> bytes:
        self._read(self._mask.feed(chunk))
        return b""

    def end(self, cost_nano_usd: int, *, whole: bool) -> bytes:
        """The object; only where nothing is `missing`. Its texts were put together here: the key may be in them."""
        usage = self._usage or {}
        shown = usage_with_cost(usage, cost_nano_usd) if self._asked.cost_in_usage else usage
        answer = {
            **{name: self._said[name] for name in _HEAD if name in self._said},
            "object": "chat.completion",
            "choices": [choice.shown(index) for index, choice in sorted(self._choices.items())],
            "usage": shown,
            **{name: self._said[name] for name in _TAIL if name in self._said},
        }
        return mask(encode(answer), self._secret)

    def missing(self) -> str:
        """Why there is no object, as a sentence; empty where there is one. To be asked once, when all was fed.

        Each choice with its reason to finish, and the usage, are the whole answer, with or without [DONE].
        """
        self._read(self._mask.rest())
        last = _chunk_of(self._parser.unfinished() or b"")
        if last is not None and not self._fault:  # an event whose blank line is missing counts when it is whole
            self._add(last)
        if self._fault:
            return self._fault
        if self._parser.skipped:
            return _TOO_LONG
        if not self._choices or not all(choice.finish_reason for choice in self._choices.values()):
            return "The upstream ended in the middle of its answer."
        return "" if self._usage is not None else "The upstream did not say what its answer used."

    def _read(self, data: bytes) -> None:
        for event in self._parser.feed(data):
            if event == _DONE or self._fault:
                continue
            chunk = _chunk_of(event)
            if chunk is None:
                self._give_up("The upstream sent an event that cannot be read.")
            else:
                self._add(chunk)

    def _add(self, chunk: "_Chunk") -> None:
        if chunk.error != _NULL:
            self._give_up("The upstream reported an error in the middle of its answer.")
            return
        for name in (*_HEAD, *_TAIL):
            self._keep(name, getattr(chunk, name))
        for said in chunk.choices:
            self._add_choice(said)
        self._usage = chunk.usage or self._usage
        if self._left_bytes < 0:
            self._give_up(_TOO_LONG)

    def _keep(self, name: str, value: msgspec.Raw) -> None:
        if name not in self._said and value != _NULL:
            self._said[name] = value.copy()
            self._left_bytes -= len(value)

    def _add_choice(self, said: "_ChoiceSaid") -> None:
        choice = self._choices.get(said.index)
        if choice is None:
            choice = self._choices[said.index] = _Choice()
            self._left_bytes -= _CHOICE_BYTES
        self._left_bytes -= choice.add(said)

    def _give_up(self, fault: str) -> None:
        self._fault = fault
        self._choices.clear()
        self._said.clear()
        self._usage = None


def is_completion(body: bytes) -> bool:
    """Whether an answer that did not come as events is an object of chat all the same."""
    try:
        return bool(_completions.decode(body).choices)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


class _Completion(msgspec.Struct):
    choices: list[msgspec.Raw]


_completions = msgspec.json.Decoder(_Completion)

_TOO_LONG = 'The answer is too long to be sent as one object; ask for it with "stream": true.'


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Probabilities(msgspec.Struct):
    content: list[msgspec.Raw] | None = None
    refusal: list[msgspec.Raw] | None = None


class _ChoiceSaid(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    logprobs: _Probabilities | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    id: msgspec.Raw = _NULL
    created: msgspec.Raw = _NULL
    model: msgspec.Raw = _NULL
    service_tier: msgspec.Raw = _NULL
    system_fingerprint: msgspec.Raw = _NULL
    choices: list[_ChoiceSaid] = []
    usage: dict[str, msgspec.Raw] | None = None
    error: msgspec.Raw = _NULL


_chunks = msgspec.json.Decoder(_Chunk)


def _chunk_of(event: bytes) -> _Chunk | None:
    """None where it cannot be read."""
    try:
        event.decode()  # members that are kept as they are must be text as well
        return _chunks.decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class _Choice:
    """One choice as far as it has come."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self._content = io.StringIO()
        self._refusal = io.StringIO()
        self._probabilities: dict[str, bytearray] = {}

    def add(self, said: _ChoiceSaid) -> int:
        """Append what one chunk says; returns how many bytes that is."""
        self.finish_reason = said.finish_reason or self.finish_reason
        size = 0
        if said.delta is not None:
            content, refusal = said.delta.content or "", said.delta.refusal or ""
            self._content.write(content)
            self._refusal.write(refusal)
            size = len(content.encode()) + len(refusal.encode())
        if said.logprobs is not None:
            size += self._join("content", said.logprobs.content) + self._join("refusal", said.logprobs.refusal)
        return size

    def _join(self, name: str, tokens: list[msgspec.Raw] | None) -> int:
        if tokens is None:
            return 0
        joined = self._probabilities.setdefault(name, bytearray())
        before = len(joined)
        for token in tokens:
            joined += b"," if joined else b""
            joined += bytes(token)
        return len(joined) - before

    def shown(self, index: int) -> dict[str, object]:
        """The choice of the object. Its content is null where it only refused."""
        refusal = self._refusal.getvalue() or None
        content = self._content.getvalue() or (None if refusal else "")
        return {
            "index": index,
            "message": {"role": "assistant", "content": content, "refusal": refusal},
            "logprobs": self._logprobs(),
            "finish_reason": self.finish_reason,
        }

    def _logprobs(self) -> dict[str, msgspec.Raw] | None:
        if not self._probabilities:
            return None
        return {
            name: msgspec.Raw(b"[" + bytes(self._probabilities[name]) + b"]") if name in self._probabilities else _NULL
            for name in ("content", "refusal")
        }
