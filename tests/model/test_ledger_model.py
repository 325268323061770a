"""The ledger against plain-Python books: random operations of two organisations, in any order, all of it checked.

A schedule is a sequence of steps: calls are admitted, renewed, settled, released, expired, charged late and refunded;
credit is paid in and moved; corrections are made; budgets, rates and blocks change while calls run; Redis's clock goes
on, stands at the borders of windows, and is set back. Whatever is sent may arrive at once, later, more than once and in
another order. Each answer must equal that of `plain_books`. After each step the organisation it touched is checked:
every invariant of `billing.ledger`, the laws of `billing.audit`, all balances, windows, buckets, entries and holds. At
the end of a schedule both are, and `gateway ledger verify` must find no difference.

`./run test tests/model` runs GATEWAY_MODEL_SCHEDULES schedules (200) from GATEWAY_MODEL_SEED (any). The long run:

    GATEWAY_MODEL_SCHEDULES=10000 nice ./run test tests/model

A failure prints its seed, the steps of its schedule, and a line `@reproduce_failure(…)`: put it on the class `Machine`
in the test below to run that schedule alone, or give GATEWAY_MODEL_SEED the seed to run the same schedules again.
"""

import itertools
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from gateway.billing.adjustment import NotAdjusted
from gateway.billing.audit import Held, account_of, held_differences, spent_differences
from gateway.billing.budget import Budget, Calendar, Window
from gateway.billing.credit import NotPaid
from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import RELEASE, OpenHold, Posting, Progress, violations
from gateway.billing.limits import RATE_OF_LIMIT, Limits
from gateway.billing.principal import Principal, Scope
from gateway.billing.usage import Usage
from gateway.store.admission import Claim, Decision, HoldRequest
from gateway.store.audit import stored_of
from gateway.store.jobs import Job
from tests.model.plain_books import BUCKETS, LEASE_MS, MOVING, PlainBooks
from tests.store.bench import AN, BLUE, BY_DESK, BY_NOTEBOOK, BY_ROBOT, DAY_MS, NOTEBOOK, RED, SCOPES
from tests.store.clock import ClockedBench, open_clocked_benches

SCHEDULES = int(os.environ.get("GATEWAY_MODEL_SCHEDULES", "200"))
SEED = int(os.environ.get("GATEWAY_MODEL_SEED") or random.randrange(2**32))  # noqa: S311  # which schedules, no secret
STEPS = 30

# Two borders lie ahead: October begins an hour later, in the first zone at one o'clock, for its midnight is skipped.
CALENDARS = {"acme": Calendar(ZoneInfo("America/Asuncion"), 6), "umbrella": Calendar(ZoneInfo("Asia/Ho_Chi_Minh"))}
BEGINS_MS = 1_506_826_800_000  # 2017-09-30T23:00-04:00
HOUR_MS = 3_600_000
STEPS_MS = (1, 2_000, LEASE_MS, 61_000, HOUR_MS, DAY_MS, 3 * DAY_MS, 32 * DAY_MS, -1, -5_000, -2 * HOUR_MS, -2 * DAY_MS)

ORGS = st.sampled_from(list(CALENDARS))
LIMITS = st.sampled_from([None, None, 0, 39, 100, 250, 2**41])
WINDOWS: list[Window] = ["total", *MOVING]
PAYERS = st.sampled_from([RED, BLUE, NOTEBOOK])
CHAINS = {RED: (RED,), AN: (RED, AN), NOTEBOOK: (RED, AN, NOTEBOOK)}
AT_ONCE = st.sampled_from([True, True, True, False])


@dataclass(frozen=True, slots=True)
class Wish:
    """A call that somebody makes. `claim` is its Idempotency-Key and what it asks; `admitted`: at once."""

    org: str
    who: Principal
    amount: int
    tokens: int
    images: int
    claim: tuple[str, str] | None
    admitted: bool


