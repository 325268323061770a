"""Rate limits in the admission script: each at each scope, under two hundred callers at once."""

import math

import pytest

from gateway.billing.errors import GatewayError
from gateway.billing.ledger import RELEASE, Posting
from gateway.billing.limits import RATE_OF_LIMIT, RATES, Left, Limits, Rate
from gateway.billing.principal import Scope
from gateway.billing.usage import Usage
from gateway.store.admission import Admitted, Decision, HoldRequest, OverBudget, RateLimited, Refused
from gateway.store.packed import tightest
from tests.e2e.waiting import until
from tests.store.bench import AN, BY_DESK, BY_NOTEBOOK, BY_ROBOT, NOTEBOOK, ORGANISATION, RED, Bench

CALLERS = 200
HELD_WAIT_MS = 2000
ABOVE_THE_CALL = (ORGANISATION, RED, AN, NOTEBOOK)


def limits(**given: int) -> Limits:
    return Limits(**given)


def rated(bench: Bench, scope: Scope, **given: int) -> None:
    bench.change(scope, limits=limits(**given))


def call_of(bench: Bench, rate: Rate) -> HoldRequest:
    """A call that takes one of the rate (ten tokens)."""
    return bench.call(1, tokens=10 if rate == "tokens" else 0, images=1 if rate == "images" else 0)


@pytest.mark.parametrize("scope", ABOVE_THE_CALL, ids=lambda scope: scope.kind)
@pytest.mark.parametrize("rate", RATES)
def test_two_hundred_callers_get_the_limit_and_its_refill(bench: Bench, scope: Scope, rate: Rate) -> None:
    """Never more than the limit plus what came back in the span, measured by Redis's clock; never fewer than the limit.
    Calls at once and tokens of running calls do not come back by time. A team that has no limit feels nothing."""
    name = next(name for name, limited in RATE_OF_LIMIT.items() if limited == rate)
    most = 50
    rated(bench, scope, **{name: most * 10 if rate == "tokens" else most})
    start_ms = bench.now_ms()
    decisions = bench.together([bench.ledger.admit(call_of(bench, rate)) for _ in range(CALLERS)])
    span_ms = bench.now_ms() - start_ms
    admitted = sum(isinstance(decision, Admitted) for decision in decisions)
    refilled = math.ceil(span_ms * most / 60_000) if rate in ("requests", "images") else 0
    assert most <= admitted <= most + refilled
    refused = [decision for decision in decisions if not isinstance(decision, Admitted)]
    assert all(isinstance(decision, RateLimited) for decision in refused)
    assert {(scope, rate)} == {(d.scope, d.rate) for d in refused if isinstance(d, RateLimited)}
    if scope != ORGANISATION:
        stranger = bench.call(1, BY_DESK, tokens=10, images=1)
        assert isinstance(bench.admit(stranger), Admitted)


@pytest.mark.parametrize("rate", RATES)
def test_a_refused_call_consumes_nothing(bench: Bench, rate: Rate) -> None:
    """Neither at the scope that refuses nor at those above and below it: no byte in Redis changes."""
    name = next(name for name, limited in RATE_OF_LIMIT.items() if limited == rate)
    rated(bench, RED, **{name: 10 if rate == "tokens" else 1})
    rated(bench, NOTEBOOK, requests_per_minute=1000)
    bench.admit(call_of(bench, rate))
    before = bench.everything()
    assert isinstance(bench.admit(call_of(bench, rate)), RateLimited)
    assert before == bench.everything()


def test_what_is_refused_may_be_tried_again_after_the_time_it_is_told(bench: Bench) -> None:
    """Six a minute are one every ten seconds: the seventh hears of at most that."""
    rated(bench, RED, requests_per_minute=6)
    for _ in range(6):
        assert isinstance(bench.admit(bench.call(1)), Admitted)
    refused = bench.admit(bench.call(1))
    assert isinstance(refused, RateLimited)
    assert refused.retry_after_ms is not None
    assert 0 < refused.retry_after_ms <= 10_000


def test_a_call_above_a_whole_minutes_worth_is_told_so(bench: Bench) -> None:
    """Waiting would not help, so it is no 429."""
    rated(bench, RED, tokens_per_minute=100)
    assert RateLimited(RED, "tokens", 100, None) == bench.admit(bench.call(1, tokens=101))


def test_unused_tokens_come_back_at_settlement(bench: Bench) -> None:
    """A call that may use 90 of 100 tokens holds off another such one; used 10, it leaves room for 90 again."""
    rated(bench, RED, tokens_per_minute=100)
    first = bench.call(1, tokens=90)
    bench.admit(first)
    assert isinstance(bench.admit(bench.call(1, tokens=90)), RateLimited)
    bench.settle(first, Posting("capture", 1, Usage(prompt_tokens=6, completion_tokens=4)))
    assert isinstance(bench.admit(bench.call(1, tokens=90)), Admitted)


