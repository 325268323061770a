"""Admission: a hold at every scope above a call, or nothing at all."""

import struct
from typing import Any

import pytest

from gateway.billing.budget import WINDOWS, Budget, Window
from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import violations
from gateway.billing.principal import Principal, Scope
from gateway.billing.scope import ScopeSettings
from gateway.store.admission import Admitted, OverBudget, Refused
from gateway.store.scripts import load
from tests.store.bench import (
    AN,
    BLUE,
    BY_NOTEBOOK,
    BY_ROBOT,
    DAY_MS,
    DESK,
    NOTEBOOK,
    ORG,
    ORGANISATION,
    RED,
    ROBOT,
    Bench,
    capture,
)

NANO_USD_MAX = 2**53 - 1
ABOVE_NOTEBOOK = (ORGANISATION, RED, AN, NOTEBOOK)


def test_a_hold_stands_at_every_scope_above_the_call(bench: Bench) -> None:
    """And nowhere else; in every window, whether a budget counts in it or not."""
    assert isinstance(bench.admit(bench.call(100)), Admitted)
    for scope in ABOVE_NOTEBOOK:
        for window in WINDOWS:
            assert (0, 100) == bench.spent_and_held(scope, window)
    assert [(0, 0)] * 3 == [bench.spent_and_held(scope) for scope in (BLUE, DESK, ROBOT)]
    assert [] == violations(bench.books())


def test_a_key_without_a_user_has_three_scopes(bench: Bench) -> None:
    """A team's own key: no user is held for it."""
    bench.admit(bench.call(100, BY_ROBOT))
    assert [(0, 100)] * 3 == [bench.spent_and_held(scope) for scope in (ORGANISATION, RED, ROBOT)]
    assert (0, 0) == bench.spent_and_held(AN)


@pytest.mark.parametrize("scope", ABOVE_NOTEBOOK)
@pytest.mark.parametrize("window", ["total", "day", "week", "month"])
def test_each_scope_refuses_in_each_window(bench: Bench, scope: Scope, window: Window) -> None:
    """A call that fits exactly passes; one nano-dollar more is refused, and says what stands where."""
    bench.limit(scope, 100, window)
    request = bench.call(40)
    bench.admit(request)
    bench.settle(request, capture(30))
    assert isinstance(bench.admit(bench.call(70)), Admitted)
    before = bench.everything()
    refused = bench.admit(bench.call(1))
    span = bench.calendar.spans_at(bench.now_ms()).of(window)
    assert OverBudget(scope, window, span, 100, 30, 70, 1, only_held=True, retry_after_ms=2000) == refused
    assert before == bench.everything()


def test_what_is_spent_is_402_and_what_is_held_is_429(bench: Bench) -> None:
    """Spent money stays away, held money may come back within seconds; a client does well to know which."""
    bench.limit(RED, 100)
    first = bench.call(60)
    bench.admit(first)
    held = bench.admit(bench.call(50))
    assert isinstance(held, OverBudget)
    assert held.only_held
    assert 40 == held.room_nano_usd  # to count its tokens is in vain where they cost more: nothing waits for that
    bench.settle(first, capture(60))
    spent = bench.admit(bench.call(50))
    assert isinstance(spent, OverBudget)
    assert not spent.only_held
    assert 40 == spent.room_nano_usd


def test_a_budget_of_nothing_admits_nothing(bench: Bench) -> None:
    """A limit of zero is a limit."""
    bench.limit(NOTEBOOK, 0)
    assert isinstance(bench.admit(bench.call(1)), OverBudget)


def test_a_refusal_writes_nothing(bench: Bench) -> None:
    """The innermost scope refuses: those above it, looked at before, hold nothing."""
    bench.limit(NOTEBOOK, 99)
    before = bench.everything()
    assert isinstance(bench.admit(bench.call(100)), OverBudget)
    assert before == bench.everything()


REFUSALS: list[tuple[str, Scope, dict[str, Any]]] = [
    ("revoked", NOTEBOOK, {"revoked_at_ms": 1}),
    ("expired", NOTEBOOK, {"expires_at_ms": 1}),
    ("blocked", ORGANISATION, {"blocked": True}),
    ("blocked", RED, {"blocked": True}),
    ("blocked", AN, {"blocked": True}),
    ("blocked", NOTEBOOK, {"blocked": True}),
    ("model_not_allowed", ORGANISATION, {"models": ("gpt-4o",)}),
    ("model_not_allowed", RED, {"models": ("gpt-4o",)}),
    ("model_not_allowed", NOTEBOOK, {"models": ("gpt-4o",)}),
    ("budget", ORGANISATION, {"budgets": (Budget("month", 0),)}),
    ("budget", RED, {"budgets": (Budget("day", 0),)}),
]


