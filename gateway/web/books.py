"""The books on the control plane: usage reports, ledger entries, open holds. Each caller reads what is in reach."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.budget import Calendar, instant
from gateway.billing.errors import InvalidRequest
from gateway.billing.ledger import Entry, OpenHold
from gateway.billing.money import format_usd
from gateway.billing.reach import Reach
from gateway.store.ledger import Between, Ledger
from gateway.store.periods import counts_at_ms, for_period
from gateway.store.scopes import Scopes
from gateway.web.auth import Authenticator, Caller
from gateway.web.http import guarded, json_response, limit_of, query
from gateway.web.periods import Periods
from gateway.web.searches import Searches, check_there
from gateway.web.usage_reports import REPORT_PARAMS, Asked, UsageReports, check_format, grouping, usage_answer

_SCANNED_MAX = 20_000
_AT_ONCE = 250  # decoded without a pause, and the calls on this loop wait meanwhile
_HOLD_CURSOR = re.compile(r"([0-9]{1,15})-([0-9A-Za-z_-]{1,100})")
_CURSOR = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")


class ReadEntries(Protocol):
    """The ledger's whole stream, or a part of it, as a list reads it."""

    async def __call__(
        self, org: str, *, from_ms: int | None = None, after: str | None = None, count: int = ...
    ) -> list[Entry]: ...


class Books:
    """Handlers of `/admin/v1/usage`, `/ledger`, `/holds`, and the list of `/credits`."""

    def __init__(
        self,
        auth: Authenticator,
        ledger: Ledger,
        reports: UsageReports,
        scopes: Scopes,
        calendar: Calendar,
        searches: Searches,
    ) -> None:
        self._auth = auth
        self._ledger = ledger
        self._usage_reports = reports
        self._calendar = calendar
        self._periods = Periods(scopes, calendar)
        self._searches = searches

    def routes(self) -> list[RuledRoute]:
        return [
            guarded("GET", "/admin/v1/usage", self._auth, "viewer", self._usage),
            guarded("GET", "/admin/v1/ledger", self._auth, "viewer", self._entries),
            guarded("GET", "/admin/v1/credits", self._auth, "viewer", self._credits),
            guarded("GET", "/admin/v1/holds", self._auth, "viewer", self._holds),
        ]

    async def _usage(self, request: Request, caller: Caller) -> Response:
        params = query(request, {**REPORT_PARAMS, "group_by": "team"})
        groups = grouping(params["group_by"])
        check_format(params["format"])
        asked = Asked(groups, params["from"], params["to"], partial(check_there, request))
        rows = await self._usage_reports.rows(caller.reach, asked)
        return await usage_answer(groups, rows, params["format"])

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
        after = stream_cursor(params["cursor"])

        def is_asked_for(entry: Entry) -> bool:
            return from_ms <= counts_at_ms(self._calendar, entry) < to_ms and _matches(entry, wanted)

        async with self._searches.by(caller.org, caller.reach.home, partial(check_there, request)) as next_piece:
            page, after = await _found(read, caller.reach, is_asked_for, from_ms, after, limit, next_piece)
        return json_response({"data": [entry_json(entry, self._calendar) for entry in page], "next_cursor": after})

    async def _holds(self, request: Request, caller: Caller) -> Response:
        params = query(request, {"limit": "1000", "cursor": ""})
        limit = limit_of(params["limit"])
        holds = await self._open_holds(caller, limit, hold_cursor(params["cursor"]))
        last = f"{holds[-1].deadline_ms}-{holds[-1].id}" if len(holds) == limit else None
        return json_response({"data": [hold_json(hold) for hold in holds], "next_cursor": last})

    async def _open_holds(self, caller: Caller, limit: int, after: tuple[int, str] | None) -> list[OpenHold]:
        """By deadline, each once: one that is renewed meanwhile is behind the others again."""
        holds: dict[str, OpenHold] = {}
        at_once = limit if caller.reach.is_whole else max(limit, _AT_ONCE)
        while len(holds) < limit:
            some = await self._ledger.open_holds(caller.org, limit=at_once, after=after)
            reached = [hold for hold in some if hold.id not in holds and caller.reach.covers_booked(hold)]
            holds |= {hold.id: hold for hold in reached[: limit - len(holds)]}
            if len(some) < at_once:
                break
            after = some[-1].deadline_ms, some[-1].id
        return list(holds.values())


async def _found(
    read: ReadEntries,
    reach: Reach,
    is_asked_for: Callable[[Entry], bool],
    from_ms: int,
    after: str | None,
    limit: int,
    next_piece: Between,
) -> tuple[list[Entry], str | None]:
    """Up to `limit` entries behind `after`, oldest first, and where it goes on; None: there are no further ones."""
    page, scanned = list[Entry](), 0
    while scanned < _SCANNED_MAX:
        entries = await read(reach.org, from_ms=from_ms, after=after, count=_AT_ONCE)
        for entry in entries:
            after = entry.id
            if reach.covers_booked(entry) and is_asked_for(entry):
                page.append(_told(entry, reach))
            if len(page) == limit:
                return page, after
        scanned += len(entries)
        if not entries:
            return page, None
        await next_piece()
    return page, after


def _told(entry: Entry, reach: Reach) -> Entry:
    """Who wrote it, and whose credit it was, may be out of reach."""
    return entry if reach.is_whole else replace(entry, author="", counterpart="")


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
        "tags": list(entry.tags),
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
