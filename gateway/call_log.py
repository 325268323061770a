"""What one call leaves behind, and the log lines: of each call, each other request, what was no request, each threshold
that is crossed, hold that expires, and login that fails.

Each is one JSON object, all ASCII, with control characters escaped: whatever a stranger puts into it, it is one line.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from gateway.billing.budget import Crossing
from gateway.billing.ledger import OpenHold, Posting
from gateway.billing.principal import Principal
from gateway.billing.usage import Usage

call_log = logging.getLogger("gateway.call")
alert_log = logging.getLogger("gateway.alert")
refused_log = logging.getLogger("gateway.refused")
"""For what anybody can have written without a good key: such records may be dropped."""
JSON_LOGS = frozenset({call_log.name, alert_log.name, refused_log.name})
"""Loggers whose messages are lines already."""

_PATH_CHARACTERS_MAX = 200


@dataclass(slots=True)
class Lines:
    """Where the lines of calls and of other requests go; without anything else, to a record each.

    Whoever has no good key can have any number written. Those give way to the others where not all can be kept;
    `on_dropped` is called with "caller" or "stranger" for each line that is not.
    """

    of_caller: Callable[[str], None] = call_log.info
    of_stranger: Callable[[str], None] = call_log.info
    on_dropped: Callable[[str], None] = lambda whose: None


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


def call_line(record: CallRecord, duration_s: float) -> str:
    """The one line of a call that is over: a JSON object, all ASCII, control characters escaped."""
    line = _call_line(record, duration_s)
    try:
        encoded = _encode(line)
        if encoded.isascii() and b"\x7f" not in encoded:
            return encoded.decode("ascii")
    except UnicodeEncodeError:
        pass  # half of a surrogate pair, which only an escape can write
    return json.dumps(msgspec.structs.asdict(line), separators=(",", ":"))


@dataclass(slots=True)
class RequestRecord:
    """What a request leaves behind that is no call. `status` is 0 where it was not answered: its client had left."""

    request_id: str
    method: str
    path: str
    status: int = 0
    error: str | None = None
    role: str | None = None
    principal: Principal | None = None


def request_line(record: RequestRecord, duration_s: float) -> str:
    """The one line of a request that is over. Of its path the beginning, of its query nothing."""
    who = record.principal
    line = {
        "at": now_text(),
        "event": "request",
        "request_id": record.request_id,
        "method": record.method,
        "path": record.path[:_PATH_CHARACTERS_MAX],
        "status": record.status or None,
        "error": record.error,
        "org": who.org if who else None,
        "team": who.team if who else None,
        "user": who.user if who else None,
        "key": who.key if who else None,
        "role": record.role,
        "duration_ms": _ms(duration_s),
    }
    return json.dumps(line, separators=(",", ":"))


def log_refused(request_id: str, status: int, code: str, address: str | None) -> None:
    """Write the line of what was no request that could be served: of what was sent nothing is told."""
    line = {
        "at": now_text(),
        "event": "refused",
        "request_id": request_id,
        "status": status,
        "error": code,
        "address": address,
    }
    refused_log.info(json.dumps(line, separators=(",", ":")))


def log_crossing(crossing: Crossing) -> None:
    """Write the line of a soft threshold that was crossed."""
    alert_log.warning(_crossing_line(crossing))


def log_expiry(hold: OpenHold, posting: Posting) -> None:
    """Write the line of a hold that expired: its gateway was not heard of for a whole lease."""
    line = {
        "at": now_text(),
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
    line = {"at": now_text(), "event": "failed_login", "error": code, "address": address}
    refused_log.warning(json.dumps(line, separators=(",", ":")))


class _CallLine(msgspec.Struct, frozen=True, gc=False):
    """A call's line: its fields in their order. docs/operations.md says what each means."""

    at: str
    event: str
    request_id: str
    endpoint: str
    status: int
    error: str | None
    fault: str | None
    org: str | None
    team: str | None
    user: str | None
    key: str | None
    kind: str | None
    model: str | None
    hold_nano_usd: int
    outcome: str | None
    cost_nano_usd: int
    prompt_tokens: int
    completion_tokens: int
    units: int
    usage_source: str | None
    flags: tuple[str, ...]
    client_left: bool
    duration_ms: float
    first_byte_ms: float | None
    upstream_ms: float | None


_encode = msgspec.json.Encoder().encode
_NOTHING_USED = Usage()


def _call_line(record: CallRecord, duration_s: float) -> _CallLine:
    """By position: named, the fields would take four times as long to hand over as the line takes to write."""
    who, posting = record.principal, record.posting
    usage = posting.usage if posting else _NOTHING_USED
    return _CallLine(
        now_text(),
        "call",
        record.request_id,
        record.endpoint,
        record.status,
        record.error or None,
        record.fault or None,
        who.org if who else None,
        who.team if who else None,
        who.user if who else None,
        who.key if who else None,
        record.kind or None,
        record.model or None,
        record.hold_nano_usd,
        posting.type if posting else None,
        posting.cost_nano_usd if posting else 0,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.units,
        posting.usage_source if posting and posting.type == "capture" else None,
        posting.flags if posting else (),
        record.client_left,
        _ms(duration_s),
        _ms_between(record.started_at, record.first_byte_at),
        _ms_between(record.sent_at, record.upstream_ended_at),
    )


def _crossing_line(crossing: Crossing) -> str:
    line = {
        "at": now_text(),
        "event": "threshold",
        "scope": crossing.scope.kind,
        "id": crossing.scope.id,
        "window": crossing.window,
        "percent": crossing.percent,
        "limit_nano_usd": crossing.limit_nano_usd,
        "spent_nano_usd": crossing.spent_nano_usd,
    }
    return json.dumps(line, separators=(",", ":"))


def now_text() -> str:
    """This instant, as every line has it."""
    second, ms = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_second_text(second)}.{ms:03}Z"


@lru_cache(maxsize=1)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _ms_between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else _ms(end - start)
