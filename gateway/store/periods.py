"""Days and months, local to the organisation, and hours of UTC: their names, and which of them make up an interval."""

from datetime import UTC, date, datetime, timedelta
from typing import Literal

from gateway.billing.budget import Calendar
from gateway.billing.ledger import Entry

Grain = Literal["hour", "day", "month"]
HOUR_MS = 3600 * 1000


def period_of(calendar: Calendar, instant_ms: int, grain: str) -> str:
    """The name of the day (2026-11-21), month (2026-11) or hour (2026-11-21T20Z) an instant belongs to."""
    if grain == "hour":
        return _hour_name(instant_ms)
    day = calendar.date_at(instant_ms).isoformat()
    return day if grain == "day" else day[:7]


def counts_at_ms(calendar: Calendar, entry: Entry) -> int:
    """The instant by which an entry counts in reports (ADR 0020)."""
    return calendar.counts_at_ms(entry.admitted_at_ms, entry.at_ms)


def for_period(calendar: Calendar, entry: Entry) -> str | None:
    """The month an entry belongs to, where it counts in a later one because its own was closed; else None."""
    is_late = counts_at_ms(calendar, entry) != entry.admitted_at_ms
    return period_of(calendar, entry.admitted_at_ms, "month") if is_late else None


def periods_within(calendar: Calendar, from_ms: int, to_ms: int, grain: str) -> tuple[Grain, list[str]] | None:
    """The cells that make up an interval exactly: their grain, no coarser than the one asked for, and their names.

    None: its borders are within hours (grain hour) or days, so no cells do.
    """
    if grain == "hour":
        whole_hours = from_ms % HOUR_MS == to_ms % HOUR_MS == 0
        return ("hour", [_hour_name(at_ms) for at_ms in range(from_ms, to_ms, HOUR_MS)]) if whole_hours else None
    first, after = calendar.date_at(from_ms), calendar.date_at(to_ms - 1) + timedelta(days=1)
    if calendar.midnight_ms(first) != from_ms or calendar.midnight_ms(after) != to_ms:
        return None
    days = days_between(first, after - timedelta(days=1))
    if grain != "day" and first.day == after.day == 1:
        return "month", list(dict.fromkeys(day[:7] for day in days))
    return "day", days


def days_between(first: date, last: date) -> list[str]:
    """Names of all days from first to last, both included."""
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


def _hour_name(instant_ms: int) -> str:
    return datetime.fromtimestamp(instant_ms // 1000, UTC).strftime("%Y-%m-%dT%HZ")
