"""The lists of teams, users and keys: a page of one, those on a scope's own page, and the overview's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.billing.principal import Scope, ScopeKind
from gateway.billing.scope import ScopeSettings
from gateway.dashboard.figures import BudgetLine, Days, Figures, ScopeRow
from gateway.store.cells import Measures

CHILDREN_COUNT = 50
_BUDGETS_COUNT = 8
_BELOW: dict[ScopeKind, tuple[ScopeKind, ...]] = {
    "organisation": ("team",),
    "team": ("user", "key"),
    "user": ("key",),
    "key": (),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One scope in a list; `status` is active, blocked, revoked or expired."""

    settings: ScopeSettings
    spent: Measures
    budgets: Sequence[BudgetLine]
    status: str


@dataclass(frozen=True, slots=True)
class Table:
    """A list of scopes. The bars of its rows share one scale, `most_nano_usd`, so that they can be compared.

    `more`: there are others; `next_after` is where a page of a list goes on.
    """

    kind: ScopeKind
    rows: Sequence[Row]
    more: bool
    next_after: str
    most_nano_usd: int


@dataclass(frozen=True, slots=True)
class Overview:
    """What stands out among all teams: the dearest of them, and the budgets that are used up most.

    `nearly_full` counts the budgets of which four fifths and more are spent, whether shown or not. `looked_at` is 0
    where all teams were; else so many, the first by id.
    """

    teams: Table
    fullest: Sequence[BudgetLine]
    nearly_full: int
    looked_at: int


class Tables:
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    async def overview(self, org: str, days: Days) -> Overview:
        """The teams that spent the most this month and the fullest budgets of all teams."""
        found = await self._figures.foremost(org, "team", days.now_ms, scopes=CHILDREN_COUNT, budgets=_BUDGETS_COUNT)
        teams = await self._table(org, "team", found.dearest, days)
        return Overview(
            teams=replace(_dearest_first(teams), more=found.count > len(found.dearest) or found.more),
            fullest=found.fullest,
            nearly_full=found.nearly_full,
            looked_at=found.count if found.more else 0,
        )

    async def below(self, org: str, scope: Scope, days: Days) -> list[Table]:
        """The lists on a scope's page: users and keys of a team, keys of a user."""
        owner = {scope.kind: scope.id} if scope.kind in ("team", "user") else {}
        return [
            _dearest_first(await self.page(org, kind, days, count=CHILDREN_COUNT, **owner))
            for kind in _BELOW[scope.kind]
        ]

    async def page(
        self,
        org: str,
        kind: ScopeKind,
        days: Days,
        *,
        count: int,
        after: str = "",
        team: str | None = None,
        user: str | None = None,
    ) -> Table:
        """One page of a list, by id."""
        found, next_after = await self._figures.page(org, kind, after=after, count=count, team=team, user=user)
        table = await self._table(org, kind, found, days)
        return replace(table, more=next_after is not None, next_after=next_after or "")

    async def _table(self, org: str, kind: ScopeKind, found: Sequence[ScopeRow], days: Days) -> Table:
        spent = await self._figures.spending_by_id(org, kind, [settings.id for settings, _ in found], days)
        rows = [
            Row(
                settings=settings,
                spent=spent.get(settings.id, Measures()),
                budgets=self._figures.budget_lines(settings, state, days.now_ms),
                status=_status(settings, days.now_ms),
            )
            for settings, state in found
        ]
        return Table(kind, rows, False, "", max((row.spent.cost_nano_usd for row in rows), default=0))


def _status(settings: ScopeSettings, now_ms: int) -> str:
    if settings.revoked_at_ms:
        return "revoked"
    if settings.blocked:
        return "blocked"
    return "expired" if 0 < settings.expires_at_ms <= now_ms else "active"


def _dearest_first(table: Table) -> Table:
    """Where all rows are there, those that matter come first; pages of a list keep the order of their ids."""
    if table.more:
        return table
    return replace(table, rows=sorted(table.rows, key=lambda row: (-row.spent.cost_nano_usd, row.settings.id)))
