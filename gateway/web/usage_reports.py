"""Usage reports: what they may be grouped by, from when to when, and their rows. `web.usage` writes them down."""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from starlette.responses import Response

from gateway.billing.budget import Calendar
from gateway.billing.errors import InvalidRequest, LedgerUnavailable, UnsupportedGrouping
from gateway.billing.principal import Principal, Scope, ScopeKind
from gateway.billing.reach import Reach
from gateway.store.cells import TAG, Cell, Measures
from gateway.store.reports import HOURS_REPORTED_MS, Reports
from gateway.store.scopes import Scopes
from gateway.web.periods import Periods
from gateway.web.searches import Check, Searches
from gateway.web.usage import Row, joined, usage_csv, usage_json

OWNERS = ("org", "team", "user", "key")
DETAILS = ("model", "kind")
GRAINS = ("day", "month", "hour")
ROWS_MAX = 50_000
"""Of a report: about ten megabytes of JSON."""
REPORT_PARAMS: Mapping[str, str] = {"group_by": "", "from": "", "to": "", "format": "json"}
_SCANNED_DAYS_MAX = 7
"""Who does not reach everybody's ledger may have so much of it read for their own report."""
_READ_TRIES = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """A report that is asked for: by what it is grouped, and `from` and `to` as they were written."""

    groups: Sequence[str]
    first: str
    last: str
    check_there: Check
    """Raises, where whoever asked has left; awaited only where it takes a search."""


class UsageReports:
    """Makes reports: over all owners of an axis, over those of one team, or one key's own."""

    def __init__(self, reports: Reports, scopes: Scopes, calendar: Calendar, searches: Searches) -> None:
        self._reports = reports
        self._scopes = scopes
        self._periods = Periods(scopes, calendar)
        self._searches = searches

    async def rows(self, reach: Reach, asked: Asked) -> list[Row]:
        """Rows of a report about what is in reach, sorted by their group.

        Raises InvalidRequest: a date or instant that is not one, or more rows than an answer may have.
        UnsupportedGrouping: hours that are too far away; tags, for who does not reach the organisation.
        Where no cells have it, also what `Searches.by` raises.
        """
        if not reach.is_whole and TAG in asked.groups:
            raise UnsupportedGrouping(
                "Tags are counted for the whole organisation; group by model, kind or an owner.", param="group_by"
            )
        match reach.home.kind, reach.who:
            case "organisation", _:
                return await self._rows_of_all(reach.org, asked)
            case "key", Principal() as who:
                return await self.rows_of_key(who, asked)
            case _:
                return await self._rows_of_team(reach.org, reach.home, asked)

    async def _rows_of_all(self, org: str, asked: Asked) -> list[Row]:
        groups = asked.groups
        axis = next((group for group in groups if group in (*OWNERS, TAG)), "org")
        from_ms, to_ms = await self._periods.this_month_or(asked.first, asked.last)
        grain = _grain_of(groups)
        if grain == "hour":
            await self._refuse_distant_hours(from_ms, to_ms)
        return await _summed(self._reports.over(org, axis, from_ms, to_ms, grain), groups, {"org": org})

    async def _rows_of_team(self, org: str, team: Scope, asked: Asked) -> list[Row]:
        """The same of one team."""
        groups = asked.groups
        axis: ScopeKind = "user" if "user" in groups else "key" if "key" in groups else "team"
        from_ms, to_ms = await self._periods.this_month_or(asked.first, asked.last)
        grain, labels = _grain_of(groups), {"org": org, "team": team.id}
        if grain == "hour":
            await self._refuse_distant_hours(from_ms, to_ms)
        if not self._reports.has_cells(axis, from_ms, to_ms, grain):
            return await self._rows_found(org, team, axis, from_ms, to_ms, asked, labels)
        if axis == "team":
            return await _summed(self._reports.over(org, axis, from_ms, to_ms, grain, (team.id,)), groups, labels)
        return await self._rows_of_members(org, team.id, axis, from_ms, to_ms, asked)

    async def _rows_of_members(
        self, org: str, team: str, axis: ScopeKind, from_ms: int, to_ms: int, asked: Asked
    ) -> list[Row]:
        """By a team's users or keys: they are many owners, so they are read until all was of one moment."""
        await self._reports.catch_up(org)
        for _ in range(_READ_TRIES):
            checkpoint = await self._reports.checkpoint(org)
            ids = [scope.id async for scope in self._scopes.owned(org, axis, team=team)]
            cells = self._reports.of_team(org, team, axis, ids, from_ms, to_ms, _grain_of(asked.groups))
            rows = await _summed(cells, asked.groups, {"org": org, "team": team})
            if checkpoint == await self._reports.checkpoint(org):
                return rows
        raise LedgerUnavailable("The reports are being brought up to date at this moment. Try again.")

    async def rows_of_key(self, who: Principal, asked: Asked) -> list[Row]:
        """The same of one key. By the hour a day is shown unless more is asked for.

        No cells have hours of a key, nor parts of a day: those are searched for. Raises InvalidRequest: also where that
        would be more than a week of them.
        """
        grain = _grain_of(asked.groups)
        from_ms, to_ms = await self._periods.within(asked.first, asked.last, "day" if grain == "hour" else "month")
        labels = {"org": who.org, "team": who.team, "user": who.user or "", "key": who.key}
        if not self._reports.has_cells("key", from_ms, to_ms, grain):
            return await self._rows_found(who.org, Scope("key", who.key), "key", from_ms, to_ms, asked, labels)
        cells = self._reports.over(who.org, "key", from_ms, to_ms, grain, (who.key,))
        return await _summed(cells, asked.groups, labels)

    async def _rows_found(
        self,
        org: str,
        home: Scope,
        axis: ScopeKind,
        from_ms: int,
        to_ms: int,
        asked: Asked,
        labels: Mapping[str, str],
    ) -> list[Row]:
        """Of a team or a key, where no cells have it: searched for among everybody's entries. Raises InvalidRequest:
        it would be more of them than that is worth."""
        if to_ms - from_ms > _SCANNED_DAYS_MAX * 24 * 3600 * 1000:
            raise InvalidRequest(
                f"Usage by the hour, or from or to an instant within a day, is told of {_SCANNED_DAYS_MAX} days at "
                "most; move from and to together, or ask for whole days.",
                param="from",
            )
        grain, ids = _grain_of(asked.groups) or "day", (home.id,) if home.kind == axis else None
        team = home.id if home.kind == "team" else None
        async with self._searches.by(org, home, asked.check_there) as next_piece:
            cells = self._reports.cells_between(org, axis, from_ms, to_ms, grain, ids, team, next_piece)
            return await _summed(cells, asked.groups, labels)

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


async def _summed(cells: AsyncIterator[Cell], groups: Sequence[str], labels: Mapping[str, str]) -> list[Row]:
    """`labels`: the owners that are the same for all cells."""
    sums: dict[tuple[str, ...], Measures] = defaultdict(Measures)
    async for cell in cells:
        sums[tuple(labels[group] if group in labels else _place(cell, group) for group in groups)] += cell.measures
        if len(sums) > ROWS_MAX:
            raise InvalidRequest(
                f"The report has more than {ROWS_MAX} rows: move from and to together, or group by less.",
                param="group_by",
            )
    return sorted(sums.items())


def _place(cell: Cell, group: str) -> str:
    match group:
        case "model":
            return cell.model
        case "kind":
            return cell.kind
        case "day" | "month" | "hour":
            return cell.period
        case _:
            return cell.id
