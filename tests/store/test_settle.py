"""Settling: each hold ends exactly once, in the windows it was admitted in."""

import struct
from typing import cast

import pytest

from gateway.billing.budget import WINDOWS
from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import RELEASE, Posting, violations
from gateway.billing.usage import Usage
from gateway.store.admission import Admitted, OverBudget
from gateway.store.ledger import TOMBSTONE_MS
from gateway.store.scripts import load
from tests.store.bench import AN, BY_ROBOT, NOTEBOOK, ORGANISATION, RED, Bench, capture

ABOVE_NOTEBOOK = (ORGANISATION, RED, AN, NOTEBOOK)


def test_a_capture_replaces_the_hold_by_the_charge(bench: Bench) -> None:
    """At every scope and window; what was held too much is free again."""
    request = bench.call(100)
    bench.admit(request)
    assert bench.settle(request, capture(30))
    for scope in ABOVE_NOTEBOOK:
        for window in WINDOWS:
            assert (30, 0) == bench.spent_and_held(scope, window)
    assert [] == bench.run(bench.ledger.open_holds(bench.org))
    assert [] == violations(bench.books())


def test_a_release_gives_everything_back(bench: Bench) -> None:
    """Its entry costs nothing and says that the call was there."""
    request = bench.call(100)
    bench.admit(request)
    assert bench.settle(request, RELEASE)
    assert [(0, 0)] * 4 == [bench.spent_and_held(scope) for scope in ABOVE_NOTEBOOK]
    assert [("release", 0)] == [(entry.type, entry.cost_nano_usd) for entry in bench.entries()]


def test_an_entry_says_who_what_and_when(bench: Bench) -> None:
    """All that a report or an accountant asks for later, as it was at the call."""
    request = bench.call(100, BY_ROBOT, model="gpt-4o")
    admitted = bench.admit(request)
    assert isinstance(admitted, Admitted)
    usage = Usage(prompt_tokens=11, completion_tokens=7)
    bench.settle(request, Posting("capture", 42, usage, "estimated", ("estimated", "unanswered")))
    (entry,) = bench.entries()
    assert (bench.org, "red", None, "robot") == (entry.org, entry.team, entry.user, entry.key)
    assert ("capture", 42, "gpt-4o", "chat") == (entry.type, entry.cost_nano_usd, entry.model, entry.kind)
    assert (11, 7, 0, "estimated") == (entry.prompt_tokens, entry.completion_tokens, entry.units, entry.usage_source)
    assert (request.hold_id, request.request_id, "v1") == (entry.hold_id, entry.request_id, entry.price_version)
    assert ("estimated", "unanswered") == entry.flags
    assert admitted.admitted_at_ms == entry.admitted_at_ms <= entry.at_ms


@pytest.mark.parametrize("second", [capture(30), capture(99), RELEASE])
@pytest.mark.parametrize("first", [capture(30), RELEASE])
def test_whatever_comes_second_changes_nothing(bench: Bench, first: Posting, second: Posting) -> None:
    """Sent twice, or one way and then the other: the first end stands."""
    request = bench.call(100)
    bench.admit(request)
    bench.settle(request, first)
    before = bench.everything()
    assert not bench.settle(request, second)
    assert before == bench.everything()


def test_a_hundred_settlements_at_once_are_one(bench: Bench) -> None:
    """Captures of every size and releases race: one wins, and the books show exactly that one."""
    request = bench.call(1_000)
    bench.admit(request)
    postings = [RELEASE if number % 4 == 0 else capture(number) for number in range(100)]
    settled = bench.together([bench.ledger.settle(request, posting) for posting in postings])
    results = [one.changed for one in settled]
    assert 1 == results.count(True)
    winner = postings[results.index(True)]
    assert [winner.cost_nano_usd] == [entry.cost_nano_usd for entry in bench.entries()]
    assert (winner.cost_nano_usd, 0) == bench.spent_and_held(ORGANISATION)
    assert [] == violations(bench.books())


