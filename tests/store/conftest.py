"""The store on an empty Valkey."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from zoneinfo import ZoneInfo

import pytest

from gateway.billing.budget import Calendar
from tests.store.bench import Bench, open_bench
from tests.store.clock import ClockedBench, open_clocked_bench


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    """One organisation, laid out, without budgets."""
    with open_bench(redis_url) as (one,):
        yield one


@pytest.fixture
def open_at(redis_url: str) -> Iterator[Callable[..., ClockedBench]]:
    """`open_at(zone, instant, first_weekday=0)`: a laid-out organisation there, Redis's clock at the instant."""
    with ExitStack() as stack:

        def opened(zone: str, at_ms: int, first_weekday: int = 0) -> ClockedBench:
            calendar = Calendar(ZoneInfo(zone), first_weekday)
            return stack.enter_context(open_clocked_bench(redis_url, calendar, at_ms))

        yield opened
