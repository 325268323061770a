"""Chat: what an answer used, read from its bytes while they pass.

Strategy: `feed` only keeps the bytes. An answer that ends as it should ends with its usage, so that is looked
for first and decoded alone; whatever does not end like this is read event by event, when someone asks or when 64 KiB
have come together. An ordinary answer costs one append a chunk and one decoded event in all.

Laws:
- The last valid `usage` wins; usages are never summed; an explicit 0 is 0.
- Only a member of an event's own object is usage. The same words inside content are content.
- The streamed text is kept for an estimate only as long as there is no usage.
- Memory is bounded, whatever the upstream sends; nothing it sends raises.
"""

from typing import TypeGuard

import msgspec

from gateway.billing.usage import Usage
from gateway.wire.call import Call, Outcome
from gateway.wire.sse import EVENT_BYTES_MAX, EventParser
from gateway.wire.transcript import TEXT_CHARACTERS_MAX, Transcript

RAW_BYTES_MAX = 64 * 1024
JSON_BYTES_MAX = 4 * 1024 * 1024

_DONE = b"[DONE]"
_END = b"\n\ndata: [DONE]\n\n"
_LAST_EVENT_BYTES_MAX = 4096
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class ChatMeter:
    """Meters one chat answer, a stream of events or one JSON object. See `wire.call.Meter`."""

    _json: bytearray | None = None  # the answer, once it has turned out to be no stream
    _started = False
    _began = False
    _ended = False
    _usage: Usage | None = None
    _anomaly = False
    _events_bytes = 0

    def __init__(
        self,
        call: Call,
        *,
        raw_bytes_max: int = RAW_BYTES_MAX,
        event_bytes_max: int = EVENT_BYTES_MAX,
        text_characters_max: int = TEXT_CHARACTERS_MAX,
        json_bytes_max: int = JSON_BYTES_MAX,
    ) -> None:
        self._usage_max = call.usage_max
        self._raw_bytes_max = raw_bytes_max
        self._json_bytes_max = json_bytes_max
        self._transcript = Transcript(text_characters_max)
        self._raw = bytearray()
        self._parser = EventParser(event_bytes_max)
        self._events: list[bytes] = []

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the answer."""
        self._raw += chunk
        if len(self._raw) > self._raw_bytes_max:
            self._read()

    @property
    def done(self) -> bool:
        """[DONE] was seen, or a valid usage in the chunk without choices that is sent last."""
        if self._is_stream() and self._raw.endswith(_END):
            return True
        self._read()
        return self._ended

    def outcome(self) -> Outcome:
        """Say what was seen so far. An event whose blank line is missing counts when it is whole."""
        if self._is_stream():
            usage = _usage_at_end(self._raw, self._usage_max)
            if usage is not None:
                return Outcome(usage=usage, began=True)
        self._read()
        last = self._last()
        claim = _claim_of(last)
        usage = self._usage
        if claim is not None:
            usage = _valid_usage(claim.usage, self._usage_max) or usage
        if usage is not None:
            return Outcome(usage=usage, began=True)
        self._write_down()
        return Outcome(
            anomaly=self._anomaly or claim is not None,
            began=self._began or self._parser.skipped or _is_chunk(last),
            text=self._transcript.text(last),
            text_complete=self._transcript.complete and not self._parser.skipped and not self._json_is_cut(),
        )

    def kept_bytes(self) -> int:
        """How much of the answer is held, for whoever watches memory."""
        return (
            len(self._raw)
            + self._parser.kept_bytes()
            + self._events_bytes
            + self._transcript.characters
            + len(self._json or b"")
        )

    def _is_stream(self) -> bool:
        """Whether it surely is no JSON object, which would end in no event."""
        return self._json is None and (self._started or self._raw.startswith(b"data:"))

    def _read(self) -> None:
        if not self._raw:
            return
        chunk = bytes(self._raw)
        self._raw.clear()
        if not self._started:
            beginning = chunk.removeprefix(_BYTE_ORDER_MARK).lstrip()
            self._started = bool(beginning)
            if beginning.startswith(b"{"):
                self._json, chunk = bytearray(), beginning
        if self._json is not None:
            self._json += chunk[: self._json_bytes_max - len(self._json)]
            return
        for event in self._parser.feed(chunk):
            self._take(event)

    def _take(self, event: bytes) -> None:
        if event == _DONE:
            self._ended = True
            return
        self._began = self._began or _is_chunk(event)
        claim = _claim_of(event)
        if claim is not None:
            self._take_claim(claim)
        if self._usage is None:
            self._events.append(event)
            self._events_bytes += len(event)
            if self._events_bytes > self._raw_bytes_max:
                self._write_down()

    def _take_claim(self, claim: "_Claim") -> None:
        usage = _valid_usage(claim.usage, self._usage_max)
        if usage is None:
            self._anomaly = True
            return
        self._usage = usage
        self._ended = self._ended or bytes(claim.choices) == b"[]"
        self._events.clear()
        self._events_bytes = 0
        self._transcript.clear()

    def _write_down(self) -> None:
        """Reduce events to their text: about a fiftieth of the bytes."""
        self._transcript.add(self._events)
        self._events.clear()
        self._events_bytes = 0

    def _last(self) -> bytes:
        """What only the end of the answer can finish: the JSON object, or an event without its end."""
        return bytes(self._json) if self._json is not None else self._parser.unfinished() or b""

    def _json_is_cut(self) -> bool:
        return self._json is not None and not _is_json(self._json)


class _Claim(msgspec.Struct):
    """The two members of a chunk that matter here, still as bytes."""

    usage: msgspec.Raw = msgspec.Raw(b"null")
    choices: msgspec.Raw = msgspec.Raw(b"null")


_claims = msgspec.json.Decoder(_Claim)


def _usage_at_end(raw: bytearray, usage_max: Usage) -> Usage | None:
    """The usage of an answer that ends in an event with a valid one and [DONE]: the last, whatever was before it.

    A blank line lies before the event, so nothing that came earlier is part of it. None says nothing.
    """
    if not raw.endswith(_END):
        return None
    tail = bytes(raw[-_LAST_EVENT_BYTES_MAX : -len(_END)])
    blank = tail.rfind(b"\n\ndata: ")
    if blank < 0 or b"\r" in tail:
        return None
    event = tail[blank + 8 :]
    if b"\n" in event:
        return None
    claim = _claim_of(event)
    return None if claim is None else _valid_usage(claim.usage, usage_max)


def _claim_of(event: bytes) -> _Claim | None:
    """The event's claim of usage, if it makes one.

    Quotes inside JSON strings are escaped, so an event that ends like this ends in its own `usage`.
    """
    if b'"usage"' not in event or event.endswith(b'"usage":null}'):
        return None
    try:
        claim = _claims.decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # broken, or no object: no claim
        return None
    return None if bytes(claim.usage) == b"null" else claim


def _valid_usage(claimed: msgspec.Raw, usage_max: Usage) -> Usage | None:
    """The usage, if both counts are whole numbers that this call can have used."""
    try:
        counts = msgspec.json.decode(claimed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # a number too large to be a number
        return None
    if not isinstance(counts, dict):
        return None
    prompt_tokens, completion_tokens = counts.get("prompt_tokens"), counts.get("completion_tokens")
    if not _is_count(prompt_tokens, usage_max.prompt_tokens):
        return None
    if not _is_count(completion_tokens, usage_max.completion_tokens):
        return None
    details = counts.get("prompt_tokens_details")
    cached_tokens = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cached_tokens=cached_tokens if _is_count(cached_tokens, prompt_tokens) else 0,
    )


def _is_count(value: object, most: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _is_chunk(event: bytes) -> bool:
    """Whether it carries choices: the part of an answer that is billed."""
    return b'"choices"' in event


def _is_json(body: bytearray) -> bool:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
