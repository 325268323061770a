"""Holds as leases: renewed, expired by what was told last, and corrected by what comes late."""

import pytest

from gateway.billing.ledger import ESTIMATED, RELEASE, WHOLE_HOLD, Entry, OpenHold, Posting, Progress, violations
from gateway.billing.limits import Limits
from gateway.billing.usage import Usage
from gateway.store.admission import Admitted, HoldRequest
from gateway.store.leases import Leases
from gateway.store.ledger import Ledger
from tests.store.bench import AN, NOTEBOOK, ORGANISATION, RED, Bench, capture

ABOVE_NOTEBOOK = (ORGANISATION, RED, AN, NOTEBOOK)
TOLD = Progress(30, Usage(prompt_tokens=7, completion_tokens=4))
LEASE_S = 30


def leases(bench: Bench, *, charge_whole: bool = False) -> Leases:
    return Leases(bench.redis, bench.scripts, bench.ledger, LEASE_S, charge_whole=charge_whole)


def begun(bench: Bench, amount: int = 100, **told: int) -> HoldRequest:
    """A hold whose lease is over: nobody has been heard of since its admission."""
    request = bench.call(amount, tokens=told.get("tokens", 0))
    short = Ledger(bench.redis, bench.scripts, bench.calendar, lease_s=0)
    assert isinstance(bench.run(short.admit(request)), Admitted)
    return request


def overdue(bench: Bench, **options: bool) -> list[OpenHold]:
    return bench.run(leases(bench, **options).overdue(bench.org, bench.now_ms(), 100))


def expire_all(bench: Bench, *, charge_whole: bool = False) -> list[Posting]:
    each = leases(bench, charge_whole=charge_whole)
    return [posting for hold in overdue(bench) for done, posting in [bench.run(each.expire(hold))] if done.changed]


def entries(bench: Bench, kind: str) -> list[Entry]:
    return [entry for entry in bench.entries() if entry.type == kind]


def test_a_renewed_hold_is_not_overdue(bench: Bench) -> None:
    """Its call runs; what it has used so far is kept with it."""
    request = begun(bench)
    assert [request.hold_id] == [hold.id for hold in overdue(bench)]
    assert () == bench.run(leases(bench).renew(bench.org, [(request.hold_id, TOLD)]))
    assert [] == overdue(bench)
    (hold,) = bench.run(bench.ledger.open_holds(bench.org))
    assert TOLD == hold.so_far
    assert hold.deadline_ms > bench.now_ms() + LEASE_S * 900


def test_a_hold_that_ended_is_not_renewed(bench: Bench) -> None:
    """Nothing about it changes. The id of one that its call has not ended is told, so that who runs it knows; one that
    is settled while its answer is still being sent is no fault."""
    settled, expired, unknown = begun(bench), bench.call(2), bench.call(1)
    bench.settle(settled, capture(5))
    bench.admit(expired)
    bench.lapse(expired)
    assert 1 == len(expire_all(bench))
    before = bench.everything()
    each = [(request.hold_id, TOLD) for request in (settled, expired, unknown)]
    assert (expired.hold_id, unknown.hold_id) == bench.run(leases(bench).renew(bench.org, each))
    assert before == bench.everything()


def test_a_hold_is_renewed_where_redis_is_full(bench: Bench, pytestconfig: pytest.Config) -> None:
    """A full Redis admits nothing, but what runs goes on: else its holds expire, and each charge is a correction."""
    if pytestconfig.getoption("on_cluster"):
        pytest.skip("with the prefix that scripts have there a full Redis runs none; the gateway sends them without")
    request = begun(bench)
    bench.run(bench.redis.config_set("maxmemory", 1))
    try:
        assert () == bench.run(leases(bench).renew(bench.org, [(request.hold_id, TOLD)]))
    finally:
        bench.run(bench.redis.config_set("maxmemory", 0))
    assert [] == overdue(bench)


def test_an_expired_hold_is_charged_what_was_told_last(bench: Bench) -> None:
    """Estimated and said so; what it held is free, at every scope, and its rate and concurrency slots too."""
    bench.change(NOTEBOOK, limits=Limits(tokens_per_minute=1000, concurrent_requests=1))
    request = begun(bench, tokens=500)
    bench.run(leases(bench).renew(bench.org, [(request.hold_id, TOLD)]))
    bench.lapse(request)
    assert [Posting("expire", 30, TOLD.usage, "estimated", (ESTIMATED,))] == expire_all(bench)
    assert [(30, 0)] * 4 == [bench.spent_and_held(scope) for scope in ABOVE_NOTEBOOK]
    (entry,) = bench.entries()
    assert ("expire", 30, 30, 7, 4) == (
        entry.type,
        entry.cost_nano_usd,
        entry.estimated_nano_usd,
        entry.prompt_tokens,
        entry.completion_tokens,
    )
    state = bench.state(NOTEBOOK)
    assert 0 == state.calls_open
    left = state.left("tokens", bench.now_ms())
    assert left is not None
    assert left.remaining >= 1000 - 11 - 1
    assert [] == violations(bench.books())


