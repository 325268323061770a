"""The answer to a chat request: the same request always gets the same bytes.

Everything an answer consists of is derived from the request's digest: its id, its time, which sentences it
says. The sentences are in several scripts, because a token is not a character there: one event may hold
several tokens (an emoji), and a meter that splits bytes carelessly shows it.
"""

from __future__ import annotations

import codecs
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gateway.emulator.contract import DATED_MODELS, ChatRequest
from gateway.emulator.tokens import encode, load_encoding, prompt_tokens

SENTENCES = (
    "Alaska is the largest state by area, more than twice the size of Texas.",
    "A good answer names its source, its unit and its doubt.",
    "Thủ đô của Việt Nam là Hà Nội, một thành phố hơn một nghìn năm tuổi.",
    "Tôi có thể giúp bạn viết, dịch hoặc tóm tắt văn bản này.",
    "שלום! אפשר לשאול אותי כל שאלה, ואשתדל לענות בקצרה ובבהירות.",
    "הבינה המלאכותית אינה תחליף לשיקול דעת.",
    "很高兴为你解答这个问题。",
    "千里之行始于足下。",
    "🎉 Done! 🚀🌍 And a family waves goodbye: 👨‍👩‍👧‍👦👋🏽",
    "The sum of the entries is the balance; nothing else is.",
    "Mưa rào mùa hạ thường đến nhanh và đi cũng nhanh ☔.",
)
CREATED_FIRST = 1_740_734_359
CREATED_SPREAD_S = 10_000_000
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FINGERPRINTS = {model: f"fp_{hashlib.sha256(model.encode()).hexdigest()[:10]}" for model in DATED_MODELS}

Usage = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One SSE event as written (`wire`, with its blank line), and the tokens it took to generate it.

    `claims` is the usage object inside it, None where there is none.
    """

    wire: bytes
    tokens: int = 0
    claims: Usage | None = None


DONE = Event(b"data: [DONE]\n\n")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: its events up to the finish chunks, and what it truly took (tokens)."""

    head: dict[str, Any]
    events: tuple[Event, ...]
    prompt_tokens: int
    completion_tokens: int

    def usage_event(self, usage: Usage) -> Event:
        return Event(_wire({**self.head, "choices": [], "usage": usage}), claims=usage)


def compose(
    request: ChatRequest, length_tokens: int | None = None, line_separators: bool = False, said: str | None = None
) -> Answer:
    """The answer to `request`.

    `length_tokens` asks for an answer of exactly that many tokens a choice, unless `max_completion_tokens` is
    less; `line_separators` puts U+2028 and U+2029, raw, into the content; `said` is what is said in place of sentences,
    in one event.
    """
    head = _head(request)
    choices = [_choice(request, index, length_tokens, line_separators, said) for index in range(request.choices)]
    chunks: list[Event] = []
    for row in itertools.zip_longest(*(pieces for pieces, _ in choices)):
        for index, piece in enumerate(row):
            if piece is not None:
                text, tokens = piece
                delta = {"content": text} if text else {}
                chunks.append(Event(_wire(_chunk(head, index, delta, None)), tokens))
    for index, (_, finish_reason) in enumerate(choices):
        chunks.append(Event(_wire(_chunk(head, index, {}, finish_reason))))
    completion_tokens = sum(event.tokens for event in chunks)
    return Answer(head, tuple(chunks), prompt_tokens(request.model, request.messages), completion_tokens)


compose_cached = lru_cache(maxsize=256)(compose)
"""`compose` for small requests, which benchmarks and tests repeat."""


def usage_of(prompt: int, completion: int) -> Usage:
    """The usage object of a final chunk, as documented."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _choice(
    request: ChatRequest, index: int, length_tokens: int | None, line_separators: bool, said: str | None
) -> tuple[list[tuple[str, int]], str]:
    """Pieces (text, tokens) of one choice, and its finish reason."""
    seed = hashlib.sha256(request.digest + index.to_bytes(2)).digest()
    text = "A\u2028B\u2029C " if line_separators else ""
    text += said if said is not None else " ".join(itertools.islice(_sentences(seed), 1 + seed[0] % 4))
    tokens = encode(text)
    if length_tokens is not None:
        words = _sentences(seed)
        while len(tokens) < length_tokens:
            tokens.extend(encode(" " + next(words)))
        tokens = tokens[:length_tokens]
    cut = len(tokens) > request.max_completion_tokens
    if said is not None and not cut:
        return [(text, len(tokens))], "stop"
    return list(_pieces(tokens[: request.max_completion_tokens])), "length" if cut else "stop"


def _sentences(seed: bytes) -> Iterator[str]:
    for byte in itertools.cycle(seed[1:]):
        yield SENTENCES[byte % len(SENTENCES)]


def _pieces(tokens: list[int]) -> Iterator[tuple[str, int]]:
    """Texts of one token each, or of as many as a whole character takes; a rest that is none is empty."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    encoding = load_encoding()
    pending = 0
    for token in tokens:
        pending += 1
        text = decoder.decode(encoding.decode_single_token_bytes(token))
        if text:
            yield text, pending
            pending = 0
    if pending:
        yield "", pending


def _head(request: ChatRequest) -> dict[str, Any]:
    number = int.from_bytes(request.digest)
    return {
        "id": "chatcmpl-" + "".join(BASE62[number // 62**place % 62] for place in range(29)),
        "object": "chat.completion.chunk",
        "created": CREATED_FIRST + number % CREATED_SPREAD_S,
        "model": DATED_MODELS[request.model],
        "service_tier": "default",
        "system_fingerprint": FINGERPRINTS[request.model],
    }


def _chunk(head: dict[str, Any], index: int, delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {**head, "choices": [choice], "usage": None}


def _wire(chunk: dict[str, Any]) -> bytes:
    text = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + text.encode() + b"\n\n"
