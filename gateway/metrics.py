"""Every metric, counted from the one record a call leaves behind.

Counters and histograms are this gateway's own, all its workers together: sum them over all gateways. What the ledger
knows (budgets, open holds) is read from it at every scrape, so each gateway shows the same: take the maximum over them.

Label values are bounded: endpoints, models, codes and scopes come from tables; teams and users past their bounds
count as "other". No label ever holds a secret or free text. Amounts are nano-USD inside; Prometheus alone shows
float dollars.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar, get_args

from prometheus_client import CollectorRegistry, generate_latest

from gateway.billing.budget import Crossing
from gateway.billing.errors import BudgetExceeded, CreditExhausted, InvalidAPIKey, TooManyFailures
from gateway.billing.ledger import ANOMALY, INEXACT, OVERRUN, OpenHold, Posting
from gateway.billing.money import NANO_PER_USD
from gateway.billing.principal import ScopeKind
from gateway.call_log import CallRecord, Lines, call_line, log_crossing, log_expiry, log_failed_login
from gateway.ledger_view import LedgerGauges, LedgerView
from gateway.shared_metrics import Share
from gateway.tally import Count, Counter, Gauge, Histogram, Level

OTHER = "other"
"""What teams and users past their bounds count as."""
NONE = "none"
"""What stands in a label for a team, user, model or scope that a call has not, or that was not known yet."""
_SOURCE_OF: Mapping[str, str] = {
    "upstream_error": "upstream",
    "upstream_refused": "upstream",
    "upstream_timeout": "upstream",
    "ledger_unavailable": "ledger",
    "internal_error": "gateway",
    "overloaded": "gateway",
    "draining": "gateway",
}
"""Whose fault an error is, by its code; all others are the caller's."""
_CALLER = "caller"
_PLACES_MAX = 10_000
_ROUND_TRIP_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SHARE_OUT_S = 1.0

F = TypeVar("F", Counter, Gauge, Histogram)


