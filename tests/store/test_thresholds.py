"""Soft thresholds: told once for a scope, window and limit, by the charge that crosses them."""

import pytest

from gateway.billing.adjustment import Adjusted
from gateway.billing.budget import BUDGET_WINDOWS, Budget, Crossing, Window
from gateway.billing.ledger import RELEASE
from gateway.billing.money import NANO_USD_MAX
from gateway.billing.principal import Scope
from gateway.store.alerts import Alert, Alerts
from tests.store.bench import AN, BLUE, NOTEBOOK, ORGANISATION, RED, Bench, capture


def spend(bench: Bench, cost_nano_usd: int) -> tuple[Crossing, ...]:
    """One call of this cost; what it crossed."""
    request = bench.call(cost_nano_usd)
    bench.admit(request)
    return bench.run(bench.ledger.settle(request, capture(cost_nano_usd))).crossings


def alerts(bench: Bench) -> list[Alert]:
    return bench.run(Alerts(bench.redis).page(bench.org, before=None, limit=100))


def soften(bench: Bench, scope: Scope, limit_nano_usd: int, *percents: int, window: Window = "month") -> None:
    bench.change(scope, budgets=(Budget(window, limit_nano_usd, percents),))


@pytest.mark.parametrize("scope", [ORGANISATION, RED, AN, NOTEBOOK], ids=lambda scope: scope.kind)
@pytest.mark.parametrize("window", BUDGET_WINDOWS)
def test_each_threshold_is_told_once(bench: Bench, scope: Scope, window: Window) -> None:
    """By the charge that reaches it, in every window at every scope; the alert says what stood where."""
    soften(bench, scope, 100, 50, 80, 100, window=window)
    if window == "prepaid":
        bench.pay(scope, 100)
    told = [spend(bench, 49), spend(bench, 1), spend(bench, 10), spend(bench, 40)]
    expected = [
        (),
        (Crossing(scope, window, 50, 100, 50),),
        (),
        (Crossing(scope, window, 80, 100, 100), Crossing(scope, window, 100, 100, 100)),
    ]
    assert expected == told
    assert [100, 80, 50] == [alert.crossing.percent for alert in alerts(bench)]
    assert [crossing for crossings in reversed(expected) for crossing in reversed(crossings)] == [
        alert.crossing for alert in alerts(bench)
    ]


def test_without_thresholds_nothing_is_told(bench: Bench) -> None:
    """Nor by a release, which charges nothing."""
    bench.limit(RED, 100)
    assert () == spend(bench, 100)
    soften(bench, RED, 100, 1)
    request = bench.call(0)
    bench.admit(request)
    assert () == bench.run(bench.ledger.settle(request, RELEASE)).crossings
    assert [] == alerts(bench)


def test_a_refund_does_not_make_it_new(bench: Bench) -> None:
    """Below the threshold again and above it again: it was told."""
    soften(bench, RED, 4_000, 50)
    job = bench.submitted_job(2_000)
    bench.refund(job)
    assert () == spend(bench, 2_000)
    assert 1 == len(alerts(bench))


def test_another_limit_has_thresholds_of_its_own(bench: Bench) -> None:
    """Half of a raised limit is another amount; so is half of a credit that was topped up."""
    soften(bench, RED, 100, 50)
    assert 1 == len(spend(bench, 50))
    soften(bench, RED, 200, 50)
    assert 1 == len(spend(bench, 50))
    soften(bench, AN, 0, 50, window="prepaid")
    bench.pay(AN, 100)
    assert [50] == [crossing.spent_nano_usd for crossing in spend(bench, 50)]
    bench.pay(AN, 100)
    assert [100] == [crossing.spent_nano_usd for crossing in spend(bench, 50)]


def test_spending_above_a_threshold_is_told_however_it_got_there(bench: Bench) -> None:
    """A limit that was lowered, or credit that moved away, puts a threshold below what is spent: no charge crosses it,
    and its owner must hear of it all the same. The next charge tells, once."""
    soften(bench, AN, 1000, 50, 80)
    assert () == spend(bench, 90)
    soften(bench, AN, 100, 50, 80)
    assert (Crossing(AN, "month", 50, 100, 91), Crossing(AN, "month", 80, 100, 91)) == spend(bench, 1)
    assert () == spend(bench, 1)
    soften(bench, AN, 1000)
    for team in (RED, BLUE):
        soften(bench, team, 0, 50, window="prepaid")
    bench.pay(RED, 300)
    assert () == spend(bench, 80)
    bench.pay(BLUE, 150, source=RED)
    assert (Crossing(RED, "prepaid", 50, 150, 81),) == spend(bench, 1)
    assert () == spend(bench, 1)


