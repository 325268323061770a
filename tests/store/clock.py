"""Redis's clock as a test sets it: at a border between two months, on the night of a clock change, set back.

A server cannot be told the time. So each script runs behind a few lines of Lua in which `TIME` answers what stands in a
key; all else of it, and of the server, is as it always is. The clock stands still until the test moves it.
"""

import asyncio
import contextlib
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence

from redis.asyncio import Redis

from gateway.billing.budget import Calendar
from gateway.store.scripts import Argument, RedisScripts, Reply, Script
from tests.store.bench import IN_UTC, ORG, Bench

CLOCK = "test:clock"

_TOLD_TIME = f"""
local real = redis
local redis = setmetatable({{call = function(command, ...)
  local told_ms = command == 'TIME' and real.call('GET', '{CLOCK}')
  if not told_ms then return real.call(command, ...) end
  return {{string.format('%.0f', math.floor(told_ms / 1000)), string.format('%.0f', told_ms % 1000 * 1000)}}
end}}, {{__index = real}})
"""


class ToldTime:
    """A `ScriptRunner` whose scripts see the time in the key `CLOCK`; Redis's own where there is none."""

    def __init__(self, redis: Redis) -> None:
        self._scripts = RedisScripts(redis, 5)

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        return await self._scripts.run(with_told_time(script), keys, args)


@functools.cache
def with_told_time(script: Script) -> Script:
    source = _TOLD_TIME + script.source
    return Script(script.name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class ClockedBench(Bench):
    """A bench whose Redis has the time that `set_clock` gave it last."""

    def __init__(self, url: str, runner: asyncio.Runner, org: str = ORG, calendar: Calendar = IN_UTC) -> None:
        super().__init__(url, runner, org, calendar=calendar, scripts_on=ToldTime)

    def set_clock(self, at_ms: int) -> None:
        self.run(self.redis.set(CLOCK, at_ms))

    def now_ms(self) -> int:
        told = self.run(self.redis.get(CLOCK))
        return super().now_ms() if told is None else int(told)


@contextlib.contextmanager
def open_clocked_benches(url: str, calendars: Mapping[str, Calendar]) -> Iterator[dict[str, ClockedBench]]:
    """A bench for each organisation, on one server with one clock; nothing is laid out yet."""
    with asyncio.Runner() as runner:
        benches = {org: ClockedBench(url, runner, org, calendar) for org, calendar in calendars.items()}
        yield benches
        for bench in benches.values():
            bench.run(bench.redis.aclose())


@contextlib.contextmanager
def open_clocked_bench(url: str, calendar: Calendar, at_ms: int) -> Iterator[ClockedBench]:
    """One that is laid out, on an empty server whose clock stands at an instant."""
    with open_clocked_benches(url, {ORG: calendar}) as benches:
        bench = benches[ORG]
        bench.set_clock(at_ms)
        bench.lay_out()
        yield bench