def test_admissions_and_settlements_of_many_race(bench: Bench) -> None:
    """A hundred calls, each admitted and settled by its own caller, through one tight budget."""
    bench.limit(RED, 2_000)

    async def one_call(number: int) -> int:
        request = bench.call(100)
        if not isinstance(await bench.ledger.admit(request), Admitted):
            return 0
        cost = number % 100
        await bench.ledger.settle(request, RELEASE if number % 5 == 0 else capture(cost))
        return 0 if number % 5 == 0 else cost

    spent = sum(bench.together([one_call(number) for number in range(100)]))
    assert (spent, 0) == bench.spent_and_held(RED)
    assert spent <= 2_000
    assert [] == violations(bench.books())


def test_an_unknown_hold_is_never_captured(bench: Bench) -> None:
    """Nobody was asked whether the money was there, so nothing is posted by itself: it is kept in quarantine, once."""
    before, request = bench.everything(), bench.call(100)
    assert not bench.settle(request, capture(30))
    assert not bench.settle(request, capture(31))
    assert before == {key: value for key, value in bench.everything().items() if key.decode() != bench.keys.quarantine}
    kept = cast(bytes, bench.run(bench.redis.hget(bench.keys.quarantine, request.hold_id)))
    assert "30" == kept.decode().split("\n")[1]


def test_a_release_overtakes_its_admission(bench: Bench) -> None:
    """The admission had no answer and was given back, and only then arrives: its hold would never end."""
    request = bench.call(100)
    assert not bench.settle(request, RELEASE)
    with pytest.raises(LedgerUnavailable, match="already ended"):
        bench.admit(request)
    assert [(0, 0)] * 4 == [bench.spent_and_held(scope) for scope in ABOVE_NOTEBOOK]
    assert [] == bench.entries()
    assert [] == violations(bench.books())


def test_an_admission_and_its_release_race(bench: Bench) -> None:
    """In whatever order Redis takes them, nothing stays held and nothing is charged."""
    requests = [bench.call(100) for _ in range(50)]

    async def admission_without_answer(number: int) -> None:
        try:
            await bench.ledger.admit(requests[number])
        except LedgerUnavailable:
            return

    async def release(number: int) -> None:
        await bench.ledger.settle(requests[number], RELEASE)

    bench.together([work(number) for number in range(50) for work in (admission_without_answer, release)])
    assert [(0, 0)] * 4 == [bench.spent_and_held(scope) for scope in ABOVE_NOTEBOOK]
    assert [] == violations(bench.books())


def test_a_charge_goes_to_the_window_of_its_hold(bench: Bench) -> None:
    """A call that ends after midnight was yesterday's: today's budget is untouched, the total has it."""
    bench.limit(RED, 100, "day")
    late = bench.call(60)
    bench.run(bench.at_windows(days_ago=1).admit(late))
    today = bench.at_windows()
    early = bench.call(10)
    bench.run(today.admit(early))
    bench.settle(late, capture(55))
    assert (0, 10) == bench.state(RED)._windows["day"][1:]
    assert (55, 10) == bench.spent_and_held(RED, "total")
    assert isinstance(bench.run(today.admit(bench.call(90))), Admitted)
    assert isinstance(bench.run(today.admit(bench.call(1))), OverBudget)
    assert [] == violations(bench.books())


def test_a_charge_above_its_hold_is_booked_whole(bench: Bench) -> None:
    """The upstream billed it; then the budget is overdrawn, admissions stop, and the books say so."""
    bench.limit(RED, 100)
    request = bench.call(100)
    bench.admit(request)
    bench.settle(request, capture(130, "overrun"))
    assert (130, 0) == bench.spent_and_held(RED)
    refused = bench.admit(bench.call(1))
    assert isinstance(refused, OverBudget)
    assert not refused.only_held
    assert [] == violations(bench.books())


def test_a_hold_ends_also_where_its_scopes_are_blocked_since(bench: Bench) -> None:
    """Blocking stops new calls; what is running is still billed."""
    request = bench.call(100)
    bench.admit(request)
    bench.change(RED, blocked=True)
    bench.change(NOTEBOOK, revoked_at_ms=1)
    assert bench.settle(request, capture(30))
    assert (30, 0) == bench.spent_and_held(RED)
    assert bench.state(RED).blocked