class Metrics:
    """All metrics of one gateway. `observe` is called once a call, `scrape` once a scrape.

    `teams_max` and `users_max` bound the series: counters of teams and users beyond them go to "other". A process that
    is one of several workers is given its share, and tells the others once a second, while `run` runs, what it counted.
    The log line of each call is handed to `lines`.
    Series of `models` and `scripts` begin at zero: an increase from nothing to one would show in no graph.

    Everything is called by the event loop's thread, but `render`, which any may call.
    """

    def __init__(
        self,
        teams_max: int = 200,
        users_max: int = 1000,
        share: Share | None = None,
        *,
        models: Iterable[str] = (),
        scripts: Iterable[str] = (),
        lines: Lines | None = None,
    ) -> None:
        self._lines = lines or Lines()
        self._lines.on_dropped = lambda whose: self._lines_dropped.labels(whose).inc()
        self.registry = CollectorRegistry()
        self._shared = share.open() if share else None
        self._families: list[Counter | Gauge | Histogram] = []
        self._teams = share.names("teams", teams_max) if share else _Names(teams_max)
        self._users = share.names("users", users_max) if share else _Names(users_max)
        self._make_counters()
        self._make_histograms()
        self._make_gauges()
        for model in models:
            self._observe_flags(model, ())
        self._scripts = {name: self._script_duration.labels(name) for name in scripts}
        self._ordinary: dict[object, _Ordinary] = {}
        self._ledger = LedgerGauges()
        self._shown = self.registry
        if share is not None:
            self._shown = CollectorRegistry()
            self._shown.register(share.all_workers())
        self._shown.register(self._ledger)

    def observe(self, record: CallRecord) -> None:
        """Count one finished call and write its log line."""
        duration_s = _now_since(record)
        posting = record.posting
        if posting is not None and posting.type == "capture" and not posting.flags and not record.error:
            self._observe_ordinary(record, posting, duration_s)
        else:
            self._observe_any(record, duration_s)
        write = self._lines.of_stranger if record.principal is None else self._lines.of_caller
        write(call_line(record, duration_s))

    def _observe_any(self, record: CallRecord, duration_s: float) -> None:
        team = _label(self._teams, record.principal.team if record.principal else None)
        model = record.model or NONE
        self._requests.labels(record.endpoint, model, team, str(record.status), record.error).inc()
        if record.error:
            self._errors.labels(_SOURCE_OF.get(record.error, _CALLER), record.error).inc()
        if record.refused_at is not None:
            self._refusals.labels(record.error, record.refused_at).inc()
        self._duration.labels(record.endpoint).observe(duration_s)
        self._observe_times(record, duration_s)
        if record.posting is not None and record.posting.type == "capture":
            user = record.principal.user if record.principal else None
            self._observe_charge(record.posting, record.kind, model, team, user)

    def _observe_ordinary(self, record: CallRecord, posting: Posting, duration_s: float) -> None:
        """What `_observe_any` counts of a call that was charged and met no fault, which most are."""
        who = record.principal
        place = (record.endpoint, record.model, record.kind, record.status, who)
        series = self._ordinary.get(place)
        if series is None:
            if len(self._ordinary) >= _PLACES_MAX:
                self._ordinary.clear()
            series = self._ordinary[place] = self._series_of(record)
        series.requests.inc()
        series.input_tokens.inc(posting.usage.prompt_tokens)
        series.output_tokens.inc(posting.usage.completion_tokens)
        if series.images is not None:
            series.images.inc(posting.usage.units)
        cost_usd = posting.cost_nano_usd / NANO_PER_USD
        series.cost.inc(cost_usd)
        series.user_cost.inc(cost_usd)
        self._duration.labels(record.endpoint).observe(duration_s)
        self._observe_times(record, duration_s)

    def _series_of(self, record: CallRecord) -> "_Ordinary":
        who, model = record.principal, record.model or NONE
        team = _label(self._teams, who.team if who else None)
        user = _label(self._users, who.user if who else None)
        self._observe_flags(model, ())
        return _Ordinary(
            requests=self._requests.labels(record.endpoint, model, team, str(record.status), ""),
            input_tokens=self._tokens.labels(team, model, "input"),
            output_tokens=self._tokens.labels(team, model, "output"),
            images=self._images.labels(team, model) if record.kind == "image" else None,
            cost=self._cost.labels(team, model, record.kind),
            user_cost=self._user_cost.labels(team, user),
        )

    def observe_crossing(self, crossing: Crossing) -> None:
        """Count a soft threshold that was crossed, and write its log line."""
        self._thresholds.labels(crossing.scope.kind, crossing.window, str(crossing.percent)).inc()
        log_crossing(crossing)

    def observe_expiry(self, hold: OpenHold, posting: Posting, crossings: Sequence[Crossing]) -> None:
        """Count a hold that nobody renewed, what it was charged, and write its log line."""
        self._expired.inc()
        self._observe_charge(posting, hold.kind, hold.model, _label(self._teams, hold.team), hold.user)
        log_expiry(hold, posting)
        for crossing in crossings:
            self.observe_crossing(crossing)

    def observe_script(self, name: str, seconds: float) -> None:
        """Count a run of one of the ledger's scripts."""
        self._scripts[name].observe(seconds)

    def observe_settlement(self, seconds: float) -> None:
        """Count a posting, and how long after its call's end it was made."""
        self._settlement_lag.observe(seconds)

    def observe_failed_login(self, code: str, address: str) -> None:
        """Count a login with a key that is not valid, and write its log line."""
        self._failed_logins.labels(code).inc()
        log_failed_login(code, address)

    def observe_slowed_login(self) -> None:
        """Count a login that was refused unseen, for too many had failed; a line for each would fill the log."""
        self._failed_logins.labels(TooManyFailures.code).inc()

    def observe_turned_away(self, code: str) -> None:
        """Count a connection that was closed with an error before it asked what could be served."""
        self._turned_away.labels(code).inc()

    async def scrape(self, view: LedgerView | None) -> bytes:
        """The exposition text; `view` as in `render`. Of other workers it has what they told last, within a second.

        With many series it takes a while, so it is made in a thread of its own: calls on this loop go on meanwhile.
        """
        self.share_out()
        return await asyncio.to_thread(self.render, view)

    def render(self, view: LedgerView | None) -> bytes:
        """The exposition text; None where the ledger did not answer: then its gauges keep what they had."""
        self._ledger.show(view)
        return generate_latest(self._shown)

    async def run(self, stop: asyncio.Event) -> None:
        """Share out once a second until `stop` is set."""
        while self._shared is not None and not stop.is_set():
            self.share_out()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _SHARE_OUT_S)

    def share_out(self) -> None:
        """Tell the other workers what this one counted. Whatever is counted after the last time is lost."""
        if self._shared is not None:
            for family in self._families:
                family.share_out()

    def _make_counters(self) -> None:
        self._requests = self._counter(
            "gateway_requests", "Calls answered.", "endpoint", "model", "team", "status", "error"
        )
        self._errors = self._counter("gateway_errors", "Calls that ended with an error.", "source", "code")
        for code, source in _SOURCE_OF.items():
            # From zero on: an alert on an increase would miss the first error of a series that begins with it.
            self._errors.labels(source, code)
        self._refusals = self._counter("gateway_refusals", "Calls the gateway refused to send.", "code", "scope")
        for code in (BudgetExceeded.code, CreditExhausted.code):
            for scope in get_args(ScopeKind):
                self._refusals.labels(code, scope)
        self._tokens = self._counter("gateway_tokens", "Tokens billed.", "team", "model", "direction")
        self._images = self._counter("gateway_images", "Images billed.", "team", "model")
        self._cost = self._counter("gateway_cost_usd", "Dollars billed.", "team", "model", "kind")
        self._user_cost = self._counter("gateway_user_cost_usd", "Dollars billed to users.", "team", "user")
        self._estimated = self._counter("gateway_usage_estimated", "Calls billed by estimate.", "model")
        self._thresholds = self._counter(
            "gateway_budget_thresholds", "Soft thresholds of budgets crossed.", "scope", "window", "percent"
        )
        self._overruns = self._counter("gateway_hold_overruns", "Charges above their hold.", "model")
        self._anomalies = self._counter("gateway_usage_anomalies", "Calls with an impossible usage.", "model")
        self._expired = self._counter("gateway_holds_expired", "Holds that nobody renewed in time.").labels()
        self._failed_logins = self._counter("gateway_failed_logins", "Logins to the dashboard that failed.", "code")
        for code in (InvalidAPIKey.code, TooManyFailures.code):
            self._failed_logins.labels(code)
        self._turned_away = self._counter("gateway_turned_away", "Connections refused at the edge.", "code")
        self._lines_dropped = self._counter("gateway_log_lines_dropped", "Log lines nobody took in time.", "whose")
        for whose in ("caller", "stranger"):
            self._lines_dropped.labels(whose)
        self.spool_unreadable = self._counter("gateway_spool_unreadable", "Spool files that were set aside.").labels()
        self.quarantined = self._counter("gateway_quarantined", "Charges whose hold the ledger does not know.").labels()

    def _make_histograms(self) -> None:
        self._duration = self._seconds("gateway_request_duration_seconds", "From a call's first to its last byte.")
        self._first_byte = self._seconds("gateway_time_to_first_byte_seconds", "Until the answer's first byte.")
        self._upstream = self._seconds("gateway_upstream_duration_seconds", "From sending upstream to its last byte.")
        self._overhead = self._seconds(
            "gateway_overhead_seconds", "A call's duration less the upstream's and the client's."
        )
        self._settlement_lag = self._histogram(
            "gateway_settlement_lag_seconds", "From a call's end to its posting in the ledger.", (), _SECONDS
        ).labels()
        self._script_duration = self._histogram(
            "gateway_ledger_script_duration_seconds",
            "One run of a script in Redis, the way there and back included.",
            ("script",),
            _ROUND_TRIP_SECONDS,
        )

    def _make_gauges(self) -> None:
        self.calls_in_flight = self._gauge("gateway_calls_in_flight", "Calls being served.")
        self.streams_in_flight = self._gauge("gateway_streams_in_flight", "Answers being streamed.")
        self.bodies_bytes = self._gauge("gateway_bodies_in_hand_bytes", "Of large requests.")
        self.settlements_owed = self._gauge("gateway_settlements_owed", "Calls ended and not yet posted.")
        self.spool_entries = self._gauge("gateway_spool_entries", "Postings kept on disk until the ledger answers.")

    def _observe_times(self, record: CallRecord, duration_s: float) -> None:
        if record.first_byte_at is not None:
            self._first_byte.labels(record.endpoint).observe(record.first_byte_at - record.started_at)
        if record.sent_at is not None and record.upstream_ended_at is not None:
            upstream_s = record.upstream_ended_at - record.sent_at
            self._upstream.labels(record.endpoint).observe(upstream_s)
            own_s = duration_s - upstream_s - record.client_wait_s
            self._overhead.labels(record.endpoint).observe(max(0.0, own_s))

    def _observe_charge(self, posting: Posting, kind: str, model: str, team: str, user: str | None) -> None:
        usage = posting.usage
        self._tokens.labels(team, model, "input").inc(usage.prompt_tokens)
        self._tokens.labels(team, model, "output").inc(usage.completion_tokens)
        if kind == "image":
            self._images.labels(team, model).inc(usage.units)
        cost_usd = posting.cost_nano_usd / NANO_PER_USD
        self._cost.labels(team, model, kind).inc(cost_usd)
        self._user_cost.labels(team, _label(self._users, user)).inc(cost_usd)
        self._observe_flags(model, posting.flags)

    def _observe_flags(self, model: str, flags: Sequence[str]) -> None:
        self._estimated.labels(model).inc(not INEXACT.isdisjoint(flags))
        self._overruns.labels(model).inc(OVERRUN in flags)
        self._anomalies.labels(model).inc(ANOMALY in flags)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return self._registered(Counter(name, text, labels, self._shared))

    def _gauge(self, name: str, text: str) -> Level:
        return self._registered(Gauge(name, text, (), self._shared)).labels()

    def _seconds(self, name: str, text: str) -> Histogram:
        return self._histogram(name, text, ("endpoint",), _SECONDS)

    def _histogram(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> Histogram:
        return self._registered(Histogram(name, text, labels, self._shared, bounds))

    def _registered(self, family: F) -> F:
        self.registry.register(family)
        self._families.append(family)
        return family


class _Ordinary(NamedTuple):
    """The series that the charged calls of one key, model and endpoint count in, found once."""

    requests: Count
    input_tokens: Count
    output_tokens: Count
    images: Count | None
    cost: Count
    user_cost: Count


class _Known(Protocol):
    """Names with series of their own, bounded in number."""

    def has(self, name: str) -> bool: ...


class _Names:
    """The first names that came, up to a bound."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def has(self, name: str) -> bool:
        if name not in self._known and len(self._known) < self._most:
            self._known.add(name)
        return name in self._known


def _label(known: _Known, name: str | None) -> str:
    if name is None:
        return NONE
    return name if known.has(name) else OTHER


def _now_since(record: CallRecord) -> float:
    return time.perf_counter() - record.started_at
