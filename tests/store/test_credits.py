"""Prepaid credit: what is paid in can be spent, once, and moved, and nothing else changes it."""

from dataclasses import replace

import pytest

from gateway.billing.budget import Budget
from gateway.billing.credit import NotPaid, Paid
from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import RELEASE, Credit, violations
from gateway.billing.money import NANO_USD_MAX
from gateway.billing.principal import Scope
from gateway.store.admission import Admitted, OverBudget
from gateway.store.ledger import TOMBSTONE_MS
from gateway.store.scripts import load
from tests.store.bench import (
    AN,
    BINH,
    BLUE,
    BY_DESK,
    BY_ROBOT,
    DESK,
    NOTEBOOK,
    ORGANISATION,
    RED,
    ROBOT,
    Bench,
    capture,
)

ABOVE_NOTEBOOK = (ORGANISATION, RED, AN, NOTEBOOK)


@pytest.mark.parametrize("scope", ABOVE_NOTEBOOK, ids=lambda scope: scope.kind)
def test_what_is_paid_in_can_be_spent_and_no_more(bench: Bench, scope: Scope) -> None:
    """At each scope: running calls are waited for (429), what is spent is gone (402) until someone pays in."""
    bench.prepaid(scope, 100)
    first = bench.call(60)
    assert isinstance(bench.admit(first), Admitted)
    before = bench.everything()
    held = bench.admit(bench.call(50))
    assert isinstance(held, OverBudget)
    assert (scope, "prepaid", None, 100, 0, 60, True) == (
        held.scope, held.window, held.span.end_ms, held.limit_nano_usd, held.spent_nano_usd, held.held_nano_usd,
        held.only_held,
    )  # fmt: skip
    assert before == bench.everything()
    bench.settle(first, capture(60))
    spent = bench.admit(bench.call(50))
    assert isinstance(spent, OverBudget)
    assert (False, 40) == (spent.only_held, spent.room_nano_usd)
    bench.pay(scope, 10)
    assert isinstance(bench.admit(bench.call(50)), Admitted)
    assert (110, 60, 50) == bench.credit(scope)
    assert [] == violations(bench.books())


def test_without_credit_nothing_is_admitted(bench: Bench) -> None:
    """A prepaid budget that nobody paid into is empty, not endless."""
    bench.prepaid(RED)
    assert isinstance(bench.admit(bench.call(1)), OverBudget)


def test_what_was_spent_before_is_not_taken_from_credit(bench: Bench) -> None:
    """Nor what was running when the budget came: only calls that were admitted against credit are paid from it."""
    spent, running = bench.call(100), bench.call(100)
    for request in (spent, running):
        bench.admit(request)
    bench.settle(spent, capture(70))
    bench.prepaid(RED, 50)
    bench.settle(running, capture(80))
    assert (50, 0, 0) == bench.credit(RED)
    assert isinstance(bench.admit(bench.call(50)), Admitted)
    assert [] == violations(bench.books())


def test_credit_outlives_its_budget(bench: Bench) -> None:
    """Taken away and given again, it goes on where it stood; a call keeps to what it was admitted under."""
    bench.prepaid(RED, 100)
    running = bench.call(60)
    bench.admit(running)
    bench.change(RED, budgets=())
    assert {} == bench.state(RED).limits
    free = bench.call(1_000)
    bench.admit(free)
    bench.settle(running, capture(55))
    bench.settle(free, capture(900))
    bench.change(RED, budgets=(Budget("prepaid"), Budget("total", 10_000)))
    assert {"total": 10_000, "prepaid": 100} == bench.state(RED).limits
    assert (100, 55, 0) == bench.credit(RED)
    assert [] == violations(bench.books())


def test_a_refund_comes_back_as_credit(bench: Bench) -> None:
    """A failed image costs nothing, from whatever it was paid; its entries say that it was credit."""
    bench.prepaid(AN, 5_000)
    job = bench.submitted_job(2_000)
    assert (5_000, 2_000, 0) == bench.credit(AN)
    bench.refund(job)
    assert (5_000, 0, 0) == bench.credit(AN)
    assert [(), ("user",), ("user",)] == [entry.paid_by for entry in bench.entries()]
    assert [] == violations(bench.books())


def test_a_key_without_a_user_pays_from_its_own_level(bench: Bench) -> None:
    """Its third scope is the key, not a user."""
    bench.prepaid(ROBOT, 100)
    request = bench.call(40, BY_ROBOT)
    bench.admit(request)
    assert [("key",)] == [hold.paid_by for hold in bench.run(bench.ledger.open_holds(bench.org))]
    bench.settle(request, capture(30))
    assert [(), ("key",)] == [entry.paid_by for entry in bench.entries()]
    assert [] == violations(bench.books())