WISHES = st.builds(
    Wish,
    org=ORGS,
    who=st.sampled_from([BY_NOTEBOOK, BY_ROBOT, BY_DESK]),
    amount=st.sampled_from([1, 7, 7, 40, 100, 2**40]),
    tokens=st.sampled_from([0, 30, 50]),
    images=st.sampled_from([0, 0, 1, 2]),
    claim=st.sampled_from([None, None, None, ("k1", "a"), ("k1", "b"), ("k2", "a")]),
    admitted=AT_ONCE,
)
ENDINGS = st.one_of(
    st.builds(
        lambda cost, tokens: Posting("capture", cost, Usage(prompt_tokens=tokens)),
        st.integers(1, 120),
        st.integers(0, 60),
    ),
    st.just(RELEASE),
)

Operation = Callable[[], None]
"""Something that was sent: arrives whenever it is called, and each time that it is."""


class LedgerMachine(RuleBasedStateMachine):
    """Every operation does the same to Valkey and to the plain books, and compares what both answer."""

    requests = Bundle("requests")
    sent = Bundle("sent")

    def __init__(self, benches: dict[str, ClockedBench]) -> None:
        super().__init__()
        self.benches = benches
        self.books = {org: PlainBooks(calendar) for org, calendar in CALENDARS.items()}
        self.ids = {org: itertools.count() for org in CALENDARS}
        self.now_ms = BEGINS_MS
        self.touched: set[str] = set()

    @initialize(
        target=requests,
        wishes=st.lists(WISHES, min_size=2, max_size=4),
        prepaid=st.dictionaries(st.tuples(ORGS, PAYERS), st.sampled_from([60, 2**41]), max_size=3),
    )
    def begin(self, wishes: list[Wish], prepaid: dict[tuple[str, Scope], int]) -> MultipleResults[HoldRequest]:
        first = self.benches["acme"]
        first.run(first.redis.flushall())
        first.set_clock(BEGINS_MS)
        for bench in self.benches.values():
            bench.lay_out()
        for (org, scope), credit in prepaid.items():
            self.pay_ahead(org, scope, on=True)
            self._pay(org, f"first-{scope.id}", scope, credit, None)
        return self.call(wishes)

    # What is sent. Each rule below leaves it in `sent`, from where `arrive` delivers it again, or for the first time.

    @rule(operation=sent)
    def arrive(self, operation: Operation) -> None:
        operation()

    def send(self, operation: Operation, *, at_once: bool) -> Operation:
        if at_once:
            operation()
        return operation

    @rule(target=requests, wishes=st.lists(WISHES, min_size=1, max_size=3))
    def call(self, wishes: list[Wish]) -> MultipleResults[HoldRequest]:
        """Same ids in both organisations: they must not meet."""
        requests = []
        for wish in wishes:
            hold_id = f"h{next(self.ids[wish.org])}"
            request = self.benches[wish.org].call(
                wish.amount, wish.who, hold_id=hold_id, kind="image", tokens=wish.tokens, images=wish.images
            )
            so_far = Progress(min(wish.amount, 5), Usage(prompt_tokens=wish.tokens // 2, units=wish.images))
            request = request._replace(so_far=so_far, claim=Claim(*wish.claim) if wish.claim else None)
            if wish.admitted:
                self._admit(request)
            requests.append(request)
        return multiple(*requests)

    @rule(target=requests, wishes=st.lists(WISHES, min_size=1, max_size=3), posting=ENDINGS)
    def serve(self, wishes: list[Wish], posting: Posting) -> MultipleResults[HoldRequest]:
        """Calls that nothing happens to."""
        served = self.call([replace(wish, admitted=True) for wish in wishes])
        for request in served.values:
            self._settle(request, posting)
        return served

    @rule(target=sent, request=requests, at_once=AT_ONCE)
    def admit(self, request: HoldRequest, at_once: bool) -> Operation:
        return self.send(partial(self._admit, request), at_once=at_once)

    @rule(target=sent, some=st.lists(requests, min_size=1, max_size=3), posting=ENDINGS, at_once=AT_ONCE)
    def finish(self, some: list[HoldRequest], posting: Posting, at_once: bool) -> MultipleResults[Operation]:
        """Often above the hold: what the upstream billed is booked whole."""
        return multiple(*[self.send(partial(self._settle, each, posting), at_once=at_once) for each in some])

    @rule(target=sent, some=st.lists(requests, min_size=1, max_size=3), cost=st.integers(0, 60), at_once=AT_ONCE)
    def renew(self, some: list[HoldRequest], cost: int, at_once: bool) -> Operation:
        """Told out of order, the latest to arrive counts: a gateway has one renewal on its way at a time."""
        org = some[0].principal.org
        ids = dict.fromkeys(request.hold_id for request in some if request.principal.org == org)
        running = [(hold_id, Progress(cost, Usage(completion_tokens=cost // 2))) for hold_id in ids]
        return self.send(partial(self._renew, org, running), at_once=at_once)

    @rule(target=sent, org=ORGS, count=st.integers(1, 3), at_once=AT_ONCE)
    def reap(self, org: str, count: int, at_once: bool) -> Operation:
        """What a reaper found overdue; it may be renewed, or ended, before the reaper gets to it."""
        bench = self.benches[org]
        overdue = bench.run(bench.leases.overdue(org, self.now_ms, 1000))
        assert self.books[org].overdue(self.now_ms) == {hold.id for hold in overdue}
        return self.send(partial(self._expire, org, overdue[:count]), at_once=at_once)

    @rule(target=sent, some=st.lists(requests, min_size=1, max_size=2), at_once=AT_ONCE)
    def refund(self, some: list[HoldRequest], at_once: bool) -> MultipleResults[Operation]:
        return multiple(*[self.send(partial(self._refund, each), at_once=at_once) for each in some])

    @rule(
        target=sent,
        org=ORGS,
        scope=PAYERS,
        source=st.sampled_from([None, RED, BLUE]),
        amount=st.sampled_from([30, 200]),
        number=st.integers(0, 20),
        at_once=AT_ONCE,
    )
    def pay(self, org: str, scope: Scope, source: Scope | None, amount: int, number: int, at_once: bool) -> Operation:
        """Credits and transfers, some under an id that was used."""
        source = None if source == scope or scope.kind != "team" else source
        return self.send(partial(self._pay, org, f"c{number}", scope, amount, source), at_once=at_once)

    @rule(
        target=sent,
        org=ORGS,
        scope=st.sampled_from([None, RED, AN, NOTEBOOK]),
        amount=st.sampled_from([-40, -3, 11]),
        ago_ms=st.sampled_from([None, 0, HOUR_MS, 3 * DAY_MS, 40 * DAY_MS]),
        number=st.integers(0, 20),
        at_once=AT_ONCE,
    )
    def adjust(
        self, org: str, scope: Scope | None, amount: int, ago_ms: int | None, number: int, at_once: bool
    ) -> Operation:
        """Corrections of now and of long ago; of the organisation where no scope is named."""
        scopes = (Scope("organisation", org), *(CHAINS[scope] if scope else ()))
        at_ms = None if ago_ms is None else self.now_ms - ago_ms
        return self.send(partial(self._adjust, org, f"a{number}", scopes, amount, at_ms), at_once=at_once)

    # What changes meanwhile.

    @rule(org=ORGS, above=st.integers(0, 3), window=st.sampled_from(WINDOWS), limit=LIMITS)
    def budget(self, org: str, above: int, window: Window, limit: int | None) -> None:
        """Raised, lowered and taken away; lowered below what is spent, a limit refuses and takes nothing."""
        scope = above_notebook(org)[above]
        limits = self.books[org].accounts[scope].limits
        limits.pop(window, None)
        if limit is not None:
            limits[window] = limit
        self._put_budgets(org, scope)

    @rule(org=ORGS, scope=PAYERS, on=st.booleans())
    def pay_ahead(self, org: str, scope: Scope, on: bool) -> None:
        """Given and taken away: each call keeps to what it was admitted under."""
        self.books[org].accounts[scope].pays_ahead = on
        self._put_budgets(org, scope)

    @rule(
        org=ORGS,
        above=st.integers(0, 3),
        given=st.builds(
            Limits,
            requests_per_minute=st.sampled_from([None, None, 2, 6]),
            tokens_per_minute=st.sampled_from([None, None, 40, 120]),
            images_per_minute=st.sampled_from([None, None, 1, 3]),
            concurrent_requests=st.sampled_from([None, None, 1, 3]),
        ),
        blocked=st.sampled_from([False, False, False, True]),
    )
    def bound(self, org: str, above: int, given: Limits, blocked: bool) -> None:
        """Rates, and whether it is blocked."""
        scope = above_notebook(org)[above]
        account = self.books[org].accounts[scope]
        account.rates = {RATE_OF_LIMIT[name]: limit for name, limit in given.given().items()}
        account.blocked = blocked
        self._change(org, scope, limits=given, blocked=blocked)

    @rule(by_ms=st.sampled_from(STEPS_MS))
    def clock(self, by_ms: int) -> None:
        """A moment, a lease, a month, or back as after a failover."""
        self._set_clock(self.now_ms + by_ms)

    @rule(org=ORGS, window=st.sampled_from(MOVING), by_ms=st.sampled_from([-1, 0]))
    def to_border(self, org: str, window: Window, by_ms: int) -> None:
        """The last instant of a window, or the first of the next."""
        end_ms = cast(int, CALENDARS[org].spans_at(self.now_ms + 1).of(window).end_ms)
        self._set_clock(end_ms + by_ms)

    @rule(org=ORGS, what=st.sampled_from(["project", "forget scripts"]))
    def meanwhile(self, org: str, what: str) -> None:
        """What happens beside the calls and must not show."""
        bench = self.benches[org]
        bench.run(bench.reports.catch_up(org) if what == "project" else bench.redis.script_flush())

    # What arrives.

    def _admit(self, request: HoldRequest) -> None:
        decision: Decision | None
        try:
            decision = self._bench(request).admit(request)
        except LedgerUnavailable:
            decision = None  # it has ended; were it anything else, the plain books would decide otherwise
        assert self._books(request).admit(request, self.now_ms) == decision

    def _settle(self, request: HoldRequest, posting: Posting) -> None:
        bench = self._bench(request)
        settled = bench.run(bench.ledger.settle(request, posting))
        assert self._books(request).settle(request, posting, self.now_ms) == settled

    def _renew(self, org: str, running: list[tuple[str, Progress]]) -> None:
        self.touched.add(org)
        bench = self.benches[org]
        assert self.books[org].renew(running, self.now_ms) == bench.run(bench.leases.renew(org, running))

    def _expire(self, org: str, overdue: list[OpenHold]) -> None:
        self.touched.add(org)
        bench = self.benches[org]
        for hold in overdue:
            settled, posting = bench.run(bench.leases.expire(hold))
            request = self.books[org].holds[hold.id].request
            assert hold.so_far.cost_nano_usd == posting.cost_nano_usd
            assert self.books[org].settle(unclaimed(request), posting, self.now_ms, hold.deadline_ms) == settled

    def _refund(self, request: HoldRequest) -> None:
        bench, job = self._bench(request), job_of(request)
        bench.run(bench.jobs.bind(job, 1))  # where it was bound before, it stays what it is
        assert self._books(request).refund(request, self.now_ms) == bench.refund(job)

    def _pay(self, org: str, payment_id: str, scope: Scope, amount: int, source: Scope | None) -> None:
        self.touched.add(org)
        paid = self.benches[org].pay(scope, amount, source=source, payment_id=payment_id)
        outcome = paid.reason if isinstance(paid, NotPaid) else "repeated" if paid.repeated else "done"
        assert self.books[org].pay(payment_id, scope, amount, source, self.now_ms) == outcome

    def _adjust(self, org: str, adjustment_id: str, scopes: tuple[Scope, ...], amount: int, at_ms: int | None) -> None:
        self.touched.add(org)
        done = self.benches[org].adjust(scopes[-1], amount, at_ms=at_ms, adjustment_id=adjustment_id)
        outcome = done if isinstance(done, NotAdjusted) else "repeated" if done.repeated else "done"
        assert self.books[org].adjust(adjustment_id, scopes, amount, at_ms, self.now_ms) == outcome

    def _bench(self, request: HoldRequest) -> ClockedBench:
        self.touched.add(request.principal.org)
        return self.benches[request.principal.org]

    def _books(self, request: HoldRequest) -> PlainBooks:
        return self.books[request.principal.org]

    def _put_budgets(self, org: str, scope: Scope) -> None:
        account = self.books[org].accounts[scope]
        budgets = [Budget(window, limit) for window, limit in account.limits.items()]
        self._change(org, scope, budgets=(*budgets, *([Budget("prepaid")] if account.pays_ahead else [])))

    def _change(self, org: str, scope: Scope, **changes: object) -> None:
        self.touched.add(org)
        self.benches[org].change(scope, **changes)

    def _set_clock(self, at_ms: int) -> None:
        self.now_ms = at_ms
        self.benches["acme"].set_clock(at_ms)

    # What must be true.

    @invariant()
    def the_books_are_right(self) -> None:
        for org in self.touched:
            self.check(org)
        self.touched.clear()

    def teardown(self) -> None:
        for org, bench in self.benches.items():
            self.check(org)
            findings = bench.run(bench.audit.run())
            quarantined = len(self.books[org].quarantined)
            assert ([], 0, quarantined) == (findings.differences, findings.busy, findings.quarantined)

    def check(self, org: str) -> None:
        """Nothing else may be in the organisation's books than its plain ones say, and that must add up."""
        bench, plain = self.benches[org], self.books[org]
        books = bench.books()
        assert [] == violations(books)
        assert plain.entries == [
            (e.type, e.hold_id, e.cost_nano_usd, e.credit_nano_usd, e.at_ms, e.admitted_at_ms) for e in books.entries
        ]
        running = {name: hold for name, hold in plain.holds.items() if hold.state == "open"}
        assert {name: (hold.deadline_ms, hold.so_far) for name, hold in running.items()} == {
            hold.id: (hold.deadline_ms, hold.so_far) for hold in books.holds
        }
        scopes = (Scope("organisation", org), *SCOPES[1:])
        for scope, state in zip(scopes, bench.states(scopes), strict=True):
            stored, account = stored_of(state), plain.accounts[scope]
            of_scope = account_of(scope, (entry for entry in books.entries if scope in entry.scopes()))
            assert account.stored() == stored, scope
            assert {rate: int(account.full_at_ms[rate]) for rate in BUCKETS} == state._arrivals_ms, scope
            assert [] == [*spent_differences(scope, stored, of_scope)]
            assert [] == [*held_differences(scope, stored, held_at(scope, books.holds))]


def held_at(scope: Scope, holds: Sequence[OpenHold]) -> Held:
    held = Held()
    for hold in holds:
        if scope in hold.scopes():
            held.add(hold, from_credit=scope.kind in hold.paid_by)
    return held


def above_notebook(org: str) -> tuple[Scope, ...]:
    return (Scope("organisation", org), RED, AN, NOTEBOOK)


def unclaimed(request: HoldRequest) -> HoldRequest:
    """As a hold remembers its call: without its Idempotency-Key."""
    return request._replace(claim=None)


def job_of(request: HoldRequest) -> Job:
    """Each call of this test has an image job of its own."""
    return Job(f"{request.principal.org}-{request.hold_id}", request.principal.key, request, 1)


@pytest.mark.slow
def test_the_ledger_does_what_plain_books_do(redis_url: str) -> None:
    """Whatever order things are sent in, arrive in and are repeated in, and whatever the clock does."""
    with open_clocked_benches(redis_url, CALENDARS) as benches:

        @seed(SEED)
        class Machine(LedgerMachine):
            def __init__(self) -> None:
                super().__init__(benches)

        # Nothing here loses its power, and a sync of every write is most of the time.
        bench = benches["acme"]
        bench.run(bench.redis.config_set("appendfsync", "everysec"))
        print(f"GATEWAY_MODEL_SEED={SEED} GATEWAY_MODEL_SCHEDULES={SCHEDULES}")  # noqa: T201  # shown where it fails
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=SCHEDULES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                print_blob=True,
                phases=(Phase.generate,),  # to shrink a failure takes minutes; its steps are printed anyway
                suppress_health_check=list(HealthCheck),
            ),
        )
