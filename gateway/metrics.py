"""Every metric, and the one log line of a call, from the one record a call leaves behind.

Label values are bounded: endpoints and models come from tables, teams past `TEAMS_MAX` count as "other", and no
label ever holds a secret or free text. Amounts are nano-USD inside; Prometheus alone shows float dollars.
"""

import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from gateway.billing.ledger import ESTIMATED, OVERRUN, Posting
from gateway.billing.money import NANO_PER_USD
from gateway.billing.principal import Principal

TEAMS_MAX = 200
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

log = logging.getLogger("gateway.call")

# One more series for every counter and histogram, which nothing here reads.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus-client leaves it without types


@dataclass(slots=True)
class CallRecord:
    """What one call leaves behind. Times are `time.perf_counter()` seconds, None where never reached.

    `error` is the code the client saw, "" where there was none; `posting` is how the hold ended.
    """

    endpoint: str
    request_id: str
    started_at: float
    principal: Principal | None = None
    kind: str = ""
    model: str = ""
    hold_nano_usd: int = 0
    sent_at: float | None = None
    first_byte_at: float | None = None
    upstream_ended_at: float | None = None
    status: int = 0
    error: str = ""
    fault: str = ""
    """What was wrong between us and the upstream, for the log alone."""
    client_left: bool = False
    posting: Posting | None = None


class Metrics:
    """All metrics of one process. `observe` is called once a call."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._teams: set[str] = set()
        self._requests = self._counter(
            "gateway_requests", "Calls answered.", "endpoint", "model", "team", "status", "error"
        )
        self._tokens = self._counter("gateway_tokens", "Tokens billed.", "team", "model", "direction")
        self._images = self._counter("gateway_images", "Images billed.", "team", "model")
        self._cost = self._counter("gateway_cost_usd", "Dollars billed.", "team", "model", "kind")
        self._estimated = self._counter("gateway_usage_estimated", "Calls billed by estimate.", "model")
        self._overruns = self._counter("gateway_hold_overruns", "Charges above their hold.", "model")
        self._duration = self._seconds("gateway_request_duration_seconds", "From a call's first to its last byte.")
        self._first_byte = self._seconds("gateway_time_to_first_byte_seconds", "Until the answer's first byte.")
        self._upstream = self._seconds("gateway_upstream_duration_seconds", "From sending upstream to its last byte.")
        self._overhead = self._seconds("gateway_overhead_seconds", "A call's duration less the upstream's.")
        self.streams_in_flight = Gauge("gateway_streams_in_flight", "Answers being streamed.", registry=self.registry)
        self._holds_open = Gauge("gateway_holds_open", "Holds of running calls.", registry=self.registry)

    def observe(self, record: CallRecord) -> None:
        """Count one finished call and write its log line."""
        duration_s = _now_since(record)
        team = self._team(record.principal)
        model = record.model or "none"
        self._requests.labels(record.endpoint, model, team, str(record.status), record.error).inc()
        self._duration.labels(record.endpoint).observe(duration_s)
        self._observe_times(record, duration_s)
        if record.posting is not None and record.posting.type == "capture":
            self._observe_charge(record, record.posting, team, model)
        log.info(_line(record, duration_s))

    def render(self, holds_open: int) -> bytes:
        """The exposition text."""
        self._holds_open.set(holds_open)
        return generate_latest(self.registry)

    def _observe_times(self, record: CallRecord, duration_s: float) -> None:
        if record.first_byte_at is not None:
            self._first_byte.labels(record.endpoint).observe(record.first_byte_at - record.started_at)
        if record.sent_at is not None and record.upstream_ended_at is not None:
            upstream_s = record.upstream_ended_at - record.sent_at
            self._upstream.labels(record.endpoint).observe(upstream_s)
            self._overhead.labels(record.endpoint).observe(max(0.0, duration_s - upstream_s))

    def _observe_charge(self, record: CallRecord, posting: Posting, team: str, model: str) -> None:
        usage = posting.usage
        self._tokens.labels(team, model, "input").inc(usage.prompt_tokens)
        self._tokens.labels(team, model, "output").inc(usage.completion_tokens)
        if record.kind == "image":
            self._images.labels(team, model).inc(usage.units)
        self._cost.labels(team, model, record.kind).inc(posting.cost_nano_usd / NANO_PER_USD)
        if ESTIMATED in posting.flags:
            self._estimated.labels(model).inc()
        if OVERRUN in posting.flags:
            self._overruns.labels(model).inc()

    def _team(self, principal: Principal | None) -> str:
        if principal is None:
            return "none"
        if principal.team not in self._teams:
            if len(self._teams) >= TEAMS_MAX:
                return "other"
            self._teams.add(principal.team)
        return principal.team

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _seconds(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ("endpoint",), buckets=_SECONDS, registry=self.registry)


def _now_since(record: CallRecord) -> float:
    return time.perf_counter() - record.started_at


def _line(record: CallRecord, duration_s: float) -> str:
    """One JSON object on one line: json.dumps escapes CR, LF and every other control character."""
    who, posting = record.principal, record.posting
    line: dict[str, object] = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event": "call",
        "request_id": record.request_id,
        "endpoint": record.endpoint,
        "status": record.status,
        "error": record.error or None,
        "fault": record.fault or None,
        "org": who.org if who else None,
        "team": who.team if who else None,
        "user": who.user if who else None,
        "key": who.key if who else None,
        "kind": record.kind or None,
        "model": record.model or None,
        "hold_nano_usd": record.hold_nano_usd,
        "outcome": posting.type if posting else None,
        "cost_nano_usd": posting.cost_nano_usd if posting else 0,
        "prompt_tokens": posting.usage.prompt_tokens if posting else 0,
        "completion_tokens": posting.usage.completion_tokens if posting else 0,
        "units": posting.usage.units if posting else 0,
        "usage_source": posting.usage_source if posting and posting.type == "capture" else None,
        "flags": list(posting.flags) if posting else [],
        "client_left": record.client_left,
        "duration_ms": _ms(duration_s),
        "first_byte_ms": _ms_between(record.started_at, record.first_byte_at),
        "upstream_ms": _ms_between(record.sent_at, record.upstream_ended_at),
    }
    return json.dumps(line, separators=(",", ":"))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _ms_between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else _ms(end - start)
