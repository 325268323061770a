"""The ledger against a plain-Python model: random calls of two organisations, invariants after each step."""

import itertools
from collections import defaultdict
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from gateway.billing.budget import Budget
from gateway.billing.credit import NotPaid
from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import RELEASE, Credit, violations
from gateway.billing.principal import Principal, Scope
from gateway.store.admission import Admitted, HoldRequest, OverBudget
from gateway.store.jobs import Job
from tests.store.bench import BLUE, BY_DESK, BY_NOTEBOOK, BY_ROBOT, DESK, NOTEBOOK, RED, Bench, capture, open_bench

ORGS = ("acme", "umbrella")
PAYERS = (RED, BLUE, NOTEBOOK)
CALLERS = (BY_NOTEBOOK, BY_ROBOT, BY_DESK)
AMOUNTS = st.sampled_from([1, 7, 40, 100, 2**40])
Account = tuple[str, Scope]


@dataclass
class Model:
    """What the ledger should say: sums in dictionaries, one state a hold."""

    limits: dict[Account, int] = field(default_factory=dict)
    spent: dict[Account, int] = field(default_factory=lambda: defaultdict(int))
    held: dict[Account, int] = field(default_factory=lambda: defaultdict(int))
    charges: dict[HoldRequest, int | None] = field(default_factory=dict)
    """Of each hold that was placed or given back: None while it is open."""
    refunded: set[HoldRequest] = field(default_factory=set)
    pays_ahead: set[Account] = field(default_factory=set)
    paid_in: dict[Account, int] = field(default_factory=lambda: defaultdict(int))
    credit_spent: dict[Account, int] = field(default_factory=lambda: defaultdict(int))
    credit_held: dict[Account, int] = field(default_factory=lambda: defaultdict(int))
    from_credit: dict[HoldRequest, list[Account]] = field(default_factory=lambda: defaultdict(list))
    """Accounts whose credit a hold counts in."""
    payments: dict[tuple[str, str], tuple[Scope, int, Scope | None]] = field(default_factory=dict)
    """What was paid under an id of an organisation."""

    def verdict(self, request: HoldRequest) -> str:
        """What admission should answer: "resolved", "admitted", "exceeded" or "held"."""
        if request in self.charges:
            return "admitted" if self.charges[request] is None else "resolved"
        verdict = "admitted"
        for account in accounts(request):
            limit = self.limits.get(account, 2**53 - 1)
            bounds = [(limit, self.spent[account], self.held[account])]
            if account in self.pays_ahead:
                bounds.append((self.paid_in[account], self.credit_spent[account], self.credit_held[account]))
            for bound, spent, held in bounds:
                if spent + request.amount_nano_usd > bound:
                    return "exceeded"
                if spent + held + request.amount_nano_usd > bound:
                    verdict = "held"
        return verdict

    def pay(self, payment_id: str, org: str, scope: Scope, amount: int, source: Scope | None) -> str:
        """What becomes of a credit or transfer: "done", "repeated", or why not."""
        asked = (scope, amount, source)
        if (org, payment_id) in self.payments:
            return "repeated" if self.payments[org, payment_id] == asked else "conflict"
        if (org, scope) not in self.pays_ahead:
            return "not_prepaid"
        if source is not None:
            giver = (org, source)
            if self.paid_in[giver] - self.credit_spent[giver] - self.credit_held[giver] < amount:
                return "too_little"
            self.paid_in[giver] -= amount
        self.payments[org, payment_id] = asked
        self.paid_in[org, scope] += amount
        return "done"

    def hold(self, request: HoldRequest) -> None:
        if request not in self.charges:
            self.charges[request] = None
            for account in accounts(request):
                self.held[account] += request.amount_nano_usd
                if account in self.pays_ahead:
                    self.from_credit[request].append(account)
                    self.credit_held[account] += request.amount_nano_usd

    def settle(self, request: HoldRequest, charge: int, *, release: bool) -> bool:
        """Whether it changed the books. An unknown hold that is released is known as ended from then on."""
        if request not in self.charges:
            if release:
                self.charges[request] = 0
            return False
        if self.charges[request] is not None:
            return False
        self.charges[request] = charge
        for account in accounts(request):
            self.held[account] -= request.amount_nano_usd
            self.spent[account] += charge
        for account in self.from_credit[request]:
            self.credit_held[account] -= request.amount_nano_usd
            self.credit_spent[account] += charge
        return True

    def refund(self, request: HoldRequest) -> str:
        if request in self.refunded:
            return "finished"
        if request not in self.charges:
            return "unknown"
        charge = self.charges[request]
        if charge is None:
            return "open"
        self.refunded.add(request)
        for account in accounts(request):
            self.spent[account] -= charge
        for account in self.from_credit[request]:
            self.credit_spent[account] -= charge
        return "refunded" if charge else "nothing_to_refund"


def accounts(request: HoldRequest) -> list[Account]:
    """The balances a call counts in."""
    return [(request.principal.org, scope) for scope in request.principal.scopes()]


