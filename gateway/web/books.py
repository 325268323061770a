"""The books on the control plane: usage reports, ledger entries, open holds."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.billing.budget import Calendar, instant
from gateway.billing.errors import InvalidRequest, UnsupportedGrouping
from gateway.billing.ledger import Entry, OpenHold
from gateway.billing.money import format_usd
from gateway.store.cells import Cell, Measures
from gateway.store.ledger import Ledger
from gateway.store.periods import counts_at_ms, for_period
from gateway.store.reports import HOURS_REPORTED_MS, Reports
from gateway.store.scopes import Scopes
from gateway.web.admin import READERS
from gateway.web.auth import Authenticator, Caller
from gateway.web.http import guarded, json_response, limit_of, query
from gateway.web.periods import Periods
from gateway.web.usage import Row, joined, usage_csv, usage_json

_OWNERS = ("org", "team", "user", "key")
_DETAILS = ("model", "kind")
_GRAINS = ("day", "month", "hour")
_SCANNED_MAX = 20_000
ROWS_MAX = 50_000
"""Of a report: about ten megabytes of JSON."""
_HOLD_CURSOR = re.compile(r"([0-9]{1,15})-([0-9A-Za-z_-]{1,100})")
_CURSOR = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")


class ReadEntries(Protocol):
    """The ledger's whole stream, or a part of it, as a list reads it."""

    async def __call__(self, org: str, *, from_ms: int | None = None, after: str | None = None) -> list[Entry]: ...


class Books:
    """Handlers of `/admin/v1/usage`, `/ledger`, `/holds`, and the list of `/credits`."""

    def __init__(
        self, auth: Authenticator, ledger: Ledger, reports: Reports, scopes: Scopes, calendar: Calendar
    ) -> None:
        self._auth = auth
        self._ledger = ledger
        self._reports = reports
        self._scopes = scopes
        self._calendar = calendar
        self._periods = Periods(scopes, calendar)

    def routes(self) -> list[Route]:
        return [
            Route("/admin/v1/usage", guarded(self._auth, READERS, self._usage), methods=["GET"]),
            Route("/admin/v1/ledger", guarded(self._auth, READERS, self._entries), methods=["GET"]),
            Route("/admin/v1/credits", guarded(self._auth, READERS, self._credits), methods=["GET"]),
            Route("/admin/v1/holds", guarded(self._auth, READERS, self._holds), methods=["GET"]),
        ]

    async def _usage(self, request: Request, caller: Caller) -> Response:
        params = query(request, {"group_by": "team", "from": "", "to": "", "format": "json"})
        groups = grouping(params["group_by"])
        if params["format"] not in ("json", "csv"):
            raise InvalidRequest("format must be json or csv.", param="format")
        rows = await self._rows(caller.org, groups, params["from"], params["to"])
        if params["format"] == "csv":
            return Response(await joined(usage_csv(groups, rows)), media_type="text/csv; charset=utf-8")
        return Response(await joined(usage_json(groups, rows)), media_type="application/json")

    async def _rows(self, org: str, groups: Sequence[str], first: str, last: str) -> list[Row]:
        """Rows of a report, sorted by their group.

        Raises InvalidRequest: a date or instant that is not one, or more rows than an answer may have.
        """
        axis = next((group for group in groups if group in _OWNERS), "org")
        from_ms, to_ms = await self._periods.this_month_or(first, last)
        grain = next((group for group in groups if group in _GRAINS), "")
        if grain == "hour":
            await self._refuse_distant_hours(from_ms, to_ms)
        sums: dict[tuple[str, ...], Measures] = defaultdict(Measures)
        async for cell in self._reports.over(org, axis, from_ms, to_ms, grain):
            sums[tuple(_place(cell, group, org) for group in groups)] += cell.measures
            if len(sums) > ROWS_MAX:
                raise InvalidRequest(
                    f"The report has more than {ROWS_MAX} rows: move from and to together, or group by less.",
                    param="group_by",
                )
        return sorted(sums.items())

    async def _refuse_distant_hours(self, from_ms: int, to_ms: int) -> None:
        now_ms = await self._scopes.now_ms()
        if from_ms < now_ms - HOURS_REPORTED_MS or to_ms > now_ms + HOURS_REPORTED_MS:
            raise UnsupportedGrouping(
                "Reports by the hour reach 35 days back, and no further ahead; group by day, or move from and to.",
                param="group_by",
            )

    async def _entries(self, request: Request, caller: Caller) -> Response:
        return await self._listing(request, caller, self._ledger.entries)

    async def _credits(self, request: Request, caller: Caller) -> Response:
        return await self._listing(request, caller, self._ledger.credits)

    async def _listing(self, request: Request, caller: Caller, read: ReadEntries) -> Response:
        filters = dict.fromkeys(("team", "user", "key", "model", "kind", "type", "request_id"), "")
        params = query(request, {**filters, "from": "", "to": "", "cursor": "", "limit": "100"})
        limit = limit_of(params["limit"])
        from_ms, to_ms = await self._periods.this_month_or(params["from"], params["to"])
        wanted = {name: params[name] for name in filters if params[name]}
        page, scanned, after = [], 0, stream_cursor(params["cursor"])
        while scanned < _SCANNED_MAX:
            entries = await read(caller.org, from_ms=from_ms, after=after)
            for entry in entries:
                after = entry.id
                if from_ms <= counts_at_ms(self._calendar, entry) < to_ms and _matches(entry, wanted):
                    page.append(entry_json(entry, self._calendar))
                if len(page) == limit:
                    return json_response({"data": page, "next_cursor": after})
            scanned += len(entries)
            if not entries:
                return json_response({"data": page, "next_cursor": None})
        return json_response({"data": page, "next_cursor": after})

    async def _holds(self, request: Request, caller: Caller) -> Response:
        params = query(request, {"limit": "1000", "cursor": ""})
        limit = limit_of(params["limit"])
        holds = await self._ledger.open_holds(caller.org, limit=limit, after=hold_cursor(params["cursor"]))
        last = f"{holds[-1].deadline_ms}-{holds[-1].id}" if len(holds) == limit else None
        return json_response({"data": [hold_json(hold) for hold in holds], "next_cursor": last})


