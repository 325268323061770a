"""How many calls were refused, by day, key and code.

A refusal must cost nothing, so it is counted in memory and written about once a second, by one pipeline. These are
counts to look at, no books: a gateway that is killed takes its last second of them along, and where Redis breaks off
before it answers, a second of them may be counted twice.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from gateway.billing.budget import Calendar
from gateway.billing.errors import LedgerUnavailable
from gateway.billing.principal import Principal
from gateway.store.keys import Keys
from gateway.store.scripts import TranslatedFaults

KEPT_DAYS = 100
_PENDING_MAX = 10_000


@dataclass(frozen=True, slots=True)
class RefusalCount:
    """Refused calls of one key on one local day (2026-11-21) with one error code."""

    day: str
    team: str
    user: str
    key: str
    code: str
    calls: int


class Refusals:
    """Counts here, writes in the background, reads what all gateways have written."""

    def __init__(self, redis: Redis, calendar: Calendar, interval_s: float = 1.0) -> None:
        self._redis = redis
        self._calendar = calendar
        self._interval_s = interval_s
        self._pending: Counter[tuple[str, str, str]] = Counter()

    def count(self, principal: Principal, code: str, at_ms: int) -> None:
        """Count one refused call. While Redis is away no more than `_PENDING_MAX` kinds of them are remembered."""
        place = principal.org, self._calendar.date_at(at_ms).isoformat(), _field(principal, code)
        if place in self._pending or len(self._pending) < _PENDING_MAX:
            self._pending[place] += 1

    async def run(self, stop: asyncio.Event) -> None:
        """Write every second, and once more when `stop` is set."""
        while not stop.is_set():
            await self.flush()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._interval_s)
        await self.flush()

    async def flush(self) -> None:
        """Write what was counted; what Redis does not take waits for the next time."""
        batch, self._pending = self._pending, Counter()
        if not batch:
            return
        try:
            with TranslatedFaults():
                pipeline = self._redis.pipeline(transaction=True)
                for (org, day, field), calls in batch.items():
                    pipeline.hincrby(Keys(org).refusals(day), field, calls)
                for org, day in {(org, day) for org, day, _ in batch}:
                    pipeline.expire(Keys(org).refusals(day), KEPT_DAYS * 86_400)
                await pipeline.execute()
        except LedgerUnavailable:
            self._pending.update(batch)

    async def over(self, org: str, days: Sequence[str]) -> list[RefusalCount]:
        """All counts of these days; what was refused within the last second may be missing."""
        with TranslatedFaults():
            pipeline = self._redis.pipeline(transaction=False)
            for day in days:
                pipeline.hgetall(Keys(org).refusals(day))
            hashes: list[dict[bytes, bytes]] = await pipeline.execute()
        return [count for day, values in zip(days, hashes, strict=True) for count in _counts(day, values)]


def _field(principal: Principal, code: str) -> str:
    return f"{principal.team}|{principal.user or ''}|{principal.key}|{code}"


def _counts(day: str, values: dict[bytes, bytes]) -> Iterator[RefusalCount]:
    for field, calls in values.items():
        team, user, key, code = field.decode().split("|")
        yield RefusalCount(day, team, user, key, code, int(calls))
