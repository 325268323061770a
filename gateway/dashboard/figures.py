"""What the pages show, read from the store: spending from the report cells, so it is exact; budgets from admission's
own numbers; requests from the ledger; refusals from their counts.

Amounts are nano-USD. Days are local to the organisation.
"""

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from gateway.billing.budget import Calendar, Spans, Window
from gateway.billing.ledger import Entry
from gateway.billing.principal import Scope, ScopeKind
from gateway.billing.scope import ScopeSettings
from gateway.store.cells import Measures
from gateway.store.ledger import Ledger
from gateway.store.packed import ScopeState
from gateway.store.periods import days_between
from gateway.store.refusals import Refusals
from gateway.store.reports import Reports
from gateway.store.scopes import Scopes

_ENTRIES_SCANNED_MAX = 5_000
_ENTRIES_AT_ONCE = 250  # decoded without a pause, and the calls on this loop wait meanwhile
_STATES_AT_ONCE = 100  # the same
SCOPES_LOOKED_AT_MAX = 20_000
NEARLY_FULL_PERMILLE = 800

ScopeRow = tuple[ScopeSettings, ScopeState]


@dataclass(frozen=True, slots=True)
class Days:
    """Whole local days, the last of them today."""

    names: Sequence[str]
    from_ms: int
    to_ms: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class Spending:
    """One scope's spending in some days: day by day (days of nothing included), and by model, dearest first."""

    by_day: Sequence[tuple[str, Measures]]
    by_model: Sequence[tuple[tuple[str, str], Measures]]
    total: Measures


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One budget as a bar: spent + held + left is its limit, unless more was spent than that."""

    scope: Scope
    name: str
    window: Window
    limit_nano_usd: int
    spent_nano_usd: int
    held_nano_usd: int
    resets_at_ms: int | None

    @property
    def left_nano_usd(self) -> int:
        return max(0, self.limit_nano_usd - self.spent_nano_usd - self.held_nano_usd)

    @property
    def used_permille(self) -> int:
        """What is spent of the limit, at most all of it; a limit of nothing is used up."""
        return used_permille(self.spent_nano_usd, self.limit_nano_usd)


@dataclass(frozen=True, slots=True)
class Foremost:
    """Of `count` scopes of one kind: those that spent the most this month, dearest first, and the fullest budgets.

    `nearly_full` counts all budgets of which four fifths and more are spent. `more`: there are further scopes, behind
    these by id, that were not looked at.
    """

    dearest: Sequence[ScopeRow]
    fullest: Sequence[BudgetLine]
    nearly_full: int
    count: int
    more: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """What a scope has spent and holds at this moment."""

    today_nano_usd: int
    month_nano_usd: int
    held_nano_usd: int


class Figures:
    """Every read of the dashboard."""

    def __init__(
        self, scopes: Scopes, ledger: Ledger, reports: Reports, refusals: Refusals, calendar: Calendar
    ) -> None:
        self._scopes = scopes
        self._ledger = ledger
        self._reports = reports
        self._refusals = refusals
        self._calendar = calendar

    async def last_days(self, count: int) -> Days:
        """The last `count` days, today included, by Redis's clock."""
        now_ms = await self._scopes.now_ms()
        today = self._calendar.date_at(now_ms)
        first = today - timedelta(days=count - 1)
        after = self._calendar.midnight_ms(today + timedelta(days=1))
        return Days(days_between(first, today), self._calendar.midnight_ms(first), after, now_ms)

    def midnight_ms(self, day: date) -> int:
        """The first instant of one of the organisation's days."""
        return self._calendar.midnight_ms(day)

    async def scope(self, org: str, scope: Scope) -> ScopeRow:
        """Raises NotFound."""
        return await self._scopes.get(org, scope)

    async def spending(self, org: str, scope: Scope, days: Days) -> Spending:
        """What one scope spent, exact up to the last entry written before the call; costs what that scope has."""
        axis = "org" if scope.kind == "organisation" else scope.kind
        by_day: dict[str, Measures] = defaultdict(Measures)
        by_model: dict[tuple[str, str], Measures] = defaultdict(Measures)
        total = Measures()
        async for cell in self._reports.over(org, axis, days.from_ms, days.to_ms, "day", (scope.id,)):
            by_day[cell.period] += cell.measures
            by_model[cell.model, cell.kind] += cell.measures
            total += cell.measures
        return Spending(
            by_day=[(day, by_day[day]) for day in days.names],
            by_model=sorted(by_model.items(), key=lambda row: (-row[1].cost_nano_usd, row[0])),
            total=total,
        )

    async def spending_by_id(self, org: str, kind: ScopeKind, ids: Collection[str], days: Days) -> dict[str, Measures]:
        """What each of these teams, users or keys spent; those without a call are absent."""
        sums: dict[str, Measures] = defaultdict(Measures)
        async for cell in self._reports.over(org, kind, days.from_ms, days.to_ms, ids=ids):
            sums[cell.id] += cell.measures
        return sums

    async def page(
        self, org: str, kind: ScopeKind, *, after: str, count: int, team: str | None = None, user: str | None = None
    ) -> tuple[list[ScopeRow], str | None]:
        """Up to `count` scopes behind an id, of one team or user where one is named; where the next page begins."""
        scopes: list[Scope] = []
        async for scope in self._scopes.owned(org, kind, team=team, user=user, after=after):
            scopes.append(scope)
            if len(scopes) == count:
                break
        return await self._scopes.several(org, scopes), scopes[-1].id if len(scopes) == count else None

    async def foremost(self, org: str, kind: ScopeKind, now_ms: int, *, scopes: int, budgets: int) -> Foremost:
        """Look at every scope of a kind, `SCOPES_LOOKED_AT_MAX` of them at most, and name those that stand out.

        Only what admission counts is read of all of them, page by page, and the calls go on between two pages.
        """
        spans = self._calendar.spans_at(now_ms)
        dearest: list[tuple[int, Scope]] = []
        fullest: list[tuple[int, int, Scope, Window]] = []
        after, count, nearly_full, more = "", 0, 0, True
        while more and count < SCOPES_LOOKED_AT_MAX:
            page = await self._scopes.states(org, kind, after=after, limit=_STATES_AT_ONCE)
            used = [use for scope, state in page for use in _uses(scope, state, spans)]
            fullest = heapq.nlargest(budgets, [*fullest, *used], key=lambda use: use[:2])
            spent = [(state.balance("month", spans).spent_nano_usd, scope) for scope, state in page]
            dearest = heapq.nlargest(scopes, [*dearest, *spent], key=lambda one: one[0])
            nearly_full += sum(permille >= NEARLY_FULL_PERMILLE for permille, *_ in used)
            count, more = count + len(page), len(page) == _STATES_AT_ONCE
            after = page[-1][0].id if page else after
        rows = await self._scopes.several(org, [scope for _, scope in dearest])
        full = {row[0].scope: row for row in await self._scopes.several(org, [scope for _, _, scope, _ in fullest])}
        lines = {(line.scope, line.window): line for row in full.values() for line in self.budget_lines(*row, now_ms)}
        fullest_lines = [lines[place] for *_, scope, window in fullest if (place := (scope, window)) in lines]
        return Foremost(rows, fullest_lines, nearly_full, count, more)

    async def budgets(self, org: str, scopes: Iterable[Scope], now_ms: int) -> list[BudgetLine]:
        """Every budget of these scopes."""
        return [line for scope in scopes for line in self.budget_lines(*await self.scope(org, scope), now_ms)]

    def budget_lines(self, settings: ScopeSettings, state: ScopeState, now_ms: int) -> list[BudgetLine]:
        """The budgets of one scope as it was read."""
        spans = self._calendar.spans_at(now_ms)
        return [
            BudgetLine(
                scope=settings.scope,
                name=settings.name,
                window=budget.window,
                limit_nano_usd=state.limits[budget.window],
                spent_nano_usd=balance.spent_nano_usd,
                held_nano_usd=balance.held_nano_usd,
                resets_at_ms=balance.span.end_ms,
            )
            for budget in settings.budgets
            for balance in (state.balance(budget.window, spans),)
        ]

    def standing(self, state: ScopeState, now_ms: int) -> Standing:
        spans = self._calendar.spans_at(now_ms)
        return Standing(
            today_nano_usd=state.balance("day", spans).spent_nano_usd,
            month_nano_usd=state.balance("month", spans).spent_nano_usd,
            held_nano_usd=state.held_nano_usd,
        )

    async def latest(self, org: str, scope: Scope, count: int) -> list[Entry]:
        """The newest entries of one scope's calls, looked for among the last few thousand of the organisation."""
        entries: list[Entry] = []
        scanned, before = 0, None
        while scanned < _ENTRIES_SCANNED_MAX:
            page = await self._ledger.latest_entries(org, before=before, count=_ENTRIES_AT_ONCE)
            entries += [entry for entry in page if _is_call_of(entry, scope)][: count - len(entries)]
            scanned += len(page)
            if len(entries) == count or not page:
                break
            before = page[-1].id
        return entries

    async def refusals(self, org: str, scope: Scope, days: Days) -> list[tuple[str, int]]:
        """Refused calls of one scope by error code, most frequent first."""
        counts = await self._refusals.over(org, scope, days.names)
        return sorted(counts.items(), key=lambda row: (-row[1], row[0]))


def used_permille(spent_nano_usd: int, limit_nano_usd: int) -> int:
    return min(1000, spent_nano_usd * 1000 // limit_nano_usd) if limit_nano_usd else 1000


def _uses(scope: Scope, state: ScopeState, spans: Spans) -> Iterator[tuple[int, int, Scope, Window]]:
    """How full each budget is, in permille; of equally full ones the larger limit weighs more."""
    for window, limit in state.limits.items():
        yield used_permille(state.balance(window, spans).spent_nano_usd, limit), limit, scope, window


def _is_call_of(entry: Entry, scope: Scope) -> bool:
    return scope in entry.scopes() and entry.type not in ("credit", "transfer")