def grouping(text: str) -> tuple[str, ...]:
    """Check `group_by`: one owner (org, team, user, key) or none, with model or kind or neither, and day, month or
    neither; hour goes with team and model. Raises UnsupportedGrouping."""
    groups = tuple(text.split(","))
    for family in (_OWNERS, _DETAILS, _GRAINS):
        if sum(group in family for group in groups) > 1:
            raise UnsupportedGrouping(f"group_by takes one of {', '.join(family)}.", param="group_by")
    known = (*_OWNERS, *_DETAILS, *_GRAINS)
    unknown = [group for group in groups if group not in known]
    if unknown or len(set(groups)) < len(groups):
        raise UnsupportedGrouping(f"group_by takes {', '.join(known)}, separated by commas.", param="group_by")
    if "hour" in groups and not set(groups) <= {"team", "model", "hour"}:
        raise UnsupportedGrouping("hour goes with team and model only.", param="group_by")
    return groups


def entry_json(entry: Entry, calendar: Calendar) -> dict[str, object]:
    """One ledger entry as answered. Like its cost, the images of a refund are negative: sums come out right."""
    units = -entry.units if entry.type == "refund" else entry.units
    return {
        "id": entry.id,
        "at": instant(entry.at_ms),
        "admitted_at": instant(entry.admitted_at_ms),
        "for_period": for_period(calendar, entry),
        "type": entry.type,
        "request_id": entry.request_id or None,
        "hold_id": entry.hold_id,
        "org": entry.org,
        "team": entry.team or None,
        "user": entry.user,
        "key": entry.key or None,
        "kind": entry.kind or None,
        "model": entry.model or None,
        "prompt_tokens": entry.prompt_tokens,
        "completion_tokens": entry.completion_tokens,
        "images": units if entry.kind == "image" else 0,
        "units": units,
        "cost_nano_usd": entry.cost_nano_usd,
        "cost_usd": format_usd(entry.cost_nano_usd),
        "usage_source": entry.usage_source or None,
        "price_version": entry.price_version or None,
        "flags": list(entry.flags),
        "paid_by": list(entry.paid_by),
        "credit_nano_usd": entry.credit_nano_usd,
        "credit_usd": format_usd(entry.credit_nano_usd),
        "counterpart": entry.counterpart or None,
        "note": entry.note or None,
        "author": entry.author or None,
    }


def hold_json(hold: OpenHold) -> dict[str, object]:
    return {
        "id": hold.id,
        "request_id": hold.request_id,
        "team": hold.team,
        "user": hold.user,
        "key": hold.key,
        "hold_nano_usd": hold.hold_nano_usd,
        "hold_usd": format_usd(hold.hold_nano_usd),
        "admitted_at": instant(hold.admitted_at_ms),
        "deadline_at": instant(hold.deadline_ms),
    }


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


def _matches(entry: Entry, wanted: Mapping[str, str]) -> bool:
    return all(getattr(entry, name) == value for name, value in wanted.items())


def hold_cursor(text: str) -> tuple[int, str] | None:
    match = _HOLD_CURSOR.fullmatch(text)
    if text and not match:
        raise InvalidRequest("cursor is the next_cursor of the page before.", param="cursor")
    return (int(match[1]), match[2]) if match else None


def stream_cursor(text: str) -> str | None:
    """A cursor that is an entry's id; None where there is none. Raises InvalidRequest: it is no such id."""
    if text and not _CURSOR.fullmatch(text):
        raise InvalidRequest("cursor is the next_cursor of the page before.", param="cursor")
    return text or None