def test_a_credit_is_an_entry(bench: Bench) -> None:
    """With who paid and why; it costs nothing, stands in no report, and is listed apart as well."""
    bench.prepaid(AN)
    paid = bench.pay(AN, 100)
    assert isinstance(paid, Paid)
    (entry,) = bench.entries()
    assert ("credit", 100, 0, paid.entry_id, paid.at_ms) == (
        entry.type, entry.credit_nano_usd, entry.cost_nano_usd, entry.id, entry.at_ms,
    )  # fmt: skip
    assert ("red", "an", "", "November", "admin", "") == (
        entry.team, entry.user, entry.key, entry.note, entry.author, entry.counterpart,
    )  # fmt: skip
    assert AN == entry.innermost
    assert Credit(100) == paid.credit
    assert [entry] == bench.run(bench.ledger.credits(bench.org))
    now_ms = bench.now_ms()
    for axis in ("team", "user", "key"):
        assert [] == bench.listed(bench.reports.over(bench.org, axis, now_ms - 60_000, now_ms + 60_000))
        assert [] == bench.listed(
            bench.reports.cells(bench.org, axis, "day", [bench.calendar.date_at(now_ms).isoformat()])
        )


def test_a_transfer_is_two_entries_that_add_up_to_nothing(bench: Bench) -> None:
    """Each at its scope, naming the other; both or none."""
    bench.prepaid(RED, 100)
    bench.prepaid(BLUE)
    assert isinstance(bench.pay(BLUE, 30, source=RED), Paid)
    _, taken, given = bench.entries()
    assert ("transfer", RED, -30, "blue") == (taken.type, taken.innermost, taken.credit_nano_usd, taken.counterpart)
    assert ("transfer", BLUE, 30, "red") == (given.type, given.innermost, given.credit_nano_usd, given.counterpart)
    assert taken.hold_id == given.hold_id
    assert [(70, 0, 0), (30, 0, 0)] == [bench.credit(scope) for scope in (RED, BLUE)]
    assert [] == violations(bench.books())


def test_a_transfer_leaves_what_running_calls_hold(bench: Bench) -> None:
    """Balance less held is what may go; a refused one changes nothing."""
    bench.prepaid(RED, 100)
    bench.prepaid(BLUE)
    spent, running = bench.call(20), bench.call(50)
    for request in (spent, running):
        bench.admit(request)
    bench.settle(spent, capture(20))
    before = bench.everything()
    assert NotPaid("too_little", RED, Credit(100, 20, 50)) == bench.pay(BLUE, 31, source=RED)
    assert before == bench.everything()
    assert isinstance(bench.pay(BLUE, 30, source=RED), Paid)
    assert isinstance(bench.admit(bench.call(1)), OverBudget)
    bench.settle(running, RELEASE)
    assert isinstance(bench.admit(bench.call(50)), Admitted)


def test_credit_goes_only_where_it_can_be_spent(bench: Bench) -> None:
    """A scope without a prepaid budget would swallow it; but what a scope has left can be taken from it at any time."""
    before = bench.everything()
    assert NotPaid("not_prepaid", RED) == bench.pay(RED, 100)
    assert before == bench.everything()
    bench.prepaid(RED, 100)
    bench.change(RED, budgets=())
    bench.prepaid(BLUE)
    assert isinstance(bench.pay(BLUE, 100, source=RED), Paid)


def test_no_more_is_paid_in_than_can_be_counted(bench: Bench) -> None:
    """Nine million dollars, in one credit or many."""
    bench.prepaid(RED, NANO_USD_MAX)
    assert (NANO_USD_MAX, 0, 0) == bench.credit(RED)
    assert NotPaid("too_much", RED, Credit(NANO_USD_MAX)) == bench.pay(RED, 1)
    assert [] == violations(bench.books())


def test_the_same_id_pays_once(bench: Bench) -> None:
    """Sent again after a lost answer, or by fifty callers at once: one entry, and everyone hears the same."""
    bench.prepaid(RED)
    answers = bench.together([bench.paying(RED, 100, payment_id="once") for _ in range(50)])
    assert all(isinstance(answer, Paid) for answer in answers)
    assert 49 == sum(isinstance(answer, Paid) and answer.repeated for answer in answers)
    assert 1 == len({replace(answer, repeated=False) for answer in answers if isinstance(answer, Paid)})
    bench.pay(RED, 5)
    again = bench.pay(RED, 100, payment_id="once")
    assert isinstance(again, Paid)
    assert Credit(100) == again.credit
    assert (105, 0, 0) == bench.credit(RED)
    remembered_ms = bench.run(bench.redis.pttl(bench.keys.receipt("once")))
    assert TOMBSTONE_MS - 60_000 < remembered_ms <= TOMBSTONE_MS


