"""What a scrape reads from the ledger, and the gauges that show it: the same from every gateway and every worker.

Nothing is counted here, so nothing is kept between scrapes but the last view: a budget that was taken away is gone from
the graphs, and one that was never read is absent rather than zero.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.billing.budget import Span, Window
from gateway.billing.money import NANO_PER_USD
from gateway.billing.principal import Scope

_BUDGET = ("scope", "id", "window")


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """One budget as the ledger has it now, in nano-USD."""

    scope: Scope
    window: Window
    limit_nano_usd: int
    spent_nano_usd: int
    held_nano_usd: int


@dataclass(frozen=True, slots=True)
class RedisMemory:
    """What Redis uses, and the most it may (`maxmemory`; 0: it has no bound)."""

    used_bytes: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class LedgerView:
    """What a scrape read from the ledger. `windows` are those that turn, without `total`.

    `spent_nano_usd` is what the organisation has spent in each window, refunds taken off.

    `upstream_balance_nano_usd` is what is left at MiniToolAI, `drift_nano_usd` what the latest reconciliation found;
    None until something was entered.
    """

    holds_open: int
    budgets: Sequence[BudgetUse]
    windows: Mapping[Window, Span]
    spent_nano_usd: Mapping[Window, int]
    redis_memory: RedisMemory
    upstream_balance_nano_usd: int | None = None
    drift_nano_usd: int | None = None


class LedgerGauges(Collector):
    """The gauges of the view that was shown last."""

    def __init__(self) -> None:
        self._view: LedgerView | None = None
        self._up = False

    def show(self, view: LedgerView | None) -> None:
        """None where the ledger did not answer: then `gateway_ledger_up` is 0, and the others keep what they had."""
        self._up = view is not None
        self._view = view or self._view

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily("gateway_ledger_up", "Whether the ledger answered this scrape.", value=self._up)
        view = self._view
        holds_open = view.holds_open if view else None
        yield GaugeMetricFamily("gateway_holds_open", "Holds of running calls.", value=holds_open)
        yield from _budgets(view.budgets if view else ())
        yield from _windows(view.windows if view else {})
        yield _spent(view.spent_nano_usd if view else {})
        yield from _memory(view.redis_memory if view else None)
        yield _upstream_balance(view.upstream_balance_nano_usd if view else None)
        drift_nano_usd = view.drift_nano_usd if view else None
        yield GaugeMetricFamily("gateway_ledger_drift_nano_usd", "Ledger less MiniToolAI's bill.", value=drift_nano_usd)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """So that the registry refuses a second metric of one of these names."""
        return LedgerGauges().collect()


def _budgets(uses: Sequence[BudgetUse]) -> Iterator[GaugeMetricFamily]:
    limit = GaugeMetricFamily("gateway_budget_limit_usd", "A budget's limit.", labels=_BUDGET)
    spent = GaugeMetricFamily("gateway_budget_spent_usd", "What is spent of a budget.", labels=_BUDGET)
    held = GaugeMetricFamily("gateway_budget_held_usd", "What running calls hold of a budget.", labels=_BUDGET)
    for use in uses:
        labels = (use.scope.kind, use.scope.id, use.window)
        limit.add_metric(labels, use.limit_nano_usd / NANO_PER_USD)
        spent.add_metric(labels, use.spent_nano_usd / NANO_PER_USD)
        held.add_metric(labels, use.held_nano_usd / NANO_PER_USD)
    yield from (limit, spent, held)


def _windows(windows: Mapping[Window, Span]) -> Iterator[GaugeMetricFamily]:
    starts = GaugeMetricFamily("gateway_window_start_timestamp_seconds", "When a window began.", labels=("window",))
    resets = GaugeMetricFamily("gateway_window_reset_timestamp_seconds", "When a window ends.", labels=("window",))
    for window, span in windows.items():
        starts.add_metric((window,), span.start_ms / 1000)
        resets.add_metric((window,), (span.end_ms or 0) / 1000)
    yield from (starts, resets)


def _spent(spent_nano_usd: Mapping[Window, int]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily("gateway_spent_usd", "What the organisation has spent.", labels=("window",))
    for window, amount in spent_nano_usd.items():
        gauge.add_metric((window,), amount / NANO_PER_USD)
    return gauge


def _memory(memory: RedisMemory | None) -> Iterator[GaugeMetricFamily]:
    used_bytes, max_bytes = (memory.used_bytes, memory.max_bytes) if memory else (None, None)
    yield GaugeMetricFamily("gateway_redis_memory_used_bytes", "What Redis uses.", value=used_bytes)
    yield GaugeMetricFamily("gateway_redis_memory_max_bytes", "The most Redis may use; 0: no bound.", value=max_bytes)


def _upstream_balance(balance_nano_usd: int | None) -> GaugeMetricFamily:
    balance_usd = None if balance_nano_usd is None else balance_nano_usd / NANO_PER_USD
    return GaugeMetricFamily(
        "gateway_upstream_balance_estimated_usd", "What is left at MiniToolAI, as entered.", value=balance_usd
    )
