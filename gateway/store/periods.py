"""Days and months, local to the organisation, and hours of UTC: their names, and which of them make up an interval."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from gateway.billing.budget import Calendar
from gateway.billing.ledger import Entry

Grain = Literal["hour", "day", "month"]
HOUR_MS = 3600 * 1000
_REMEMBERED = 4


def period_of(calendar: Calendar, instant_ms: int, grain: str) -> str:
    """The name of the day (2026-11-21), month (2026-11) or hour (2026-11-21T20Z) an instant belongs to."""
    if grain == "hour":
        return _hour_name(instant_ms)
    day = calendar.date_at(instant_ms).isoformat()
    return day if grain == "day" else day[:7]


@dataclass(frozen=True, slots=True, eq=False)
class Periods:
    """The names of the month, day and hour that all instants of a half-open interval (ms) belong to."""

    month: str
    day: str
    hour: str
    from_ms: int
    until_ms: int


class Timetable:
    """`period_of` for many instants that lie close together: their names are worked out once."""

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar
        self._remembered: deque[Periods] = deque(maxlen=_REMEMBERED)

    def at(self, instant_ms: int) -> Periods:
        """The periods an instant belongs to; the same object for its neighbours, as long as it is remembered."""
        for periods in self._remembered:  # several, for around the turn of an hour calls of both end in any order
            if periods.from_ms <= instant_ms < periods.until_ms:
                return periods
        self._remembered.appendleft(self._worked_out(instant_ms))
        return self._remembered[0]

    def _worked_out(self, instant_ms: int) -> Periods:
        day = self._calendar.date_at(instant_ms)
        hour_ms = instant_ms - instant_ms % HOUR_MS
        return Periods(
            month=day.isoformat()[:7],
            day=day.isoformat(),
            hour=_hour_name(instant_ms),
            from_ms=max(hour_ms, self._calendar.midnight_ms(day)),
            until_ms=min(hour_ms + HOUR_MS, self._calendar.midnight_ms(day + timedelta(days=1))),
        )


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
