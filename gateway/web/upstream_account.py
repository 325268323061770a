"""The account at MiniToolAI on the control plane: what was paid in there, what is left, and until when."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.budget import Calendar
from gateway.billing.errors import InvalidRequest
from gateway.billing.money import format_usd
from gateway.billing.principal import Scope
from gateway.billing.upstream_account import BURN_DAYS, DAY_MS, NotEntered, burn_per_day, runs_out_ms
from gateway.store.periods import HOUR_MS
from gateway.store.reports import Reports
from gateway.store.scopes import Scopes
from gateway.store.upstream_account import UpstreamAccounts
from gateway.web.auth import Authenticator, Caller
from gateway.web.books import stream_cursor
from gateway.web.http import guarded, json_fields, json_response, limit_of, own_org, query
from gateway.web.idempotency import answer_once, idempotent_id, key_sent, used_for_another
from gateway.wire.upstream_account import change_of, entry_json, outlook_json


class UpstreamDesk:
    """Handlers of `/admin/v1/upstream`."""

    def __init__(
        self, auth: Authenticator, accounts: UpstreamAccounts, reports: Reports, scopes: Scopes, calendar: Calendar
    ) -> None:
        self._auth = auth
        self._accounts = accounts
        self._reports = reports
        self._scopes = scopes
        self._calendar = calendar

    def routes(self) -> list[RuledRoute]:
        return [
            guarded("GET", "/admin/v1/upstream", self._auth, "reader", self._page),
            guarded("POST", "/admin/v1/upstream", self._auth, "writer", self._enter),
        ]

    async def _enter(self, request: Request, caller: Caller) -> Response:
        change_id = idempotent_id("upstream", key_sent(request), caller)
        fields = await json_fields(request)
        own_org(fields.get("org") or caller.org, caller)
        change = change_of(fields, change_id, caller.author)
        entered = await self._accounts.enter(caller.org, change)
        if isinstance(entered, NotEntered):
            if entered.reason == "conflict":
                raise used_for_another("top-up")
            raise InvalidRequest(
                f"The account has about ${format_usd(entered.balance_nano_usd)}; with more than $9000000.00 "
                "in it nothing is counted exactly any more.",
                param=f"{'amount' if change.type == 'top_up' else 'balance'}_usd",
            )
        return answer_once(entry_json(entered.entry), repeated=entered.repeated)

    async def _page(self, request: Request, caller: Caller) -> Response:
        params = query(request, {"limit": "100", "cursor": "", "org": caller.org})
        own_org(params["org"], caller)
        limit = limit_of(params["limit"])
        entries = await self._accounts.page(caller.org, before=stream_cursor(params["cursor"]), limit=limit)
        last = entries[-1].id if len(entries) == limit else None
        rows = [entry_json(entry) for entry in entries]
        return json_response({"data": rows, "next_cursor": last} | await self._outlook(caller.org))

    async def _outlook(self, org: str) -> dict[str, object]:
        now_ms = await self._scopes.now_ms()
        burn_nano_usd = await self._burn_per_day(org, now_ms)
        balance_nano_usd = await self._accounts.balance(org)
        end_ms = None if balance_nano_usd is None else runs_out_ms(balance_nano_usd, burn_nano_usd, now_ms)
        runs_out_on = None if end_ms is None else self._calendar.date_at(end_ms).isoformat()
        return outlook_json(balance_nano_usd, burn_nano_usd, runs_out_on)

    async def _burn_per_day(self, org: str, now_ms: int) -> int:
        """What the last days cost by the report's hours, the running one included."""
        to_ms = (now_ms // HOUR_MS + 1) * HOUR_MS
        from_ms = to_ms - BURN_DAYS * DAY_MS
        burned = await self._reports.total(org, from_ms, to_ms, "hour")
        organisation, _ = await self._scopes.get(org, Scope("organisation", org))
        known_ms = now_ms - max(from_ms, organisation.created_at_ms)
        return burn_per_day(burned.cost_nano_usd, known_ms)
