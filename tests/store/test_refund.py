"""Refunds: what a failed image job was charged comes back once, whoever reports the failure, however often."""

from dataclasses import replace

import pytest

from gateway.billing.ledger import RELEASE, Posting, Progress, violations
from gateway.billing.usage import Usage
from gateway.store.admission import Admitted, OverBudget
from gateway.store.jobs import Job
from tests.store.bench import AN, BLUE, BY_DESK, DESK, NOTEBOOK, ORG, ORGANISATION, RED, REFUND, Bench, capture

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
    works = [bench.ledger.refund(job, REFUND, 60_000) for _ in range(50)]
    refunds = bench.together(works)
    assert ["finished"] * 49 + ["refunded"] == sorted(refund.outcome for refund in refunds)
    assert {IMAGE} == {refund.amount_nano_usd for refund in refunds}
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
    assert "unbound" == bench.refund(replace(job, jobid="3"))
    bench.run(bench.redis.delete(bench.keys.hold(job.hold.hold_id)))
    assert "unknown" == bench.refund(job)
    assert (IMAGE, 0) == bench.spent_and_held(RED)


def test_a_job_is_refunded_to_who_bound_it_alone(bench: Bench) -> None:
    """The upstream named one job to two teams, and it fails: the second, which hears it first, gets nothing back."""
    first = bench.submitted_job(IMAGE)
    second = bench.submitted_job(2 * IMAGE, BY_DESK, first.jobid)
    assert first.digest == second.digest
    assert ["foreign", "refunded", "foreign"] == [bench.refund(job) for job in (second, first, second)]
    assert [(0, 0), (2 * IMAGE, 0)] == [bench.spent_and_held(team) for team in (RED, BLUE)]
    assert [] == violations(bench.books())


def test_one_job_for_two_images_of_a_call_gives_back_one_share(bench: Bench) -> None:
    """Each image asks for its own; the second's is no job of its own."""
    first, _ = shared_jobs(bench, 2)
    second = replace(first, number=1)
    bench.run(bench.jobs.bind(second, 0))
    charge(bench, first, 2)
    refunds = [bench.run(bench.ledger.refund(job, REFUND, 60_000)) for job in (first, second)]
    assert [("refunded", IMAGE), ("foreign", 0)] == [(refund.outcome, refund.amount_nano_usd) for refund in refunds]
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


def shared_jobs(bench: Bench, count: int) -> list[Job]:
    """So many jobs of one call, bound, each with an image's share of its hold, which is not settled yet."""
    request = bench.call(count * IMAGE, model="realvision", kind="image", images=count)
    bench.admit(request)
    jobs = [Job(str(number), "s", request, 1, share_nano_usd=IMAGE, number=number) for number in range(count)]
    for job in jobs:
        bench.run(bench.jobs.bind(job, bench.now_ms()))
    return jobs


def charge(bench: Bench, job: Job, images: int) -> None:
    bench.settle(job.hold, Posting("capture", images * IMAGE, Usage(units=images)))


def test_each_job_of_a_call_gives_back_its_own_share(bench: Bench) -> None:
    """Of four images two fail: two entries of one price each, however often each failure is reported."""
    jobs = shared_jobs(bench, 4)
    charge(bench, jobs[0], 4)
    assert ["refunded", "finished", "refunded"] == [bench.refund(jobs[number]) for number in (1, 1, 3)]
    assert [4 * IMAGE, -IMAGE, -IMAGE] == [entry.cost_nano_usd for entry in bench.entries()]
    assert [(2 * IMAGE, 0)] * 4 == [bench.spent_and_held(scope) for scope in (ORGANISATION, RED, AN, NOTEBOOK)]
    found = bench.run(bench.jobs.of_call(ORG, jobs[0].hold.hold_id))
    assert [0, IMAGE, 0, IMAGE] == [job.refunded_nano_usd for job in found]
    assert [] == violations(bench.books())


def test_shares_never_give_back_more_than_was_charged(bench: Bench) -> None:
    """Three jobs claim a share of what two were charged: the third finds nothing left."""
    jobs = shared_jobs(bench, 3)
    charge(bench, jobs[0], 2)
    assert ["nothing_to_refund", "refunded", "refunded"] == sorted(bench.refund(job) for job in jobs)
    assert (0, 0) == bench.spent_and_held(RED)
    assert [] == violations(bench.books())


def test_the_failures_of_one_call_at_once_each_give_back_once(bench: Bench) -> None:
    """Ten jobs, five callers each, all in the same moment."""
    jobs = shared_jobs(bench, 10)
    charge(bench, jobs[0], 10)
    refunds = bench.together([bench.ledger.refund(job, REFUND, 60_000) for job in jobs for _ in range(5)])
    assert 10 == [refund.outcome for refund in refunds].count("refunded")
    assert (0, 0) == bench.spent_and_held(ORGANISATION)
    assert [] == violations(bench.books())


@pytest.mark.parametrize("refunded_first", [True, False])
def test_a_share_of_an_expired_hold_comes_back_once_too(bench: Bench, refunded_first: bool) -> None:
    """Its gateway was killed: charged whole, then corrected to the two that were accepted. A failure before or after
    the correction leaves one image to pay."""
    jobs = shared_jobs(bench, 3)
    bench.lapse(jobs[0].hold)
    (hold,) = bench.run(bench.leases.overdue(ORG, bench.now_ms(), 10))
    assert bench.run(bench.leases.expire(replace(hold, so_far=Progress(3 * IMAGE, Usage(units=3)))))[0].changed
    if refunded_first:
        assert "refunded" == bench.refund(jobs[0])
    charge(bench, jobs[0], 2)
    if not refunded_first:
        assert "refunded" == bench.refund(jobs[0])
    assert (IMAGE, 0) == bench.spent_and_held(RED)
    assert [] == violations(bench.books())
