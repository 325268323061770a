"""Everything one organisation's books say, read from Redis through the store, beside any gateway."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC
from typing import TypeVar

from gateway.billing.budget import Calendar
from gateway.billing.ledger import Books, Entry
from gateway.billing.principal import Scope, ScopeKind
from gateway.store.cells import TAG
from gateway.store.connection import open_redis
from gateway.store.ledger import Ledger
from gateway.store.packed import ScopeState
from gateway.store.periods import counts_at_ms, period_of
from gateway.store.reports import Reports
from gateway.store.scopes import Scopes
from gateway.store.scripts import RedisScripts

T = TypeVar("T")

ORG = "default"
_BELOW: tuple[ScopeKind, ...] = ("team", "user", "key")
_TIMEOUT_S = 10.0
_CALENDAR = Calendar(UTC)


class Store:
    """What the store offers to one test, on one connection."""

    def __init__(self, redis_url: str) -> None:
        self.redis = open_redis(redis_url, _TIMEOUT_S)
        scripts = RedisScripts(self.redis, _TIMEOUT_S)
        self.ledger = Ledger(self.redis, scripts, _CALENDAR, lease_s=30)
        self.scopes = Scopes(self.redis, scripts)
        self.reports = Reports(self.redis, scripts, self.ledger, _CALENDAR)


def with_store(redis_url: str, work: Callable[[Store], Awaitable[T]]) -> T:
    """Run `work` on a store of its own and close it."""

    async def run() -> T:
        store = Store(redis_url)
        try:
            return await work(store)
        finally:
            await store.redis.aclose()

    return asyncio.run(run())


def read_books(redis_url: str) -> Books:
    """Entries, holds, balances and report cells of all scopes. Read it when no call is running."""
    return with_store(redis_url, _read)


def state_of(redis_url: str, scope: Scope) -> ScopeState:
    """What admission knows of a scope now."""

    async def get(store: Store) -> ScopeState:
        _, state = await store.scopes.get(ORG, scope)
        return state

    return with_store(redis_url, get)


async def _read(store: Store) -> Books:
    entries = [entry async for entry in store.ledger.all_entries(ORG)]
    states = {Scope("organisation", ORG): (await store.scopes.get(ORG, Scope("organisation", ORG)))[1]}
    for kind in _BELOW:
        for settings, state in await store.scopes.page(ORG, kind, after="", limit=1000):
            states[settings.scope] = state
    months = sorted({_month_of(entry) for entry in entries})
    return Books(
        entries=entries,
        holds=await store.ledger.open_holds(ORG, limit=10_000),
        spent={scope: state.spent_nano_usd for scope, state in states.items()},
        held={scope: state.held_nano_usd for scope, state in states.items()},
        credit={scope: state.credit for scope, state in states.items()},
        reported=await _reported(store, months),
        tagged=await _tagged(store, months),
    )


def _month_of(entry: Entry) -> str:
    return period_of(_CALENDAR, counts_at_ms(_CALENDAR, entry), "month")


async def _tagged(store: Store, months: list[str]) -> dict[str, int]:
    """Cost of each tag by the cells."""
    costs: dict[str, int] = defaultdict(int)
    async for cell in store.reports.cells(ORG, TAG, "month", months):
        costs[cell.id] += cell.measures.cost_nano_usd
    return dict(costs)


async def _reported(store: Store, months: list[str]) -> dict[Scope, int]:
    """Cost of each scope by the cells; the organisation is the sum of its teams."""
    costs: dict[Scope, int] = defaultdict(int)
    for axis in _BELOW:
        async for cell in store.reports.cells(ORG, axis, "month", months):
            if cell.id:
                costs[Scope(axis, cell.id)] += cell.measures.cost_nano_usd
            if axis == "team":
                costs[Scope("organisation", ORG)] += cell.measures.cost_nano_usd
    return dict(costs)
