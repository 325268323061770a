"""Usage reports: what they may be grouped by, from when to when, and their rows. `web.usage` writes them down."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence

from starlette.responses import Response

from gateway.billing.budget import Calendar
from gateway.billing.errors import InvalidRequest, UnsupportedGrouping
from gateway.billing.principal import Principal
from gateway.store.cells import TAG, Cell, Measures
from gateway.store.reports import HOURS_REPORTED_MS, Reports
from gateway.store.scopes import Scopes
from gateway.web.periods import Periods
from gateway.web.usage import Row, joined, usage_csv, usage_json

OWNERS = ("org", "team", "user", "key")
DETAILS = ("model", "kind")
GRAINS = ("day", "month", "hour")
ROWS_MAX = 50_000
"""Of a report: about ten megabytes of JSON."""
REPORT_PARAMS: Mapping[str, str] = {"group_by": "", "from": "", "to": "", "format": "json"}
_SCANNED_DAYS_MAX = 7
"""A key's holder may have so much of everybody's ledger read for their own report."""


class UsageReports:
    """Makes reports: over all owners of an axis, or one key's own."""

    def __init__(self, reports: Reports, scopes: Scopes, calendar: Calendar) -> None:
        self._reports = reports
        self._scopes = scopes
        self._periods = Periods(scopes, calendar)
        self._scanning = asyncio.Lock()

    async def rows(self, org: str, groups: Sequence[str], first: str, last: str) -> list[Row]:
        """Rows of a report, sorted by their group.

        Raises InvalidRequest: a date or instant that is not one, or more rows than an answer may have.
        UnsupportedGrouping: hours that are too far away.
        """
        axis = next((group for group in groups if group in (*OWNERS, TAG)), "org")
        from_ms, to_ms = await self._periods.this_month_or(first, last)
        grain = _grain_of(groups)
        if grain == "hour":
            await self._refuse_distant_hours(from_ms, to_ms)
        return await _summed(self._reports.over(org, axis, from_ms, to_ms, grain), groups, org)

    async def rows_of_key(self, who: Principal, groups: Sequence[str], first: str, last: str) -> list[Row]:
        """The same of one key. By the hour a day is shown unless more is asked for.

        No cells have hours of a key, nor parts of a day: those are read from everybody's entries, for one key at a
        time. Raises InvalidRequest: also where that would be more than a week of them.
        """
        grain = _grain_of(groups)
        from_ms, to_ms = await self._periods.within(first, last, "day" if grain == "hour" else "month")
        in_cells = self._reports.has_cells("key", from_ms, to_ms, grain)
        if not in_cells and to_ms - from_ms > _SCANNED_DAYS_MAX * 24 * 3600 * 1000:
            raise InvalidRequest(
                f"Usage by the hour, or from or to an instant within a day, is told of {_SCANNED_DAYS_MAX} days at "
                "most; move from and to together, or ask for whole days.",
                param="from",
            )
        async with contextlib.nullcontext() if in_cells else self._scanning:
            cells = self._reports.over(who.org, "key", from_ms, to_ms, grain, (who.key,))
            return await _summed(cells, groups, who.org)

    async def _refuse_distant_hours(self, from_ms: int, to_ms: int) -> None:
        now_ms = await self._scopes.now_ms()
        if from_ms < now_ms - HOURS_REPORTED_MS or to_ms > now_ms + HOURS_REPORTED_MS:
            raise UnsupportedGrouping(
                "Reports by the hour reach 35 days back, and no further ahead; group by day, or move from and to.",
                param="group_by",
            )


async def usage_answer(groups: Sequence[str], rows: Sequence[Row], form: str) -> Response:
    """A report as JSON or CSV."""
    if form == "csv":
        return Response(await joined(usage_csv(groups, rows)), media_type="text/csv; charset=utf-8")
    return Response(await joined(usage_json(groups, rows)), media_type="application/json")


def check_format(form: str) -> None:
    if form not in ("json", "csv"):
        raise InvalidRequest("format must be json or csv.", param="format")


def grouping(text: str) -> tuple[str, ...]:
    """Check `group_by`: one owner (org, team, user, key) or none, with model or kind or neither, and day, month or
    neither; hour goes with team and model, tag with nothing. Raises UnsupportedGrouping."""
    if text == TAG:
        return (TAG,)
    if TAG in text.split(","):
        raise UnsupportedGrouping("tag stands alone: a call counts under each of its tags.", param="group_by")
    groups = _groups_of(text, OWNERS, DETAILS, GRAINS)
    if "hour" in groups and not set(groups) <= {"team", "model", "hour"}:
        raise UnsupportedGrouping("hour goes with team and model only.", param="group_by")
    return groups


def own_grouping(text: str) -> tuple[str, ...]:
    """Check `group_by` of a key's own usage: model or kind or neither, and hour, day, month or neither.

    Raises UnsupportedGrouping.
    """
    return _groups_of(text, DETAILS, GRAINS)


def _groups_of(text: str, *families: Sequence[str]) -> tuple[str, ...]:
    groups = tuple(text.split(","))
    for family in families:
        if sum(group in family for group in groups) > 1:
            raise UnsupportedGrouping(f"group_by takes one of {', '.join(family)}.", param="group_by")
    known = [group for family in families for group in family]
    if not set(groups) <= set(known):
        raise UnsupportedGrouping(f"group_by takes {', '.join(known)}, separated by commas.", param="group_by")
    return groups


def _grain_of(groups: Sequence[str]) -> str:
    return next((group for group in groups if group in GRAINS), "")


async def _summed(cells: AsyncIterator[Cell], groups: Sequence[str], org: str) -> list[Row]:
    sums: dict[tuple[str, ...], Measures] = defaultdict(Measures)
    async for cell in cells:
        sums[tuple(_place(cell, group, org) for group in groups)] += cell.measures
        if len(sums) > ROWS_MAX:
            raise InvalidRequest(
                f"The report has more than {ROWS_MAX} rows: move from and to together, or group by less.",
                param="group_by",
            )
    return sorted(sums.items())


def _place(cell: Cell, group: str, org: str) -> str:
    match group:
        case "org":
            return org
        case "model":
            return cell.model
        case "kind":
            return cell.kind
        case "day" | "month" | "hour":
            return cell.period
        case _:
            return cell.id
