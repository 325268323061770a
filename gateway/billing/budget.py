"""Windows a budget counts in, and what a budget says about an amount.

Laws:
- A window is half-open, `[starts_at, resets_at)`, its borders are local midnights of the organisation's
  time zone: a day may have 23 or 25 hours.
- A call belongs to the windows of the instant it was admitted, by Redis's clock, and so does its charge.
- `spent + held` never passes a limit by an admission.
- A month closes two days after its end: what is posted later counts in the reports of the instant it was posted.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Literal

from gateway.billing.principal import Scope

Window = Literal["total", "day", "week", "month", "prepaid"]
WINDOWS: tuple[Window, ...] = ("total", "day", "week", "month")
"""Windows in time, counted at every scope; a limit bounds them."""
BUDGET_WINDOWS: tuple[Window, ...] = (*WINDOWS, "prepaid")
"""What a budget may be of. `prepaid` is bounded by what was paid in, and counts what is admitted under it: ADR 0011."""
MONTH_STAYS_OPEN_MS = 48 * 3600 * 1000
"""How long after its end a month still takes what belongs to it: as long as a hold's tombstone takes late charges."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open interval in milliseconds since the epoch; `end_ms` is None for `total` and `prepaid`."""

    start_ms: int
    end_ms: int | None

    def holds(self, instant_ms: int) -> bool:
        return self.start_ms <= instant_ms and (self.end_ms is None or instant_ms < self.end_ms)


@dataclass(frozen=True, slots=True)
class Spans:
    """The three moving windows around one instant."""

    day: Span
    week: Span
    month: Span

    def of(self, window: Window) -> Span:
        return Span(0, None) if window in ("total", "prepaid") else getattr(self, window)

    def hold(self, instant_ms: int) -> bool:
        """Whether all three still contain the instant (the day ends first, but clocks also go back)."""
        return self.day.holds(instant_ms) and self.week.holds(instant_ms) and self.month.holds(instant_ms)


@dataclass(frozen=True, slots=True)
class Calendar:
    """What turns an instant into windows: the organisation's zone and the first day of its week (0 = Monday)."""

    zone: tzinfo
    first_weekday: int = 0

    def spans_at(self, instant_ms: int) -> Spans:
        today = self.date_at(instant_ms)
        monday_offset = (today.weekday() - self.first_weekday) % 7
        week = today - timedelta(days=monday_offset)
        month = today.replace(day=1)
        next_month = (month + timedelta(days=32)).replace(day=1)
        return Spans(
            day=self._span(today, today + timedelta(days=1)),
            week=self._span(week, week + timedelta(days=7)),
            month=self._span(month, next_month),
        )

    def counts_at_ms(self, admitted_at_ms: int, posted_at_ms: int) -> int:
        """The instant by which an entry counts in reports: that of its admission, unless its month was closed when it
        was posted. A closed month is never changed, so its report stays what was printed.
        """
        if posted_at_ms - admitted_at_ms < MONTH_STAYS_OPEN_MS:
            return admitted_at_ms
        return posted_at_ms if posted_at_ms >= self.closes_at_ms(admitted_at_ms) else admitted_at_ms

    def closes_at_ms(self, instant_ms: int) -> int:
        """When the month of an instant closes: nothing that is posted from then on counts in it."""
        return (self.spans_at(instant_ms).month.end_ms or 0) + MONTH_STAYS_OPEN_MS

    def date_at(self, instant_ms: int) -> date:
        """The local date of an instant.

        Where a zone repeats the minutes after midnight, the date does not go back with the clock.
        """
        local = datetime.fromtimestamp(instant_ms / 1000, self.zone).date()
        following = local + timedelta(days=1)
        return following if instant_ms >= self.midnight_ms(following) else local

    def midnight_ms(self, day: date) -> int:
        """The first instant of a local date; where midnight is skipped, the instant of the jump."""
        local = datetime(day.year, day.month, day.day, tzinfo=self.zone)
        return round(local.timestamp() * 1000)

    def _span(self, first: date, after: date) -> Span:
        return Span(self.midnight_ms(first), self.midnight_ms(after))


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on one window of one scope. `soft_percent` are thresholds that only tell, never refuse.

    A prepaid budget has no limit of its own (0 here): it is what was paid in, which the ledger knows.
    """

    window: Window
    limit_nano_usd: int = 0
    soft_percent: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Balance:
    """What one window of one scope has spent and holds, in nano-USD."""

    span: Span
    spent_nano_usd: int
    held_nano_usd: int


@dataclass(frozen=True, slots=True)
class Crossing:
    """A charge brought what a window has spent to a soft threshold of its limit (of prepaid: of what was paid in)."""

    scope: Scope
    window: Window
    percent: int
    limit_nano_usd: int
    spent_nano_usd: int


def instant(ms: int) -> str:
    """Milliseconds since the epoch as RFC 3339 in UTC; milliseconds are written only where there are any."""
    # In integers: a float of seconds loses the last millisecond of distant years.
    moment = _EPOCH + timedelta(milliseconds=ms)
    text = moment.isoformat(timespec="milliseconds" if ms % 1000 else "seconds")
    return text.replace("+00:00", "Z")
