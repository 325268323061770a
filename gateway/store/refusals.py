"""How many calls were refused, by scope, day and code.

A refusal must cost nothing, so it is counted in memory and written about once a second, by one pipeline. These are
counts to look at, no books: a gateway that is killed takes its last second of them along, and where Redis breaks off
before it answers, a second of them may be counted twice.
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Collection, Mapping

from redis.asyncio import Redis

from gateway.billing.budget import Calendar
from gateway.billing.errors import LedgerUnavailable
from gateway.billing.principal import Principal, Scope
from gateway.store.keys import Keys
from gateway.store.scripts import TranslatedFaults

KEPT_DAYS = 100
_KEPT_S = (KEPT_DAYS + 31) * 86_400  # a whole month lies together, and its last day is kept as long as its first
_PENDING_MAX = 10_000
_WRITTEN_AT_ONCE = 250


class Refusals:
    """Counts here, writes in the background, reads what all gateways have written."""

    def __init__(self, redis: Redis, calendar: Calendar, interval_s: float = 1.0) -> None:
        self._redis = redis
        self._calendar = calendar
        self._interval_s = interval_s
        self._pending: Counter[tuple[Principal, str, str]] = Counter()

    def count(self, principal: Principal, code: str, at_ms: int) -> None:
        """Count one refused call. While Redis is away no more than `_PENDING_MAX` kinds of them are remembered."""
        place = principal, self._calendar.date_at(at_ms).isoformat(), code
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
        counted, self._pending = self._pending, Counter()
        while counted:
            piece = dict(itertools.islice(counted.items(), _WRITTEN_AT_ONCE))
            try:
                await self._write(piece)
            except LedgerUnavailable:
                self._pending.update(counted)
                return
            counted -= Counter(piece)

    async def _write(self, counted: Mapping[tuple[Principal, str, str], int]) -> None:
        sums: Counter[tuple[str, str]] = Counter()
        for (principal, day, code), calls in counted.items():
            for scope in principal.scopes():
                sums[Keys(principal.org).refusals(_month_of(day), scope), f"{day}|{code}"] += calls
        with TranslatedFaults():
            pipeline = self._redis.pipeline(transaction=True)
            for (name, field), calls in sums.items():
                pipeline.hincrby(name, field, calls)
            for name in {name for name, _ in sums}:
                pipeline.expire(name, _KEPT_S)
            await pipeline.execute()

    async def over(self, org: str, scope: Scope, days: Collection[str]) -> dict[str, int]:
        """Refused calls of one scope on these local days (2026-11-21) by error code; those of the last second may be
        missing."""
        sums: Counter[str] = Counter()
        with TranslatedFaults():
            pipeline = self._redis.pipeline(transaction=False)
            for month in dict.fromkeys(map(_month_of, days)):
                pipeline.hgetall(Keys(org).refusals(month, scope))
            hashes: list[dict[bytes, bytes]] = await pipeline.execute()
        for values in hashes:
            for field, calls in values.items():
                day, _, code = field.decode().partition("|")
                if day in days:
                    sums[code] += int(calls)
        return sums


def _month_of(day: str) -> str:
    return day[: len("2026-11")]
