"""What a scrape of /metrics shows from the ledger, the same from every gateway: open holds, budgets, the account at
MiniToolAI, what the latest reconciliation found."""

from collections.abc import Awaitable, Callable, Iterator, Mapping

from gateway.billing.budget import WINDOWS, Calendar, Spans, Window
from gateway.billing.principal import Scope, ScopeKind
from gateway.ledger_view import BudgetUse, LedgerView, RedisMemory
from gateway.store.ledger import Ledger
from gateway.store.packed import ScopeState
from gateway.store.reconciliations import Reconciliations
from gateway.store.scopes import Scopes
from gateway.store.upstream_account import UpstreamAccounts

_PAGE = 200  # read at once: between two pages the calls on this loop go on
_LOOKED_AT_FOR_ONE = 10  # scopes that are looked at for each that may be shown: some have no budget


class LedgerScrape:
    """Reads the budgets of an organisation: of each kind as many scopes that have one as `most` says, by id."""

    def __init__(
        self,
        ledger: Ledger,
        scopes: Scopes,
        accounts: UpstreamAccounts,
        reconciliations: Reconciliations,
        calendar: Calendar,
        org: str,
        most: Mapping[ScopeKind, int],
        memory: Callable[[], Awaitable[tuple[int, int]]],
    ) -> None:
        self._ledger = ledger
        self._scopes = scopes
        self._accounts = accounts
        self._reconciliations = reconciliations
        self._calendar = calendar
        self._org = org
        self._most = most
        self._memory = memory

    async def view(self) -> LedgerView:
        """The ledger as of now. Raises LedgerUnavailable."""
        spans = self._calendar.spans_at(await self._scopes.now_ms())
        reconciled = await self._reconciliations.latest(self._org)
        budgets = [use for kind in self._most for use in await self._budgets(kind, spans)]
        return LedgerView(
            holds_open=await self._ledger.open_hold_count(self._org),
            budgets=budgets,
            windows={"day": spans.day, "week": spans.week, "month": spans.month},
            spent_nano_usd=await self._spent(spans),
            redis_memory=RedisMemory(*await self._memory()),
            upstream_balance_nano_usd=await self._accounts.balance(self._org),
            drift_nano_usd=reconciled.drift_nano_usd if reconciled else None,
        )

    async def _spent(self, spans: Spans) -> dict[Window, int]:
        found = await self._scopes.states(self._org, "organisation", after="", limit=1)
        return {window: state.balance(window, spans).spent_nano_usd for _, state in found for window in WINDOWS}

    async def _budgets(self, kind: ScopeKind, spans: Spans) -> list[BudgetUse]:
        uses: list[BudgetUse] = []
        most = self._most[kind]
        left, after = most * _LOOKED_AT_FOR_ONE, ""
        while most > 0 and left > 0:
            page = await self._scopes.states(self._org, kind, after=after, limit=min(left, _PAGE))
            having = [(scope, state) for scope, state in page if state.limits][:most]
            for scope, state in having:
                uses.extend(_uses(scope, state, spans))
            if len(page) < min(left, _PAGE):
                break
            most, left, after = most - len(having), left - len(page), page[-1][0].id
        return uses


def _uses(scope: Scope, state: ScopeState, spans: Spans) -> Iterator[BudgetUse]:
    for window, limit in state.limits.items():
        balance = state.balance(window, spans)
        yield BudgetUse(scope, window, limit, balance.spent_nano_usd, balance.held_nano_usd)
