"""Scopes: created once, changed by whoever read them last, and never at the cost of what they already count."""

import json
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import cast

import pytest

from gateway.billing.budget import WINDOWS, Budget
from gateway.billing.errors import AlreadyExists, LedgerUnavailable, NotFound
from gateway.billing.principal import Principal, Scope, digest_of
from gateway.billing.scope import ScopeSettings
from gateway.store.scopes import BooksMismatch, Principals, ensure_organisation
from tests.store.bench import AN, BY_NOTEBOOK, NOTEBOOK, ORG, RED, SCOPES, Bench, capture

FULL = ScopeSettings(
    kind="key",
    id="full",
    name='Käthe "K" \\ Ðặng 🦊',
    team="red",
    user="an",
    role="auditor",
    budgets=(Budget("total", 0), Budget("month", 2**53 - 1, (50, 80))),
    models=("gpt-4o", "gpt-4o-mini"),
    blocked=True,
    expires_at_ms=1_795_000_000_123,
    revoked_at_ms=1_794_000_000_000,
    created_at_ms=1_793_000_000_001,
)


def test_settings_read_back_as_they_were_written(bench: Bench) -> None:
    """Every field, in the JSON and in what admission reads."""
    bench.put(FULL)
    settings, state = bench.run(bench.scopes.get(ORG, FULL.scope))
    assert FULL == settings
    assert (True, True, FULL.expires_at_ms) == (state.blocked, state.revoked, state.expires_at_ms)
    assert {"total": 0, "month": 2**53 - 1} == state.limits
    assert FULL.models == state.models


def test_what_was_read_can_be_replaced(bench: Bench) -> None:
    """The comparison is by the very text that was read, not by how this version would write it today."""
    bench.put(FULL)
    key = bench.keys.settings(FULL.scope)
    written = json.loads(cast(bytes, bench.run(bench.redis.get(key))))
    bench.run(bench.redis.set(key, json.dumps({**written, "a field of tomorrow": 1.0}, indent=1)))
    read = bench.run(bench.scopes.read(ORG, FULL.scope))
    assert FULL == read.settings
    assert bench.run(bench.scopes.replace(ORG, read, replace(read.settings, name="other")))


def test_a_key_that_ends_with_the_calendar_can_be_blocked(bench: Bench) -> None:
    """A distant `expires_at` is read and written to the millisecond, or no change would ever match what is stored."""
    last_ms = 253_402_300_799_999
    bench.put(replace(FULL, id="distant", expires_at_ms=last_ms, blocked=False))
    bench.change(Scope("key", "distant"), blocked=True)
    settings, state = bench.run(bench.scopes.get(ORG, Scope("key", "distant")))
    assert (last_ms, last_ms, True) == (settings.expires_at_ms, state.expires_at_ms, state.blocked)


@pytest.mark.parametrize("scope", SCOPES)
def test_an_id_is_given_once(bench: Bench, scope: Scope) -> None:
    """A second POST must not reset what the first one's scope has spent."""
    settings, _ = bench.run(bench.scopes.get(ORG, scope))
    before = bench.everything()
    with pytest.raises(AlreadyExists, match=scope.id):
        bench.put(replace(settings, name="again"))
    assert before == bench.everything()


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        (ScopeSettings("user", "new", team="green"), "team"),
        (ScopeSettings("key", "new", team="green", user="an"), "team"),
        (ScopeSettings("key", "new", team="red", user="nobody"), "user"),
    ],
)
def test_what_stands_above_must_exist(bench: Bench, settings: ScopeSettings, param: str) -> None:
    """Else a key would spend past a team that nobody can limit."""
    before = bench.everything()
    with pytest.raises(NotFound) as refused:
        bench.put(settings)
    assert param == refused.value.param
    assert before == bench.everything()


def test_of_a_hundred_creations_one_wins(bench: Bench) -> None:
    """At the same time, each with another name and secret: one key, one secret."""

    async def create(number: int) -> bool:
        settings = ScopeSettings("key", "contested", name=str(number), team="red")
        try:
            await bench.scopes.create(ORG, settings, secret_digest=digest_of(str(number)))
        except AlreadyExists:
            return False
        return True

    won = bench.together([create(number) for number in range(100)])
    assert 1 == won.count(True)
    settings, _ = bench.run(bench.scopes.get(ORG, Scope("key", "contested")))
    assert str(won.index(True)) == settings.name
    assert 1 == len(bench.run(bench.redis.keys("*:digest:*")))


def test_a_change_that_was_read_too_early_is_refused(bench: Bench) -> None:
    """A hundred read the same settings and change them at once: nobody's change is lost unseen."""
    old = bench.run(bench.scopes.read(ORG, RED))
    works = [bench.scopes.replace(ORG, old, replace(old.settings, name=str(number))) for number in range(100)]
    won = bench.together(works)
    assert 1 == won.count(True)
    settings, _ = bench.run(bench.scopes.get(ORG, RED))
    assert str(won.index(True)) == settings.name


def test_a_scope_that_is_gone_is_not_brought_back_by_a_change(bench: Bench) -> None:
    """It was read, then Redis was emptied: a change must not make half of it anew."""
    old = bench.run(bench.scopes.read(ORG, RED))
    bench.run(bench.redis.flushall())
    assert not bench.run(bench.scopes.replace(ORG, old, replace(old.settings, name="new")))
    assert {} == bench.everything()


