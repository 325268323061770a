"""The store on an empty Valkey."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from zoneinfo import ZoneInfo

import pytest
from redis.asyncio import Redis

from gateway.billing.budget import Calendar
from tests.store.bench import Bench, open_bench
from tests.store.clock import ClockedBench, open_clocked_bench
from tests.store.strict import StrictScripts


@pytest.fixture
def bench(redis_url: str, pytestconfig: pytest.Config) -> Iterator[Bench]:
    """One organisation, laid out, without budgets."""
    if pytestconfig.getoption("on_cluster"):
        yield from strict_bench(redis_url)
        return
    with open_bench(redis_url) as (one,):
        yield one


def strict_bench(url: str) -> Iterator[Bench]:
    strict: list[StrictScripts] = []

    def scripts_on(redis: Redis) -> StrictScripts:
        strict.append(StrictScripts(redis, url))
        return strict[0]

    with open_bench(url, scripts_on=scripts_on) as (one,):
        yield one
        one.run(strict[0].redis.aclose())


@pytest.fixture
def open_at(redis_url: str) -> Iterator[Callable[..., ClockedBench]]:
    """`open_at(zone, instant, first_weekday=0)`: a laid-out organisation there, Redis's clock at the instant."""
    with ExitStack() as stack:

        def opened(zone: str, at_ms: int, first_weekday: int = 0) -> ClockedBench:
            calendar = Calendar(ZoneInfo(zone), first_weekday)
            return stack.enter_context(open_clocked_bench(redis_url, calendar, at_ms))

        yield opened
