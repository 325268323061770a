"""Refunds: what a failed image job was charged comes back once, whoever reports the failure, however often."""

from dataclasses import replace

from gateway.billing.ledger import RELEASE, violations
from gateway.store.admission import Admitted, OverBudget
from gateway.store.jobs import Job
from tests.store.bench import AN, DESK, NOTEBOOK, ORGANISATION, RED, REFUND, Bench, capture

IMAGE = 1_500_000


def test_a_refund_is_an_entry_of_its_own(bench: Bench) -> None:
    """The charge stays in the books as it was; the refund stands beside it, in the charge's period."""
    job = bench.submitted_job(IMAGE)
    assert "refunded" == bench.refund(job)
    assert [(0, 0)] * 4 == [bench.spent_and_held(scope) for scope in (ORGANISATION, RED, AN, NOTEBOOK)]
    charge, refund = bench.entries()
    assert [("capture", IMAGE), ("refund", -IMAGE)] == [(one.type, one.cost_nano_usd) for one in (charge, refund)]
    assert (charge.hold_id, charge.admitted_at_ms) == (refund.hold_id, refund.admitted_at_ms)
    assert ("realvision", "image", "notebook") == (refund.model, refund.kind, refund.key)
    assert [] == violations(bench.books())


def test_fifty_callers_at_once_refund_once(bench: Bench) -> None:
    """Clients and the gateway's own poller all see the failure at the same moment."""
    job = bench.submitted_job(IMAGE)
    bench.submitted_job(IMAGE, jobid="2")
    works = [bench.ledger.refund(job.digest, job.hold, REFUND, 60_000) for _ in range(50)]
    assert ["finished"] * 49 + ["refunded"] == sorted(bench.together(works))
    assert (IMAGE, 0) == bench.spent_and_held(ORGANISATION)
    assert [] == violations(bench.books())


def test_a_job_that_ended_well_is_not_refunded(bench: Bench) -> None:
    """Its picture was delivered; what a later poll says changes nothing."""
    job = bench.submitted_job(IMAGE)
    bench.run(bench.jobs.finish(job, "success"))
    assert "finished" == bench.refund(job)
    assert (IMAGE, 0) == bench.spent_and_held(RED)


def test_a_refund_waits_for_its_charge(bench: Bench) -> None:
    """The charge may still be on its way to the ledger; giving back what is not taken yet would be too early."""
    request = bench.call(IMAGE, kind="image")
    bench.admit(request)
    job = Job("1", "s", request, bench.now_ms())
    bench.run(bench.jobs.bind(job, bench.now_ms()))
    assert "open" == bench.refund(job)
    bench.settle(request, capture(IMAGE))
    assert "refunded" == bench.refund(job)
    assert (0, 0) == bench.spent_and_held(RED)


def test_what_was_released_is_not_refunded(bench: Bench) -> None:
    """Nothing was charged, so nothing comes back."""
    request = bench.call(IMAGE, kind="image")
    bench.admit(request)
    job = Job("1", "s", request, bench.now_ms())
    bench.run(bench.jobs.bind(job, bench.now_ms()))
    bench.settle(request, RELEASE)
    assert "nothing_to_refund" == bench.refund(job)
    assert ["release"] == [entry.type for entry in bench.entries()]
    assert "finished" == bench.refund(job)


def test_the_actual_charge_comes_back_and_not_the_hold(bench: Bench) -> None:
    """They may differ, once a price is changed."""
    request = bench.call(IMAGE, kind="image")
    bench.admit(request)
    job = Job("1", "s", request, bench.now_ms())
    bench.run(bench.jobs.bind(job, bench.now_ms()))
    bench.settle(request, capture(IMAGE - 1))
    bench.refund(job)
    assert (0, 0) == bench.spent_and_held(ORGANISATION)
    assert [IMAGE - 1, 1 - IMAGE] == [entry.cost_nano_usd for entry in bench.entries()]


def test_an_unknown_job_is_not_refunded(bench: Bench) -> None:
    """Nor one whose hold is long forgotten."""
    job = bench.submitted_job(IMAGE)
    assert "unknown" == bench.refund(replace(job, jobid="3"))
    bench.run(bench.redis.delete(bench.keys.hold(job.hold.hold_id)))
    assert "unknown" == bench.refund(job)
    assert (IMAGE, 0) == bench.spent_and_held(RED)


def test_a_refund_goes_to_the_window_of_its_charge(bench: Bench) -> None:
    """Yesterday's image that fails today gives yesterday's money back: today's budget does not grow by it."""
    bench.limit(RED, IMAGE, "day")
    request = bench.call(IMAGE, kind="image")
    bench.run(bench.at_windows(days_ago=1).admit(request))
    job = Job("1", "s", request, bench.now_ms())
    bench.run(bench.jobs.bind(job, bench.now_ms()))
    bench.settle(request, capture(IMAGE))
    today = bench.at_windows()
    assert isinstance(bench.run(today.admit(bench.call(IMAGE))), Admitted)
    assert "refunded" == bench.refund(job)
    assert isinstance(bench.run(today.admit(bench.call(1))), OverBudget)
    assert (0, IMAGE) == bench.spent_and_held(RED, "total")
    assert [] == violations(bench.books())


def test_a_refund_touches_nobody_else(bench: Bench) -> None:
    """Another team's charge stays where it is."""
    job = bench.submitted_job(IMAGE)
    other = bench.call(7, job.hold.principal._replace(team="blue", user="binh", key="desk"))
    bench.admit(other)
    bench.settle(other, capture(7))
    bench.refund(job)
    assert (7, 0) == bench.spent_and_held(DESK)
    assert (7, 0) == bench.spent_and_held(ORGANISATION)


def test_a_finished_job_is_due_no_more(bench: Bench) -> None:
    """The gateway stops asking about it."""
    job = bench.submitted_job(IMAGE)
    bench.refund(job)
    assert [] == bench.run(bench.jobs.claim_due(bench.org, 10))
    found = bench.run(bench.jobs.find(job.jobid, job.signature))
    assert found is not None
    assert "error" == found.state
