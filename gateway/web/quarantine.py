"""The quarantine on the control plane: charges whose hold the ledger does not know."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.budget import instant
from gateway.billing.errors import NotFound
from gateway.billing.money import format_usd
from gateway.store.quarantine import Quarantine, Quarantined
from gateway.web.auth import Authenticator, Caller
from gateway.web.books import hold_cursor
from gateway.web.http import guarded, json_response, limit_of, query, refuse_fields


class QuarantineDesk:
    """Handlers of `/admin/v1/quarantine`."""

    def __init__(self, auth: Authenticator, quarantine: Quarantine) -> None:
        self._auth = auth
        self._quarantine = quarantine

    def routes(self) -> list[RuledRoute]:
        path = "/admin/v1/quarantine"
        return [
            guarded("GET", path, self._auth, "reader", self._page),
            guarded("DELETE", path + "/{hold}", self._auth, "writer", self._dismiss),
        ]

    async def _page(self, request: Request, caller: Caller) -> Response:
        params = query(request, {"limit": "100", "cursor": ""})
        limit = limit_of(params["limit"])
        found = await self._quarantine.page(caller.org, after=hold_cursor(params["cursor"]) or (0, ""), limit=limit)
        last = f"{found[-1].at_ms}-{found[-1].hold_id}" if len(found) == limit else None
        return json_response({"data": [quarantined_json(each) for each in found], "next_cursor": last})

    async def _dismiss(self, request: Request, caller: Caller) -> Response:
        """The charge itself is booked, where it should be, by an adjustment."""
        await refuse_fields(request)
        dismissed = await self._quarantine.dismiss(caller.org, request.path_params["hold"], caller.author)
        if dismissed is None:
            raise NotFound("There is no charge of this hold in quarantine.")
        charge, entry_id = dismissed
        return json_response({**quarantined_json(charge), "entry": entry_id})


def quarantined_json(each: Quarantined) -> dict[str, object]:
    return {
        "hold_id": each.hold_id,
        "at": instant(each.at_ms),
        "request_id": each.request_id,
        "team": each.team,
        "user": each.user,
        "key": each.key,
        "kind": each.kind,
        "model": each.model,
        "cost_nano_usd": each.cost_nano_usd,
        "cost_usd": format_usd(each.cost_nano_usd),
    }
