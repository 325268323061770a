"""The store on an empty Valkey."""

from collections.abc import Iterator

import pytest

from tests.store.bench import Bench, open_bench


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    """One organisation, laid out, without budgets."""
    with open_bench(redis_url) as (one,):
        yield one