def test_refusals_come_in_one_order(bench: Bench) -> None:
    """401, 403, 402; within each the outermost scope first. All reasons stand at once, and are taken away in turn."""
    settings: dict[Scope, dict[str, Any]] = {}
    for _, scope, change in REFUSALS:
        settings.setdefault(scope, {}).update(change)
    for scope, changes in settings.items():
        bench.change(scope, **changes)
    allowed = {"revoked_at_ms": 0, "expires_at_ms": 0, "blocked": False, "models": None, "budgets": ()}
    for reason, scope, change in REFUSALS:
        decision = bench.admit(bench.call(1))
        if reason == "budget":
            assert isinstance(decision, OverBudget)
            assert scope == decision.scope
        else:
            assert Refused(reason, scope) == decision
        bench.change(scope, **{name: allowed[name] for name in change})
    assert isinstance(bench.admit(bench.call(1)), Admitted)


@pytest.mark.parametrize(
    ("who", "scope"),
    [
        (Principal(ORG, "green", "an", "notebook"), Scope("team", "green")),
        (Principal(ORG, "red", "nobody", "notebook"), Scope("user", "nobody")),
        (Principal(ORG, "red", "an", "lost"), Scope("key", "lost")),
    ],
)
def test_a_scope_that_is_missing_refuses(bench: Bench, who: Principal, scope: Scope) -> None:
    """What does not exist has no budget, so nothing may be spent on it."""
    before = bench.everything()
    assert Refused("unknown_scope", scope) == bench.admit(bench.call(1, who))
    assert before == bench.everything()


@pytest.mark.parametrize("model", ["gpt-4", "gpt-4o-mini\n", "4o", ".*", "gpt-4o-", ""])
def test_an_allow_list_takes_whole_names_only(bench: Bench, model: str) -> None:
    """The list is searched as text: a part of a name or a pattern must not match."""
    bench.change(RED, models=("gpt-4o", "gpt-4.1"))
    assert Refused("model_not_allowed", RED) == bench.admit(bench.call(1, model=model))
    assert isinstance(bench.admit(bench.call(1, model="gpt-4.1")), Admitted)


def test_an_empty_allow_list_allows_nothing(bench: Bench) -> None:
    """It is not the absent list, which allows every model."""
    bench.change(RED, models=())
    assert () == bench.state(RED).models
    assert Refused("model_not_allowed", RED) == bench.admit(bench.call(1))


def test_the_same_id_is_one_hold(bench: Bench) -> None:
    """An admission whose answer was lost is sent again: it answers as the first time and holds nothing more."""
    request = bench.call(100)
    first = bench.admit(request)
    assert first == bench.admit(request)
    assert (0, 100) == bench.spent_and_held(RED)


def test_an_id_that_has_ended_is_not_admitted_again(bench: Bench) -> None:
    """Its charge is in the books; under that id nothing can be spent any more."""
    request = bench.call(100)
    bench.admit(request)
    bench.settle(request, capture(80))
    before = bench.everything()
    with pytest.raises(LedgerUnavailable, match="already ended"):
        bench.admit(request)
    assert before == bench.everything()


def test_a_hundred_callers_share_what_a_budget_has_room_for(bench: Bench) -> None:
    """At once, at two scopes with different room: exactly as many pass as the tighter one has room for."""
    bench.limit(RED, 1_000)
    bench.limit(NOTEBOOK, 790)
    decisions = bench.together([bench.ledger.admit(bench.call(100)) for _ in range(100)])
    assert 7 == sum(isinstance(decision, Admitted) for decision in decisions)
    assert {NOTEBOOK} == {decision.scope for decision in decisions if isinstance(decision, OverBudget)}
    assert (0, 700) == bench.spent_and_held(RED)
    assert [] == violations(bench.books())


def test_a_hundred_times_the_same_id_at_once_is_one_hold(bench: Bench) -> None:
    """However often it is sent, and in whatever order it arrives."""
    request = bench.call(100)
    decisions = bench.together([bench.ledger.admit(request) for _ in range(100)])
    assert 1 == len(set(decisions))
    assert (0, 100) == bench.spent_and_held(ORGANISATION)