def test_a_released_call_gives_all_its_tokens_back(bench: Bench) -> None:
    """Nothing was used."""
    rated(bench, RED, tokens_per_minute=100)
    first = bench.call(1, tokens=100)
    bench.admit(first)
    bench.settle(first, RELEASE)
    assert isinstance(bench.admit(bench.call(1, tokens=100)), Admitted)


def test_used_tokens_are_never_above_the_limit_and_its_refill(bench: Bench) -> None:
    """Calls one after the other, as fast as they go: however often tokens are set aside and given back, what is used in
    the span is within the limit plus the refill of the span."""
    rated(bench, NOTEBOOK, tokens_per_minute=600)
    start_ms, used = bench.now_ms(), 0
    for _ in range(60):
        call = bench.call(1, tokens=50)
        if isinstance(bench.admit(call), Admitted):
            bench.settle(call, Posting("capture", 1, Usage(prompt_tokens=20, completion_tokens=20)))
            used += 40
    span_ms = bench.now_ms() - start_ms
    assert 560 <= used <= 600 + math.ceil(span_ms * 600 / 60_000)


def test_calls_at_once_count_open_holds(bench: Bench) -> None:
    """The place is free again when a call ends, however it ends."""
    rated(bench, AN, concurrent_requests=2)
    first, second = bench.call(1), bench.call(1)
    bench.admit(first)
    bench.admit(second)
    assert isinstance(bench.admit(bench.call(1)), RateLimited)
    bench.settle(first, RELEASE)
    assert isinstance(bench.admit(bench.call(1)), Admitted)


def test_spent_money_is_told_before_a_used_up_rate(bench: Bench) -> None:
    """402 before 429: waiting for the rate would be in vain."""
    rated(bench, ORGANISATION, requests_per_minute=1)
    bench.admit(bench.call(1))
    bench.limit(NOTEBOOK, 0)
    refused = bench.admit(bench.call(1))
    assert isinstance(refused, OverBudget)
    assert NOTEBOOK == refused.scope
    bench.change(RED, blocked=True)
    assert Refused("blocked", RED) == bench.admit(bench.call(1))


def test_the_outermost_used_up_rate_is_told(bench: Bench) -> None:
    """Of several."""
    for scope in (NOTEBOOK, RED):
        rated(bench, scope, concurrent_requests=1)
    bench.admit(bench.call(1))
    refused = bench.admit(bench.call(1))
    assert isinstance(refused, RateLimited)
    assert RED == refused.scope


@pytest.mark.parametrize("rate", ["requests", "tokens", "images"])
def test_a_clock_that_was_set_back_locks_nobody_out(bench: Bench, rate: Rate) -> None:
    """A bucket that is empty for an hour was emptied by another clock: it counts as empty now, which is kept, so that
    a minute refills it. Until then nothing passes but its refill."""
    rated(bench, RED, **{f"{rate}_per_minute": 600})
    start_ms = bench.now_ms()
    bench.fill_until(RED, rate, start_ms + 3_600_000)
    first = bench.admit(call_of(bench, rate))
    assert isinstance(first, RateLimited)
    assert first.retry_after_ms is not None
    assert first.retry_after_ms <= 1000
    kept = bench.state(RED).left(rate, bench.now_ms())
    assert kept is not None
    assert kept.reset_ms <= 60_000
    until(lambda: isinstance(bench.admit(call_of(bench, rate)), Admitted))
    refill_ms = 1000 if rate == "tokens" else 100
    assert refill_ms <= bench.now_ms() - start_ms


def test_more_tokens_than_a_bucket_holds_empty_it(bench: Bench) -> None:
    """A call that used more than a whole minute's worth (the limit was lowered while it ran) empties the bucket; it is
    refilled after a minute, not after as many minutes as there were tokens."""
    running = bench.call(1, tokens=6000)
    bench.admit(running)
    rated(bench, RED, tokens_per_minute=60)
    bench.settle(running, Posting("capture", 1, Usage(prompt_tokens=3000, completion_tokens=3000)))
    refused = bench.admit(bench.call(1, tokens=60))
    assert isinstance(refused, RateLimited)
    assert refused.retry_after_ms is not None
    assert 59_000 < refused.retry_after_ms <= 60_000


def test_tokens_of_running_calls_are_not_told_as_a_refill(bench: Bench) -> None:
    """Time does not bring them back, an end of those calls does, and nobody knows when: ask again in a moment. Where
    what was used is in the way as well, its time is told."""
    rated(bench, RED, tokens_per_minute=600)
    running = bench.call(1, tokens=590)
    bench.admit(running)
    assert HELD_WAIT_MS == wait_of(bench, tokens=100)
    rated(bench, RED, tokens_per_minute=60)
    assert HELD_WAIT_MS == wait_of(bench, tokens=10)
    rated(bench, RED, tokens_per_minute=600)
    bench.settle(running, Posting("capture", 1, Usage(prompt_tokens=400, completion_tokens=100)))
    bench.admit(bench.call(1, tokens=50))
    # 500 used, 50 held: 100 more fit once 50 are back, held or not.
    assert 4_000 < wait_of(bench, tokens=100) <= 5_000
    # So do 300 once 250 are back.
    assert 24_000 < wait_of(bench, tokens=300) <= 25_000
    # 580 never fit beside the 50 that are held; without those, once 480 are back.
    assert 47_000 < wait_of(bench, tokens=580) <= 48_000