class LedgerMachine(RuleBasedStateMachine):
    """Every rule does the same to Valkey and to the model, and compares what both answer."""

    requests = Bundle("requests")

    def __init__(self, benches: dict[str, Bench]) -> None:
        super().__init__()
        self.benches = benches
        self.model = Model()
        self.ids = {org: itertools.count() for org in benches}

    @initialize()
    def begin(self) -> None:
        bench = self.benches[ORGS[0]]
        bench.run(bench.redis.flushall())
        for one in self.benches.values():
            one.lay_out()

    @rule(target=requests, org=st.sampled_from(ORGS), who=st.sampled_from(CALLERS), amount=AMOUNTS)
    def call(self, org: str, who: Principal, amount: int) -> HoldRequest:
        """Same ids in both organisations: they must not meet."""
        bench = self.benches[org]
        request = bench.call(amount, who, hold_id=f"h{next(self.ids[org])}", kind="image")
        bench.run(bench.jobs.bind(job_of(request), bench.now_ms()))
        return request

    @rule(request=requests)
    def admit(self, request: HoldRequest) -> None:
        expected = self.model.verdict(request)
        try:
            decision = self.benches[request.principal.org].admit(request)
        except LedgerUnavailable:
            assert "resolved" == expected
            return
        if isinstance(decision, Admitted):
            assert "admitted" == expected
            self.model.hold(request)
        else:
            assert isinstance(decision, OverBudget)
            assert expected == ("held" if decision.only_held else "exceeded")

    @rule(request=requests, charge=st.integers(1, 120))
    def settle(self, request: HoldRequest, charge: int) -> None:
        """Often above the hold: what the upstream billed is booked whole."""
        changed = self.benches[request.principal.org].settle(request, capture(charge))
        assert self.model.settle(request, charge, release=False) == changed

    @rule(request=requests)
    def release(self, request: HoldRequest) -> None:
        changed = self.benches[request.principal.org].settle(request, RELEASE)
        assert self.model.settle(request, 0, release=True) == changed

    @rule(request=requests)
    def refund(self, request: HoldRequest) -> None:
        assert self.model.refund(request) == self.benches[request.principal.org].refund(job_of(request))

    @rule(org=st.sampled_from(ORGS), limit=st.sampled_from([0, 39, 100, 250, 2**41]), above=st.integers(0, 3))
    def limit(self, org: str, limit: int, above: int) -> None:
        """Raised and lowered while calls run; lowered below what is spent, a limit refuses and takes nothing."""
        scope = (Scope("organisation", org), RED, NOTEBOOK, DESK)[above]
        self.model.limits[org, scope] = limit
        self.put_budgets(org, scope)

    @rule(org=st.sampled_from(ORGS), scope=st.sampled_from(PAYERS), on=st.booleans())
    def pay_ahead(self, org: str, scope: Scope, on: bool) -> None:
        """Given and taken away while calls run: each keeps to what it was admitted under."""
        (self.model.pays_ahead.add if on else self.model.pays_ahead.discard)((org, scope))
        self.put_budgets(org, scope)

    @rule(
        org=st.sampled_from(ORGS),
        scope=st.sampled_from(PAYERS),
        source=st.sampled_from([None, RED, BLUE]),
        amount=st.sampled_from([30, 200]),
        number=st.integers(0, 20),
    )
    def pay(self, org: str, scope: Scope, source: Scope | None, amount: int, number: int) -> None:
        """Credits and transfers, some of them sent twice, some under an id that was used."""
        source = None if source == scope or scope.kind != "team" else source
        paid = self.benches[org].pay(scope, amount, source=source, payment_id=f"c{number}")
        outcome = paid.reason if isinstance(paid, NotPaid) else "repeated" if paid.repeated else "done"
        assert self.model.pay(f"c{number}", org, scope, amount, source) == outcome

    def put_budgets(self, org: str, scope: Scope) -> None:
        limit, ahead = self.model.limits.get((org, scope)), (org, scope) in self.model.pays_ahead
        budgets = [Budget("total", limit)] if limit is not None else []
        self.benches[org].change(scope, budgets=(*budgets, *([Budget("prepaid")] if ahead else [])))

    @rule(org=st.sampled_from(ORGS), what=st.sampled_from(["project", "forget scripts"]))
    def meanwhile(self, org: str, what: str) -> None:
        """What happens beside the calls and must not show."""
        bench = self.benches[org]
        bench.run(bench.reports.catch_up(org) if what == "project" else bench.redis.script_flush())

    @invariant()
    def the_books_are_right(self) -> None:
        """All invariants of `gateway.billing.ledger`, and every balance as the model has it."""
        for org, bench in self.benches.items():
            books = bench.books()
            assert [] == violations(books)
            for scope, spent in books.spent.items():
                assert self.model.spent[org, scope] == spent
                assert self.model.held[org, scope] == books.held[scope]
                account = (org, scope)
                expected = (self.model.paid_in, self.model.credit_spent, self.model.credit_held)
                assert Credit(*(numbers[account] for numbers in expected)) == books.credit[scope]


def job_of(request: HoldRequest) -> Job:
    """Each call of this test has an image job of its own."""
    return Job(f"{request.principal.org}-{request.hold_id}", request.principal.key, request, 1)


@pytest.mark.slow
def test_the_ledger_does_what_its_model_does(redis_url: str) -> None:
    """Whatever order calls, ends, repeats, refunds and changed limits come in."""
    with open_bench(redis_url, *ORGS) as benches:

        class Machine(LedgerMachine):
            def __init__(self) -> None:
                super().__init__({bench.org: bench for bench in benches})

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=100,
                stateful_step_count=20,
                deadline=None,
                database=None,
                phases=(Phase.generate,),  # to shrink a failure takes minutes; its steps are printed anyway
                suppress_health_check=list(HealthCheck),
            ),
        )
