"""Weighing a call: what its admission would say, and not a byte of Redis is another one afterwards."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.billing.budget import Budget
from gateway.billing.limits import Limits
from gateway.billing.principal import Principal, Scope
from gateway.store.admission import Admitted, Decision, RateLimited, Refused, StalePrice
from tests.store.bench import AN, NOTEBOOK, ORG, ORGANISATION, RED, Bench, capture

ABOVE_NOTEBOOK = (ORGANISATION, RED, AN, NOTEBOOK)
CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "blocked": {"blocked": True},
    "model": {"models": ("gpt-4o",)},
    "spent": {"budgets": (Budget("month", 29),)},
    "held": {"budgets": (Budget("total", 100),)},
    "credit": {"budgets": (Budget("prepaid"),)},
    "requests": {"limits": Limits(requests_per_minute=1)},
    "tokens": {"limits": Limits(tokens_per_minute=60)},
    "too many tokens": {"limits": Limits(tokens_per_minute=10)},
    "images": {"limits": Limits(images_per_minute=1)},
    "calls": {"limits": Limits(concurrent_requests=1)},
}


def without_waits(decision: Decision) -> Decision:
    """Time goes on between two questions: how long to wait, and what came back meanwhile, are not compared."""
    if isinstance(decision, Admitted):
        return Admitted(0, 0)
    return replace(decision, retry_after_ms=0) if isinstance(decision, RateLimited) else decision


@pytest.mark.parametrize("scope", ABOVE_NOTEBOOK)
@pytest.mark.parametrize("change", CHANGES)
def test_it_says_what_admission_then_says(bench: Bench, scope: Scope, change: str) -> None:
    """For every reason there is, at every scope; with a call that runs and another one that has ended."""
    ended, running = bench.call(40, tokens=20, images=1), bench.call(70, tokens=40, images=1)
    for request in (ended, running):
        assert isinstance(bench.admit(request), Admitted)
    bench.settle(ended, capture(30))
    bench.change(scope, **CHANGES[change])
    bench.admit(bench.call(1))  # a bucket of requests or of calls is empty now
    request = bench.call(1, tokens=30, images=2)
    before = bench.everything()
    weighed = bench.run(bench.ledger.weigh(request))
    assert before == bench.everything()
    assert without_waits(bench.admit(request)) == without_waits(weighed)
    assert isinstance(weighed, Admitted) == (change == "nothing")


def test_what_is_left_is_told_as_it_stands(bench: Bench) -> None:
    """Nothing of it is taken."""
    bench.limit(RED, 100)
    weighed = [bench.run(bench.ledger.weigh(bench.call(60))) for _ in range(3)]
    assert [100] * 3 == [decision.allowance.budget_nano_usd for decision in weighed if isinstance(decision, Admitted)]


def test_a_bucket_of_a_clock_that_was_set_back_stays_as_it_is(bench: Bench) -> None:
    """An admission that it refuses repairs it; who only asks does not."""
    bench.change(RED, limits=Limits(requests_per_minute=60))
    bench.fill_until(RED, "requests", bench.now_ms() + 3_600_000)
    before = bench.everything()
    assert isinstance(bench.run(bench.ledger.weigh(bench.call(1))), RateLimited)
    assert before == bench.everything()
    assert isinstance(bench.admit(bench.call(1)), RateLimited)
    assert before != bench.everything()


def test_windows_that_ended_are_weighed_anew_and_left_as_they_are(bench: Bench) -> None:
    """Today's budget is whole again, though nobody has called yet and turned the window."""
    bench.limit(RED, 100, "day")
    yesterday, today = bench.at_windows(days_ago=1), bench.at_windows()
    spent = bench.call(100)
    bench.run(yesterday.admit(spent))
    bench.settle(spent, capture(100))
    before = bench.everything()
    assert isinstance(bench.run(today.weigh(bench.call(100))), Admitted)
    assert before == bench.everything()


def test_prices_and_scopes_are_looked_at_as_well(bench: Bench) -> None:
    """Another price list, and a scope that is missing."""
    before = bench.everything()
    assert StalePrice("v1") == bench.run(bench.ledger.weigh(bench.call(1)._replace(price_version="v0")))
    nobody = bench.call(1, Principal(ORG, "red", "nobody", "notebook"))
    assert Refused("unknown_scope", Scope("user", "nobody")) == bench.run(bench.ledger.weigh(nobody))
    assert before == bench.everything()