def test_a_resolved_hold_stays_as_its_own_tombstone(bench: Bench) -> None:
    """For two days, so that what is delivered late finds it; an open hold never goes away by itself."""
    request = bench.call(100)
    bench.admit(request)
    key = bench.keys.hold(request.hold_id)
    assert -1 == bench.run(bench.redis.pttl(key))
    bench.settle(request, capture(1))
    assert TOMBSTONE_MS - 60_000 < bench.run(bench.redis.pttl(key)) <= TOMBSTONE_MS


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_open_holds_are_paged_each_once(bench: Bench, limit: int) -> None:
    """Many expire in the same millisecond; some end while the pages are read, and leave no gap behind them."""
    requests = [bench.call(1) for _ in range(20)]
    bench.together([bench.ledger.admit(request) for request in requests])
    bench.run(bench.redis.zadd(bench.keys.leases, {request.hold_id: 5_000 for request in requests[:10]}))
    gone = bench.call(1, hold_id="h-gone")
    bench.run(bench.redis.zadd(bench.keys.leases, {gone.hold_id: 5_000}))
    seen: list[str] = []
    after = None
    while page := bench.run(bench.ledger.open_holds(bench.org, limit=limit, after=after)):
        seen += [hold.id for hold in page]
        deadline_ms = bench.run(bench.redis.zscore(bench.keys.leases, page[-1].id))
        assert deadline_ms is not None
        after = (int(deadline_ms), page[-1].id)
        if len(page) < limit:
            break
    assert sorted(request.hold_id for request in requests) == sorted(seen)


def test_open_holds_are_listed_the_next_to_expire_first(bench: Bench) -> None:
    """Who holds what since when, for the list of running calls."""
    first, second = bench.call(10), bench.call(20, BY_ROBOT)
    for request in (first, second):
        bench.admit(request)
    holds = bench.run(bench.ledger.open_holds(bench.org))
    assert {(first.hold_id, 10, "an"), (second.hold_id, 20, None)} == {
        (hold.id, hold.hold_nano_usd, hold.user) for hold in holds
    }
    assert sorted(hold.deadline_ms for hold in holds) == [hold.deadline_ms for hold in holds]
    assert [30_000, 30_000] == [hold.deadline_ms - hold.admitted_at_ms for hold in holds]
    assert 2 == bench.run(bench.ledger.open_hold_count(bench.org))


@pytest.mark.parametrize(
    ("how", "charge"),
    [("capture", -1), ("capture", 1.5), ("capture", float("nan")), ("capture", 2**53), ("release", 1),
     ("expire", -1), ("refund", 1), ("", 0)],
)  # fmt: skip
def test_what_cannot_be_settled_changes_nothing(bench: Bench, how: str, charge: float) -> None:
    """A negative charge would print money; a release that charges would be no release."""
    request = bench.call(100)
    bench.admit(request)
    keys = [bench.keys.hold(request.hold_id), bench.keys.leases, bench.keys.ledger]
    keys += [bench.keys.alerts, bench.keys.crossed, bench.keys.quarantine]
    keys += [bench.keys.state(scope) for scope in ABOVE_NOTEBOOK]
    before = bench.everything()

    def settle(how: str, charge: float) -> list[object]:
        amounts = struct.pack("<5d", charge, 0, 1000, 0, 0)
        return bench.run(bench.scripts.run(load("settle"), keys, [request.hold_id, how, amounts, "{}"]))

    with pytest.raises(LedgerUnavailable):
        settle(how, charge)
    assert before == bench.everything()
    assert b"settled" == settle("capture", 100)[0]


def test_books_that_do_not_add_up_are_not_made_worse(bench: Bench) -> None:
    """Someone wrote into Redis by hand: held is less than the hold. The script stops before its first write."""
    request = bench.call(100)
    bench.admit(request)
    other = bench.call(1)
    bench.admit(other)
    bench.settle(other, RELEASE)
    tampered = request._replace(hold_id="copy")
    bench.run(bench.redis.copy(bench.keys.hold(request.hold_id), bench.keys.hold("copy")))
    bench.settle(request, capture(100))
    before = bench.everything()
    with pytest.raises(LedgerUnavailable):
        bench.settle(tampered, capture(100))
    assert before == bench.everything()
