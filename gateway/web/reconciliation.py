"""Reconciliation on the control plane: MiniToolAI's own figure goes in, the drift of the ledger comes out."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.budget import Calendar
from gateway.billing.errors import InvalidRequest
from gateway.billing.reconciliation import Figure
from gateway.store.reconciliations import Reconciliations
from gateway.store.scopes import Scopes
from gateway.web.auth import Authenticator, Caller
from gateway.web.books import stream_cursor
from gateway.web.http import guarded, json_fields, json_response, limit_of, own_org, query
from gateway.web.idempotency import answer_once, idempotent_id, key_sent, used_for_another
from gateway.web.periods import Periods
from gateway.wire.reconciliation import figure_fields, reconciliation_json


class ReconciliationDesk:
    """Handlers of `/admin/v1/reconciliation`."""

    def __init__(
        self, auth: Authenticator, reconciliations: Reconciliations, scopes: Scopes, calendar: Calendar
    ) -> None:
        self._auth = auth
        self._reconciliations = reconciliations
        self._scopes = scopes
        self._periods = Periods(scopes, calendar)

    def routes(self) -> list[RuledRoute]:
        path = "/admin/v1/reconciliation"
        return [
            guarded("GET", path, self._auth, "reader", self._page),
            guarded("POST", path, self._auth, "writer", self._reconcile),
        ]

    async def _reconcile(self, request: Request, caller: Caller) -> Response:
        figure_id = idempotent_id("reconciliation", key_sent(request), caller)
        fields = await json_fields(request)
        own_org(fields.get("org") or caller.org, caller)
        first, last, billed_nano_usd, note = figure_fields(fields)
        from_ms, to_ms = self._periods.between(first, last)
        if from_ms >= await self._scopes.now_ms():
            raise InvalidRequest("from is in the future: there is nothing to reconcile yet.", param="from")
        figure = Figure(figure_id, from_ms, to_ms, billed_nano_usd, note, caller.author)
        outcome = await self._reconciliations.reconcile(caller.org, figure)
        if outcome is None:
            raise used_for_another("reconciliation")
        found, repeated = outcome
        return answer_once(reconciliation_json(found), repeated=repeated)

    async def _page(self, request: Request, caller: Caller) -> Response:
        params = query(request, {"limit": "100", "cursor": "", "org": caller.org})
        own_org(params["org"], caller)
        limit = limit_of(params["limit"])
        found = await self._reconciliations.page(caller.org, before=stream_cursor(params["cursor"]), limit=limit)
        last = found[-1].id if len(found) == limit else None
        return json_response({"data": [reconciliation_json(one) for one in found], "next_cursor": last})