def test_the_longest_of_all_waits_is_told(bench: Bench) -> None:
    """Whoever comes back after it is not sent away by the next scope; the scope that is named stays the outermost."""
    rated(bench, RED, requests_per_minute=60)
    rated(bench, NOTEBOOK, requests_per_minute=1)
    for scope in (RED, NOTEBOOK):
        bench.fill_until(scope, "requests", bench.now_ms() + 60_000)
    refused = bench.admit(bench.call(1))
    assert isinstance(refused, RateLimited)
    assert (RED, "requests", 60) == (refused.scope, refused.rate, refused.limit)
    assert refused.retry_after_ms is not None
    assert 59_000 < refused.retry_after_ms <= 60_000


def test_money_that_is_held_waits_for_a_rate_as_well(bench: Bench) -> None:
    """429 `budget_held` names the outer scope, and the time of the inner one's rate."""
    bench.limit(RED, 10)
    bench.admit(bench.call(10, BY_ROBOT))
    assert HELD_WAIT_MS == retry_after_ms(bench.admit(bench.call(10)))
    rated(bench, NOTEBOOK, requests_per_minute=1)
    bench.fill_until(NOTEBOOK, "requests", bench.now_ms() + 60_000)
    refused = bench.admit(bench.call(10))
    assert isinstance(refused, OverBudget)
    assert (RED, True) == (refused.scope, refused.only_held)
    assert 59_000 < retry_after_ms(refused) <= 60_000


def wait_of(bench: Bench, *, tokens: int) -> int:
    """What a call of so many tokens is told to wait, in ms."""
    return retry_after_ms(bench.admit(bench.call(1, tokens=tokens)))


def retry_after_ms(refused: Decision) -> int:
    assert isinstance(refused, RateLimited | OverBudget)
    assert refused.retry_after_ms is not None
    return refused.retry_after_ms


def test_a_limit_counts_from_its_change_on(bench: Bench) -> None:
    """Set while calls run, raised, lowered, taken away: open calls stay counted, nothing else is made up."""
    running = bench.call(1, tokens=80)
    bench.admit(running)
    rated(bench, RED, tokens_per_minute=100, concurrent_requests=1)
    assert isinstance(bench.admit(bench.call(1, tokens=10)), RateLimited)
    rated(bench, RED, tokens_per_minute=100)
    assert isinstance(bench.admit(bench.call(1, tokens=30)), RateLimited)
    assert isinstance(bench.admit(bench.call(1, tokens=20)), Admitted)
    bench.change(RED, limits=Limits())
    assert isinstance(bench.admit(bench.call(1, tokens=1000)), Admitted)


def test_what_is_left_is_told_with_every_decision(bench: Bench) -> None:
    """Of several scopes the tightest; the same a look without an admission finds; never the organisation's money."""
    rated(bench, RED, requests_per_minute=10, tokens_per_minute=1000)
    rated(bench, NOTEBOOK, requests_per_minute=60)
    bench.limit(ORGANISATION, 5)
    bench.limit(NOTEBOOK, 100)
    decision = bench.admit(bench.call(3, tokens=400))
    assert isinstance(decision, Admitted)
    left = decision.allowance
    assert (Left(10, 9, 6000), Left(1000, 600, 24_000), 97) == (left.requests, left.tokens, left.budget_nano_usd)
    states, now_ms = bench.run(bench.scopes.look(BY_NOTEBOOK))
    found = tightest([state for state in states if state], bench.calendar.spans_at(now_ms), now_ms)
    assert found.requests is not None
    assert (10, 9, 97) == (found.requests.limit, found.requests.remaining, found.budget_nano_usd)
    assert found.tokens == left.tokens
    refused = bench.admit(bench.call(3, tokens=400))
    assert isinstance(refused, OverBudget)
    assert 97 == refused.allowance.budget_nano_usd


@pytest.mark.parametrize("amount", ["-1", "1.5", "x", ""])
def test_odd_amounts_end_the_script_before_its_first_write(bench: Bench, amount: str) -> None:
    """Tokens and images are amounts like money: digits only."""
    before = bench.everything()
    for odd in ({"tokens": amount}, {"images": amount}):
        call = bench.call(1, **odd)  # type: ignore[arg-type]  # what a fault elsewhere might send
        with pytest.raises(GatewayError):
            bench.admit(call)
    assert before == bench.everything()