def test_a_hold_never_heard_of_is_charged_as_its_admission_said(bench: Bench) -> None:
    """Its prompt may have been read: that is in the hold from the first moment."""
    request = bench.call(100)._replace(so_far=Progress(12, Usage(prompt_tokens=80)))
    bench.run(Ledger(bench.redis, bench.scripts, bench.calendar, lease_s=0).admit(request))
    assert [12] == [posting.cost_nano_usd for posting in expire_all(bench)]


def test_the_whole_hold_is_charged_where_that_is_wanted(bench: Bench) -> None:
    """`expired_holds = "hold"`: for whom an underestimate is worse than an overestimate."""
    begun(bench)
    assert [(100, (ESTIMATED, WHOLE_HOLD))] == [
        (posting.cost_nano_usd, posting.flags) for posting in expire_all(bench, charge_whole=True)
    ]
    assert (100, 0) == bench.spent_and_held(RED)


def test_a_reaper_that_saw_an_older_deadline_ends_nothing(bench: Bench) -> None:
    """The hold was renewed since, and lapsed again: what that reaper would charge was told before the renewal."""
    request = begun(bench)
    (seen_before,) = overdue(bench)
    bench.run(leases(bench).renew(bench.org, [(request.hold_id, TOLD)]))
    bench.lapse(request)
    assert not bench.run(leases(bench).expire(seen_before))[0].changed
    assert [TOLD.cost_nano_usd] == [posting.cost_nano_usd for posting in expire_all(bench)]


def test_many_reapers_expire_a_hold_once(bench: Bench) -> None:
    """Every gateway runs one, and they all see the same holds."""
    for _ in range(20):
        begun(bench)
    seen = overdue(bench)
    reaper = leases(bench)
    done = bench.together([reaper.expire(hold) for hold in seen * 5])
    assert 20 == sum(settled.changed for settled, _ in done)
    assert 20 == len(entries(bench, "expire"))
    assert [] == violations(bench.books())


@pytest.mark.parametrize(("late", "difference"), [(capture(45), 45), (capture(0), 0), (RELEASE, 0)])
def test_what_comes_after_the_expiry_is_posted_as_a_difference_once(
    bench: Bench, late: Posting, difference: int
) -> None:
    """The books end at the true charge, and say that the first one was an estimate."""
    request = begun(bench)
    bench.run(leases(bench).renew(bench.org, [(request.hold_id, TOLD)]))
    bench.lapse(request)
    expire_all(bench)
    assert bench.settle(request, late)
    assert not bench.settle(request, late)
    assert not bench.settle(request, capture(99))
    (correction,) = entries(bench, "late_capture")
    assert difference - 30 == correction.cost_nano_usd
    assert -30 == correction.estimated_nano_usd
    assert TOLD == correction.replaces
    assert [(difference, 0)] * 4 == [bench.spent_and_held(scope) for scope in ABOVE_NOTEBOOK]
    assert [] == violations(bench.books())


def test_a_late_capture_corrects_the_tokens_in_the_reports(bench: Bench) -> None:
    """One request, with the tokens and the cost that were true."""
    request = begun(bench)
    bench.run(leases(bench).renew(bench.org, [(request.hold_id, TOLD)]))
    bench.lapse(request)
    expire_all(bench)
    bench.settle(request, Posting("capture", 45, Usage(prompt_tokens=9, completion_tokens=6)))
    day = bench.calendar.date_at(bench.now_ms()).isoformat()
    (cell,) = bench.listed(bench.reports.cells(bench.org, "team", "day", [day]))
    measures = cell.measures
    assert (1, 9, 6, 45, 0) == (
        measures.requests,
        measures.prompt_tokens,
        measures.completion_tokens,
        measures.cost_nano_usd,
        measures.estimated_nano_usd,
    )


def test_a_lease_without_a_hold_is_forgotten(bench: Bench) -> None:
    """It would stand at the head of the queue for ever."""
    bench.run(bench.redis.zadd(bench.keys.leases, {"gone": 1}))
    request = begun(bench)
    assert [request.hold_id] == [hold.id for hold in overdue(bench)]
    assert [request.hold_id.encode()] == bench.run(bench.redis.zrange(bench.keys.leases, 0, -1))


def test_a_hold_renewed_at_the_last_moment_keeps_running(bench: Bench) -> None:
    """The reaper saw it overdue, but its gateway was faster: the script reads the deadline again."""
    request = begun(bench)
    (seen,) = overdue(bench)
    bench.run(leases(bench).renew(bench.org, [(request.hold_id, TOLD)]))
    assert not bench.run(leases(bench).expire(seen))[0].changed
    assert [] == bench.entries()
    assert (0, 100) == bench.spent_and_held(RED)