def test_windows_that_never_contain_the_time_are_refused(bench: Bench) -> None:
    """Three tries, then 503: better no call than one in the wrong month."""
    never = bench.at_windows(starts_ms=bench.now_ms() + DAY_MS // 2)
    before = bench.everything()
    with pytest.raises(LedgerUnavailable, match="clock"):
        bench.run(never.admit(bench.call(1)))
    assert before == bench.everything()


def test_a_window_that_ends_gives_its_budget_back(bench: Bench) -> None:
    """What was spent and held in the old window is the old one's; the total goes on."""
    bench.limit(RED, 100, "day")
    yesterday, today = bench.at_windows(days_ago=1), bench.at_windows()
    spent, running = bench.call(60), bench.call(40)
    bench.run(yesterday.admit(spent))
    bench.run(yesterday.admit(running))
    bench.settle(spent, capture(60))
    assert isinstance(bench.run(yesterday.admit(bench.call(1))), OverBudget)
    assert isinstance(bench.run(today.admit(bench.call(100))), Admitted)
    assert (60, 140) == bench.spent_and_held(RED, "total")
    assert [] == violations(bench.books())


def test_a_window_never_moves_backwards(bench: Bench) -> None:
    """A clock that is set back, or a gateway with another idea of the week, does not hand out a budget twice."""
    bench.limit(RED, 100, "week")
    today, last_week = bench.at_windows(), bench.at_windows(days_ago=7)
    first = bench.call(100)
    bench.run(today.admit(first))
    bench.settle(first, capture(100))
    refused = bench.run(last_week.admit(bench.call(1)))
    assert isinstance(refused, OverBudget)
    assert (RED, 100, 0) == (refused.scope, refused.spent_nano_usd, refused.held_nano_usd)
    assert isinstance(bench.run(today.admit(bench.call(1))), OverBudget)


def test_scopes_roll_together(bench: Bench) -> None:
    """A scope that nobody used today catches up with the others in the same admission."""
    yesterday, today = bench.at_windows(days_ago=1), bench.at_windows()
    old = bench.call(10)
    bench.run(yesterday.admit(old))
    bench.run(today.admit(bench.call(20, BY_ROBOT)))
    bench.run(yesterday.admit(bench.call(30, BY_NOTEBOOK)))
    bench.settle(old, capture(10))
    moving = [bench.state(scope)._windows["day"][1:] for scope in ABOVE_NOTEBOOK]
    assert [(0, 50), (0, 50), (0, 30), (0, 30)] == moving
    assert [] == violations(bench.books())


@pytest.mark.parametrize("amount", [1, 2**31, 2**53 - 2, NANO_USD_MAX])
def test_amounts_are_exact_up_to_their_bound(bench: Bench, amount: int) -> None:
    """Lua counts in doubles; below 2^53 each whole number is one."""
    bench.limit(RED, NANO_USD_MAX)
    request = bench.call(amount)
    assert isinstance(bench.admit(request), Admitted)
    assert (0, amount) == bench.spent_and_held(RED)
    bench.settle(request, capture(amount))
    assert (amount, 0) == bench.spent_and_held(RED)
    assert [amount] == [entry.cost_nano_usd for entry in bench.entries()]


def test_no_balance_grows_past_what_is_exact(bench: Bench) -> None:
    """Without any limit the bound is 2^53 - 1: past it, sums would silently be wrong."""
    bench.admit(bench.call(NANO_USD_MAX))
    refused = bench.admit(bench.call(1))
    assert isinstance(refused, OverBudget)
    assert refused.only_held


@pytest.mark.parametrize("number", range(14))
@pytest.mark.parametrize("value", [-1, 1.5, float("nan"), float("inf"), 2**53, 1e300, 5e-324])
def test_what_is_no_amount_ends_the_script_before_it_writes(bench: Bench, number: int, value: float) -> None:
    """Every number among the arguments, and all that a double can be beside an amount."""
    now_ms = bench.now_ms()
    span = [now_ms - 1000, now_ms + 100_000]
    amounts: list[float] = [1, 1000, 0, 0, *span, *span, *span, 0, 0, 0, 0]
    assert b"admitted" == run_admit(bench, struct.pack("<14d", *amounts), "right")[0]
    amounts[number] = value
    before = bench.everything()
    with pytest.raises(LedgerUnavailable):
        run_admit(bench, struct.pack("<14d", *amounts), "h")
    assert before == bench.everything()


@pytest.mark.parametrize("count", [0, 1, 13, 15])
def test_too_few_or_too_many_amounts_end_the_script_before_it_writes(bench: Bench, count: int) -> None:
    """A gateway of another version would have them in other places."""
    before = bench.everything()
    with pytest.raises(LedgerUnavailable):
        run_admit(bench, struct.pack(f"<{count}d", *range(count)), "h")
    assert before == bench.everything()


def run_admit(bench: Bench, amounts: bytes, hold_id: str) -> list[object]:
    keys = [bench.keys.hold(hold_id), bench.keys.leases, bench.keys.price_lists]
    keys += [bench.keys.state(scope) for scope in ABOVE_NOTEBOOK]
    return bench.run(bench.scripts.run(load("admit"), keys, [hold_id, amounts, "gpt-4o-mini", "{}", "v1"]))


def test_two_organisations_share_nothing(bench: Bench) -> None:
    """The same names in another organisation are other scopes."""
    bench.limit(RED, 100)
    bench.run(bench.scopes.create("other", ScopeSettings("team", "red")))
    assert Refused("unknown_scope", Scope("organisation", "other")) == bench.admit(
        bench.call(1)._replace(principal=Principal("other", "red", "an", "notebook"))
    )
    bench.admit(bench.call(100))
    other, _ = bench.run(bench.scopes.get("other", RED))
    assert () == other.budgets
