"""Answers kept for who asks again under the same Idempotency-Key: the one place where an answer is stored.

An answer is found only under a digest of the asking key and its header, and is gone after a day.
"""

import json
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from gateway.store.keys import Keys
from gateway.store.packed import unpack_hold
from gateway.store.scripts import TranslatedFaults

KEPT_MS = 24 * 3600 * 1000

_OPEN = 0


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What a call was answered; header names in lower case."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Answers:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def keep(self, org: str, claim: str, answer: KeptAnswer) -> None:
        """Raises LedgerUnavailable: it is not kept, or perhaps."""
        head = [answer.status, [[name.decode("latin-1"), value.decode("latin-1")] for name, value in answer.headers]]
        stored = json.dumps(head, separators=(",", ":")).encode() + b"\n" + answer.body
        with TranslatedFaults():
            await self._redis.set(Keys(org).answer(claim), stored, px=KEPT_MS)

    async def find(self, org: str, claim: str, hold_id: str) -> tuple[KeptAnswer | None, bool]:
        """The answer, if there is one, and whether the call of this hold still runs. Raises LedgerUnavailable."""
        keys = Keys(org)
        with TranslatedFaults():
            # In this order: an answer is kept before its hold ends, so one that is missing here was missing then.
            packed = cast(bytes | None, await self._redis.get(keys.hold(hold_id)))
            stored = cast(bytes | None, await self._redis.get(keys.answer(claim)))
        running = packed is not None and unpack_hold(packed).state == _OPEN
        return (None if stored is None else _answer(stored)), running


def _answer(stored: bytes) -> KeptAnswer:
    head, _, body = stored.partition(b"\n")
    status, headers = json.loads(head)
    return KeptAnswer(status, tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers), body)