def test_a_new_limit_meets_what_was_already_spent(bench: Bench) -> None:
    """All windows count from the first call, so a budget added later needs no back-fill."""
    spent, running = bench.call(60), bench.call(30)
    for request in (spent, running):
        bench.admit(request)
    bench.settle(spent, capture(50))
    for window in WINDOWS:
        bench.limit(RED, 100, window)
        assert (50, 30) == bench.spent_and_held(RED, window)
        assert {window: 100} == bench.state(RED).limits
    bench.change(RED, budgets=(), models=("gpt-4o",), blocked=True, name="Red")
    assert (50, 30) == bench.spent_and_held(RED)


def test_changes_and_calls_race_without_losing_a_hold(bench: Bench) -> None:
    """Settings and windows share one string: a change must not write back windows it read before a call."""

    async def rename(number: int) -> None:
        old = await bench.scopes.read(ORG, RED)
        await bench.scopes.replace(ORG, old, replace(old.settings, name=str(number)))

    async def call(number: int) -> None:
        await bench.ledger.admit(bench.call(number))

    bench.together([work(number) for number in range(1, 51) for work in (rename, call)])
    assert (0, sum(range(1, 51))) == bench.spent_and_held(RED)


def test_pages_are_in_the_order_of_ids(bench: Bench) -> None:
    """Each scope once, whatever the size of a page."""
    for number in range(7):
        bench.put(ScopeSettings("team", f"t{number}"))
    ids: list[str] = []
    while page := bench.run(bench.scopes.page(ORG, "team", after=ids[-1] if ids else "", limit=2)):
        ids += [settings.id for settings, _ in page]
    assert ["blue", "red", *(f"t{number}" for number in range(7))] == ids


def test_what_is_not_there_is_not_found(bench: Bench) -> None:
    """A user's id is no team's, and one organisation does not see another's."""
    for org, scope in ((ORG, Scope("team", "an")), ("other", RED)):
        with pytest.raises(NotFound):
            bench.run(bench.scopes.get(org, scope))


def test_a_secret_is_known_by_its_digest_alone(bench: Bench) -> None:
    """Whoever reads Redis finds no key to call with."""
    secret = "sk-mt-acme-made-up-for-this-test"
    settings = ScopeSettings("key", "lamp", team="red", user="an")
    bench.run(bench.scopes.create(ORG, settings, secret_digest=digest_of(secret)))
    found = bench.run(Principals(read_with(bench)).find(ORG, digest_of(secret)))
    assert Principal(ORG, "red", "an", "lamp", digest_of(secret)) == found
    assert bench.run(Principals(read_with(bench)).find(ORG, digest_of("another"))) is None
    stored = b"".join(key + value for key, value in bench.everything().items())
    assert secret.encode() not in stored


def test_states_are_read_outermost_first(bench: Bench) -> None:
    """None where a scope does not exist."""
    bench.change(AN, blocked=True)
    before_ms = bench.now_ms()
    states, now_ms = bench.run(bench.scopes.look(BY_NOTEBOOK))
    assert before_ms <= now_ms <= bench.now_ms()
    assert [False, False, True, False] == [state.blocked for state in states if state]
    strangers, _ = bench.run(bench.scopes.look(Principal(ORG, "green", None, "notebook")))
    assert [True, False, True] == [state is not None for state in strangers]


def test_an_organisation_is_made_once_and_keeps_its_zone(bench: Bench) -> None:
    """Its windows are local midnights: another zone would reset budgets in the middle of a month, another first day
    in the middle of a week."""
    fresh = ScopeSettings("organisation", "fresh", timezone="Asia/Ho_Chi_Minh", first_weekday="sunday")
    for _ in range(2):
        bench.run(ensure_organisation(bench.scopes, fresh))
    with pytest.raises(BooksMismatch, match="Asia/Ho_Chi_Minh"):
        bench.run(ensure_organisation(bench.scopes, replace(fresh, timezone="UTC")))
    with pytest.raises(BooksMismatch, match="sunday"):
        bench.run(ensure_organisation(bench.scopes, replace(fresh, first_weekday="monday")))


@pytest.mark.parametrize(
    "packed", [b"", b"\0" * 143, struct.pack("<18d", 2, *[0] * 17), struct.pack("<18d", *[0] * 18)]
)
def test_a_scope_of_another_layout_is_not_guessed_at(bench: Bench, packed: bytes) -> None:
    """Its numbers would be read as this layout's: balances of noise."""
    bench.run(bench.redis.set(bench.keys.state(RED), packed))
    with pytest.raises(LedgerUnavailable, match="cannot read"):
        bench.run(bench.scopes.get(ORG, RED))


def test_a_key_without_limits_says_so(bench: Bench) -> None:
    """No limit is not a limit of zero, and no allow-list is not an empty one."""
    state = bench.state(NOTEBOOK)
    assert ({}, None, False, False, 0) == (
        state.limits,
        state.models,
        state.blocked,
        state.revoked,
        state.expires_at_ms,
    )


def read_with(bench: Bench) -> Callable[[str], Awaitable[bytes | None]]:
    async def read(key: str) -> bytes | None:
        return cast(bytes | None, await bench.redis.get(key))

    return read
