"""What `from` and `to` mean: a date is a whole day of the organisation's time zone, an instant is itself."""

import re
from datetime import date, timedelta

from gateway.billing.budget import Calendar, Window
from gateway.billing.errors import InvalidRequest
from gateway.store.scopes import Scopes
from gateway.wire.scopes import instant_ms

_DAYS_MAX = 800
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Periods:
    """Reads intervals as callers write them."""

    def __init__(self, scopes: Scopes, calendar: Calendar) -> None:
        self._scopes = scopes
        self._calendar = calendar

    async def this_month_or(self, first: str, last: str) -> tuple[int, int]:
        """Half-open, in ms. What is empty is this month's border. Raises InvalidRequest naming `from` or `to`."""
        return await self.within(first, last, "month")

    async def within(self, first: str, last: str, window: Window) -> tuple[int, int]:
        """The same with the borders of today, this week or this month."""
        span = self._calendar.spans_at(await self._scopes.now_ms()).of(window)
        from_ms = self._border(first, "from", after=False) if first else span.start_ms
        to_ms = self._border(last, "to", after=True) if last else (span.end_ms or 0)
        if not last and from_ms >= to_ms:
            to_ms = from_ms + 1
        return _checked(from_ms, to_ms)

    def between(self, first: str, last: str) -> tuple[int, int]:
        """Half-open, in ms: dates are whole days, both included. Raises InvalidRequest naming `from` or `to`."""
        return _checked(self._border(first, "from", after=False), self._border(last, "to", after=True))

    def _border(self, text: str, param: str, *, after: bool) -> int:
        return border_ms(text, param, self._calendar, after=after)


def border_ms(text: str, param: str, calendar: Calendar, *, after: bool = False) -> int:
    """The first instant of a date (`after`: of the day behind it), or the instant itself. Raises InvalidRequest."""
    if not _DATE.fullmatch(text):
        return instant_ms(text, param, "a date, such as 2026-12-01, or ")
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"{param} is a date that the calendar does not have.", param=param) from None
    if not date(1971, 1, 1) <= day < date(9000, 1, 1):
        raise InvalidRequest(f"{param} must be a date between the years 1971 and 9000.", param=param)
    return calendar.midnight_ms(day + timedelta(days=1) if after else day)


def _checked(from_ms: int, to_ms: int) -> tuple[int, int]:
    if from_ms >= to_ms:
        raise InvalidRequest("from must be before to.", param="from")
    if to_ms - from_ms > _DAYS_MAX * 86_400_000:
        raise InvalidRequest(f"from and to are at most {_DAYS_MAX} days apart.", param="to")
    return from_ms, to_ms
