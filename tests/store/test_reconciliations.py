"""The ledger against a figure: which calls count, and that what was found is kept once and never changes."""

import pytest

from gateway.billing.ledger import RELEASE
from gateway.billing.reconciliation import Booked, Figure, Reconciliation
from gateway.store.reconciliations import Reconciliations
from tests.e2e.waiting import until
from tests.store.bench import BY_DESK, BY_NOTEBOOK, ORG, Bench, capture


@pytest.fixture
def reconciliations(bench: Bench) -> Reconciliations:
    return Reconciliations(bench.redis, bench.scripts, bench.reports)


def today(bench: Bench, billed_nano_usd: int = 0, figure_id: str = "f1") -> Figure:
    span = bench.calendar.spans_at(bench.now_ms()).day
    assert span.end_ms is not None
    return Figure(figure_id, span.start_ms, span.end_ms, billed_nano_usd, "tháng", "admin")


def reconciled(bench: Bench, reconciliations: Reconciliations, figure: Figure) -> tuple[Reconciliation, bool]:
    outcome = bench.run(reconciliations.reconcile(ORG, figure))
    assert outcome is not None
    return outcome


def some_calls(bench: Bench) -> None:
    """77 nano-USD: an estimate of 40 among them, an overrun, a release, and an image that was refunded."""
    for amount_nano_usd, who, posting in (
        (100, BY_NOTEBOOK, capture(30)),
        (100, BY_NOTEBOOK, capture(40, "estimated")),
        (5, BY_DESK, capture(7, "overrun")),
        (100, BY_DESK, RELEASE),
    ):
        request = bench.call(amount_nano_usd, who)
        bench.admit(request)
        bench.settle(request, posting)
    bench.refund(bench.submitted_job(1_500_000))


def test_the_ledgers_side_is_exact_without_anyone_having_asked_before(
    bench: Bench, reconciliations: Reconciliations
) -> None:
    """The projection is brought up to the stream's end first; refunds count back, releases not at all."""
    some_calls(bench)
    found, repeated = reconciled(bench, reconciliations, today(bench, 80))
    assert (Booked(77, 40, 2), -3, False) == (found.booked, found.drift_nano_usd, repeated)
    assert today(bench, 80) == found.figure
    assert found == bench.run(reconciliations.latest(ORG))


def test_days_and_the_instants_around_them_agree(bench: Bench, reconciliations: Reconciliations) -> None:
    """Cells where they fit, entries where they do not: one truth, flags included."""
    before_ms = bench.now_ms()
    some_calls(bench)
    after_ms = bench.now_ms() + 1
    whole = bench.run(reconciliations.booked(ORG, today(bench).from_ms, today(bench).to_ms))
    assert whole == bench.run(reconciliations.booked(ORG, before_ms, after_ms))
    assert Booked(0, 0, 0) == bench.run(reconciliations.booked(ORG, before_ms - 1_000, before_ms))


def test_a_call_counts_where_it_was_admitted(bench: Bench, reconciliations: Reconciliations) -> None:
    """Not where it was posted: a call of yesterday that ends today belongs to yesterday's bill."""
    request = bench.call(100)
    bench.admit(request)
    admitted_ms = bench.run(bench.ledger.open_holds(ORG))[0].admitted_at_ms
    until(lambda: bench.now_ms() > admitted_ms)
    bench.settle(request, capture(30))
    assert 30 == bench.run(reconciliations.booked(ORG, admitted_ms, admitted_ms + 1)).ledger_nano_usd
    assert 0 == bench.run(reconciliations.booked(ORG, admitted_ms + 1, bench.now_ms() + 1)).ledger_nano_usd


def test_what_was_found_stays_as_it_was(bench: Bench, reconciliations: Reconciliations) -> None:
    """What is posted later is found by the next one; a repeat hears of the first."""
    first, _ = reconciled(bench, reconciliations, today(bench, 10))
    some_calls(bench)
    again, repeated = reconciled(bench, reconciliations, today(bench, 10))
    later, _ = reconciled(bench, reconciliations, today(bench, 10, "f2"))
    assert (first, True, 67) == (again, repeated, later.drift_nano_usd)
    assert [later, first] == bench.run(reconciliations.page(ORG, before=None, limit=10))
    assert [first] == bench.run(reconciliations.page(ORG, before=later.id, limit=10))


def test_an_id_stands_for_one_figure(bench: Bench, reconciliations: Reconciliations) -> None:
    """Many at once leave one entry; another figure under the id changes nothing."""
    outcomes = bench.together([reconciliations.reconcile(ORG, today(bench, 10)) for _ in range(30)])
    assert 1 == len({outcome[0].id for outcome in outcomes if outcome})
    assert 29 == sum(outcome[1] for outcome in outcomes if outcome)
    before = bench.everything()
    assert bench.run(reconciliations.reconcile(ORG, today(bench, 11))) is None
    assert before == bench.everything()
