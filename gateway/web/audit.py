"""The list of who changed what on the control plane, for those who read the whole organisation."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.budget import Calendar, instant
from gateway.store.changes import Recorded
from gateway.store.scopes import Scopes
from gateway.web.auth import Authenticator, Caller
from gateway.web.books import stream_cursor
from gateway.web.http import guarded, json_response, limit_of, query
from gateway.web.periods import Periods

_FILTERS = ("caller", "action", "resource", "resource_id")
_AT_ONCE = 250  # decoded without a pause, and the calls on this loop wait meanwhile
_SCANNED_MAX = 20_000


class AuditDesk:
    """The handler of `/admin/v1/audit`."""

    def __init__(self, auth: Authenticator, scopes: Scopes, calendar: Calendar) -> None:
        self._auth = auth
        self._changes = auth.changes
        self._periods = Periods(scopes, calendar)

    def routes(self) -> list[RuledRoute]:
        return [guarded("GET", "/admin/v1/audit", self._auth, "reader", self._list)]

    async def _list(self, request: Request, caller: Caller) -> Response:
        params = query(request, {**dict.fromkeys(_FILTERS, ""), "from": "", "to": "", "cursor": "", "limit": "100"})
        limit, after = limit_of(params["limit"]), stream_cursor(params["cursor"])
        from_ms, to_ms = await self._periods.this_month_or(params["from"], params["to"])
        wanted = {name: params[name] for name in _FILTERS if params[name]}
        page: list[dict[str, object]] = []
        for _ in range(0, _SCANNED_MAX, _AT_ONCE):
            rows = await self._changes.page(caller.org, from_ms=from_ms, to_ms=to_ms, after=after, limit=_AT_ONCE)
            for row in rows:
                after = row.id
                change = change_json(row)
                if _matches(change, wanted):
                    page.append(change)
                if len(page) == limit:
                    return json_response({"data": page, "next_cursor": after})
            if len(rows) < _AT_ONCE:
                return json_response({"data": page, "next_cursor": None})
        return json_response({"data": page, "next_cursor": after})


def change_json(row: Recorded) -> dict[str, object]:
    """`status` and `error` are null where nobody knows how it ended."""
    change, outcome = row.change, row.outcome
    return {
        "id": row.id,
        "at": instant(row.at_ms),
        "request_id": change.request_id,
        "caller": change.caller,
        "role": change.role,
        "action": change.action,
        "resource": change.resource,
        "resource_id": change.resource_id or outcome.resource_id or None,
        "fields": change.fields,
        "status": outcome.status,
        "error": outcome.error,
    }


def _matches(change: Mapping[str, object], wanted: Mapping[str, str]) -> bool:
    return all(change[name] == value for name, value in wanted.items())
