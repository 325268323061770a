"""The quarantine on the control plane: charges whose hold the ledger does not know."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.billing.budget import instant
from gateway.billing.errors import NotFound
from gateway.billing.money import format_usd
from gateway.store.quarantine import Quarantine, Quarantined
from gateway.web.admin import READERS, WRITERS
from gateway.web.auth import Authenticator, Caller
from gateway.web.http import guarded, json_response


class QuarantineDesk:
    """Handlers of `/admin/v1/quarantine`."""

    def __init__(self, auth: Authenticator, quarantine: Quarantine) -> None:
        self._auth = auth
        self._quarantine = quarantine

    def routes(self) -> list[Route]:
        path = "/admin/v1/quarantine"
        return [
            Route(path, guarded(self._auth, READERS, self._list), methods=["GET"]),
            Route(path + "/{hold}", guarded(self._auth, WRITERS, self._dismiss), methods=["DELETE"]),
        ]

    async def _list(self, _request: Request, caller: Caller) -> Response:
        found = await self._quarantine.all(caller.org)
        return json_response({"data": [quarantined_json(each) for each in found], "next_cursor": None})

    async def _dismiss(self, request: Request, caller: Caller) -> Response:
        """The charge itself is booked, where it should be, by an adjustment."""
        if not await self._quarantine.dismiss(caller.org, request.path_params["hold"]):
            raise NotFound("There is no charge of this hold in quarantine.")
        return Response(status_code=204)


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
