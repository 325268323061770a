"""Answers kept for who asks again under the same Idempotency-Key: the one place where an answer is stored.

An answer is stored by the settlement of its call (`Ledger.settle`), in the same step, under its hold; the hold is found
by a digest of the asking key and its header. It is gone after a day. A call that is settled before its answer is made
(pictures take a while) leaves a mark in its place, which the answer replaces. Where the settlement comes later after
all, because Redis was away, its mark finds the answer there and leaves it.
"""

import json
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from gateway.store.keys import Keys
from gateway.store.packed import unpack_hold
from gateway.store.scripts import TranslatedFaults

ANSWER_KEPT_MS = 24 * 3600 * 1000
_OPEN = 0
_UNFINISHED = 0


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What a call was answered; header names in lower case. Of an answer that is still being made it has the time (ms)
    by which that must have happened, and nothing else."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    unfinished_until_ms: int | None = None


class Answers:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def find(self, org: str, hold_id: str) -> tuple[KeptAnswer | None, bool]:
        """The answer, if there is one, and whether the call of this hold still runs. Raises LedgerUnavailable."""
        keys = Keys(org)
        with TranslatedFaults():
            packed, stored = cast(
                list[bytes | None], await self._redis.mget([keys.hold(hold_id), keys.answer(hold_id)])
            )
        running = packed is not None and unpack_hold(packed).state == _OPEN
        return (None if stored is None else _answer(stored)), running

    async def keep(self, org: str, hold_id: str, answer: bytes) -> None:
        """Put the answer of a charged call in the place of its mark, be that there yet or not.

        Raises LedgerUnavailable.
        """
        with TranslatedFaults():
            await self._redis.set(Keys(org).answer(hold_id), answer, px=ANSWER_KEPT_MS)


def unfinished_answer(until_ms: int) -> bytes:
    """The mark of an answer that is still being made; after `until_ms` there will be none."""
    return json.dumps([_UNFINISHED, until_ms], separators=(",", ":")).encode() + b"\n"


def stored_answer(answer: KeptAnswer) -> bytes:
    """What `Answers.find` reads."""
    head = [answer.status, [[name.decode("latin-1"), value.decode("latin-1")] for name, value in answer.headers]]
    return json.dumps(head, separators=(",", ":")).encode() + b"\n" + answer.body


def _answer(stored: bytes) -> KeptAnswer:
    head, _, body = stored.partition(b"\n")
    status, headers = json.loads(head)
    if status == _UNFINISHED:
        return KeptAnswer(status, (), b"", unfinished_until_ms=headers)
    return KeptAnswer(status, tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers), body)