def test_what_was_told_is_not_told_again_after_any_change(bench: Bench) -> None:
    """Of another setting, or of the thresholds themselves: a new one is told, those beside it are not."""
    soften(bench, RED, 100, 80)
    assert 1 == len(spend(bench, 90))
    bench.change(RED, name="Red team")
    assert () == spend(bench, 1)
    soften(bench, RED, 100, 80, 90)
    assert [90] == [crossing.percent for crossing in spend(bench, 1)]
    assert () == spend(bench, 1)


def test_a_new_window_has_thresholds_of_its_own(bench: Bench) -> None:
    """Yesterday's half says nothing about today's; a charge of yesterday's call crosses nothing today."""
    soften(bench, RED, 100, 50, window="day")
    yesterday, late = bench.call(50), bench.call(50)
    earlier = bench.at_windows(days_ago=1)
    for request in (yesterday, late):
        bench.run(earlier.admit(request))
    assert 1 == len(bench.run(earlier.settle(yesterday, capture(50))).crossings)
    today = bench.at_windows()
    request = bench.call(50)
    bench.run(today.admit(request))
    assert () == bench.run(today.settle(late, capture(50))).crossings
    assert 1 == len(bench.run(today.settle(request, capture(50))).crossings)
    assert 2 == len({alert.start_ms for alert in alerts(bench)})


def test_a_window_that_an_adjustment_opens_has_thresholds_of_its_own(bench: Bench) -> None:
    """Nothing was admitted yet that day: what was told of the day before says nothing about it."""
    soften(bench, RED, 100, 50, window="day")
    yesterday = bench.call(50)
    earlier = bench.at_windows(days_ago=1)
    bench.run(earlier.admit(yesterday))
    assert 1 == len(bench.run(earlier.settle(yesterday, capture(50))).crossings)
    assert isinstance(bench.adjust(RED, 1), Adjusted)
    assert [50] == [crossing.spent_nano_usd for crossing in spend(bench, 49)]


def test_two_hundred_charges_at_once_tell_each_once(bench: Bench) -> None:
    """Whoever crosses it tells it: nobody twice, and none is missed."""
    soften(bench, RED, 200, 10, 50, 100)
    requests = [bench.call(1) for _ in range(200)]
    bench.together([bench.ledger.admit(request) for request in requests])
    settled = bench.together([bench.ledger.settle(request, capture(1)) for request in requests])
    told = [(crossing.percent, crossing.spent_nano_usd) for one in settled for crossing in one.crossings]
    assert [(10, 20), (50, 100), (100, 200)] == sorted(told)
    assert 3 == len(alerts(bench))


@pytest.mark.parametrize(
    ("limit", "percent", "threshold"), [(99, 50, 50), (3, 1, 1), (NANO_USD_MAX, 33, 2_970_000 * 10**9)]
)
def test_a_share_is_exact(bench: Bench, limit: int, percent: int, threshold: int) -> None:
    """Rounded up to the nano-dollar, for the largest limits, too."""
    soften(bench, RED, limit, percent, window="total")
    if threshold > 1:
        assert () == spend(bench, threshold - 1)
        threshold = 1
    assert [percent] == [crossing.percent for crossing in spend(bench, threshold)]


def test_alerts_are_paged_the_newest_first(bench: Bench) -> None:
    """Each once, whatever the size of a page."""
    soften(bench, RED, 100, *range(10, 60, 10))
    for _ in range(5):
        spend(bench, 10)
    seen: list[int] = []
    before = None
    while page := bench.run(Alerts(bench.redis).page(bench.org, before=before, limit=2)):
        seen += [alert.crossing.percent for alert in page]
        before = page[-1].id
    assert [50, 40, 30, 20, 10] == seen


def test_thresholds_stand_beside_the_allow_list(bench: Bench) -> None:
    """Both have no fixed length; neither is read as the other."""
    budgets = (Budget("total", 100, (50, 80)), Budget("prepaid", soft_percent=(90,)))
    bench.change(RED, budgets=budgets, models=("gpt-4o", "gpt-4o-mini"))
    assert ("gpt-4o", "gpt-4o-mini") == bench.state(RED).models
    settings, _ = bench.run(bench.scopes.get(bench.org, RED))
    assert budgets == settings.budgets