def test_an_id_stands_for_one_wish(bench: Bench) -> None:
    """Another amount or another way under the same id is a mistake of the caller, and changes nothing."""
    bench.prepaid(RED)
    bench.prepaid(BLUE)
    bench.pay(RED, 100, payment_id="once")
    before = bench.everything()
    assert NotPaid("conflict", RED) == bench.pay(RED, 101, payment_id="once")
    assert NotPaid("conflict", BLUE) == bench.pay(BLUE, 100, payment_id="once")
    assert NotPaid("conflict", RED) == bench.pay(RED, 100, source=BLUE, payment_id="once")
    assert before == bench.everything()


def test_a_refused_payment_is_not_remembered(bench: Bench) -> None:
    """Once the reason is gone, the same id works."""
    bench.prepaid(RED)
    bench.prepaid(BLUE)
    assert isinstance(bench.pay(RED, 10, source=BLUE, payment_id="later"), NotPaid)
    bench.pay(BLUE, 10)
    assert isinstance(bench.pay(RED, 10, source=BLUE, payment_id="later"), Paid)


def test_two_hundred_callers_spend_pay_and_move_at_once(bench: Bench) -> None:
    """Two teams that spend, pay in and give to one another: nobody spends or gives what is not there."""
    bench.prepaid(RED, 2_000)
    bench.prepaid(BLUE, 2_000)

    async def act(number: int) -> None:
        match number % 5:
            case 0:
                await bench.paying(RED, 10)
            case 1:
                await bench.paying(BLUE, 700, source=RED)
            case 2:
                await bench.paying(RED, 900, source=BLUE)
            case _:
                request = bench.call(100, BY_DESK) if number % 2 else bench.call(100)
                if isinstance(await bench.ledger.admit(request), Admitted):
                    await bench.ledger.settle(request, capture(number % 100))

    bench.together([act(number) for number in range(200)])
    books = bench.books()
    assert [] == violations(books)
    assert 4_400 == sum(credit.paid_in_nano_usd for credit in books.credit.values())
    assert all(credit.free_nano_usd >= 0 for credit in books.credit.values())


def test_two_hundred_transfers_of_the_same_money_move_it_once(bench: Bench) -> None:
    """A hundred to each of two siblings, and enough for seven."""
    bench.put(replace(bench.run(bench.scopes.get(bench.org, RED))[0], id="green"))
    for team in (BLUE, Scope("team", "green")):
        bench.prepaid(team)
    bench.prepaid(RED, 700)
    teams = (BLUE, Scope("team", "green"))
    answers = bench.together([bench.paying(teams[number % 2], 100, source=RED) for number in range(200)])
    assert 7 == sum(isinstance(answer, Paid) for answer in answers)
    assert (0, 0, 0) == bench.credit(RED)
    assert 700 == sum(bench.credit(team)[0] for team in teams)


def test_all_levels_can_be_paid_ahead(bench: Bench) -> None:
    """The outermost that has too little says so."""
    for scope in (RED, BLUE, AN, BINH, NOTEBOOK, DESK):
        bench.prepaid(scope, 100)
    bench.pay(NOTEBOOK, 100)
    refused = bench.admit(bench.call(150))
    assert isinstance(refused, OverBudget)
    assert RED == refused.scope
    request = bench.call(100)
    bench.admit(request)
    bench.settle(request, capture(90))
    assert ("team", "user", "key") == bench.entries()[-1].paid_by
    assert [] == violations(bench.books())


@pytest.mark.parametrize("amount", ["0", "-1", "1.5", "", str(NANO_USD_MAX + 1)])
def test_what_is_no_amount_changes_nothing(bench: Bench, amount: str) -> None:
    """A negative credit would take money without a trace of who has it."""
    bench.prepaid(RED, 100)
    keys = [bench.keys.receipt("x"), bench.keys.ledger, bench.keys.credits, bench.keys.state(RED)]
    before = bench.everything()
    with pytest.raises(LedgerUnavailable):
        bench.run(bench.scripts.run(load("credit"), keys, ["x", amount, "d", 1000, "{}", ""]))
    assert before == bench.everything()
