"""What one call leaves behind, and the log lines: of each call, threshold that is crossed, hold that expires, and login
that fails."""

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.billing.budget import Crossing
from gateway.billing.ledger import OpenHold, Posting
from gateway.billing.principal import Principal

log = logging.getLogger("gateway.call")
alert_log = logging.getLogger("gateway.alert")


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
    refused_at: str | None = None
    """The kind of scope that refused the call ("none": the call itself was at fault); None where it was not refused."""
    client_left: bool = False
    client_wait_s: float = 0.0
    """Spent outside the upstream's time on waiting for the client: to send its body, to read its answer."""
    posting: Posting | None = None


def log_call(record: CallRecord, duration_s: float) -> None:
    """Write the one line of a call that is over."""
    log.info(_line(record, duration_s))


def log_crossing(crossing: Crossing) -> None:
    """Write the line of a soft threshold that was crossed."""
    alert_log.warning(_crossing_line(crossing))


def log_expiry(hold: OpenHold, posting: Posting) -> None:
    """Write the line of a hold that expired: its gateway was not heard of for a whole lease."""
    line = {
        "at": _now_text(),
        "event": "expiry",
        "request_id": hold.request_id,
        "org": hold.org,
        "team": hold.team,
        "user": hold.user,
        "key": hold.key,
        "kind": hold.kind,
        "model": hold.model,
        "hold_nano_usd": hold.hold_nano_usd,
        "cost_nano_usd": posting.cost_nano_usd,
        "flags": list(posting.flags),
    }
    alert_log.warning(json.dumps(line, separators=(",", ":")))


def log_failed_login(code: str, address: str) -> None:
    """Write the line of a login that failed; of the key that was typed nothing is told."""
    line = {"at": _now_text(), "event": "failed_login", "error": code, "address": address}
    alert_log.warning(json.dumps(line, separators=(",", ":")))


def _line(record: CallRecord, duration_s: float) -> str:
    """One JSON object on one line: json.dumps escapes CR, LF and every other control character."""
    who, posting = record.principal, record.posting
    line: dict[str, object] = {
        "at": _now_text(),
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


def _crossing_line(crossing: Crossing) -> str:
    line = {
        "at": _now_text(),
        "event": "threshold",
        "scope": crossing.scope.kind,
        "id": crossing.scope.id,
        "window": crossing.window,
        "percent": crossing.percent,
        "limit_nano_usd": crossing.limit_nano_usd,
        "spent_nano_usd": crossing.spent_nano_usd,
    }
    return json.dumps(line, separators=(",", ":"))


def _now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _ms_between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else _ms(end - start)
