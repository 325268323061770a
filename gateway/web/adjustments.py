"""Adjustments on the control plane: corrections of what was spent, by people, each an entry of the ledger."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute
from gateway.billing.adjustment import Adjustment, NotAdjusted
from gateway.billing.errors import GatewayError, InvalidRequest, NotFound
from gateway.billing.money import format_usd
from gateway.store.adjustments import Adjustments
from gateway.store.scopes import Scopes
from gateway.web.auth import Authenticator, Caller
from gateway.web.errors import scope_name
from gateway.web.http import guarded, json_fields, own_org
from gateway.web.idempotency import answer_once, idempotent_id, key_sent, used_for_another
from gateway.wire.adjustments import adjusted_json, adjustment_of


class AdjustmentDesk:
    """Handler of `POST /admin/v1/adjustments`."""

    def __init__(self, auth: Authenticator, adjustments: Adjustments, scopes: Scopes) -> None:
        self._auth = auth
        self._adjustments = adjustments
        self._scopes = scopes

    def routes(self) -> list[RuledRoute]:
        return [guarded("POST", "/admin/v1/adjustments", self._auth, "writer", self._adjust)]

    async def _adjust(self, request: Request, caller: Caller) -> Response:
        adjustment_id = idempotent_id("adjustment", key_sent(request), caller)
        fields = await json_fields(request)
        own_org(fields.get("org") or caller.org, caller)
        adjustment = adjustment_of(fields, adjustment_id, caller.author)
        target, _ = await self._scopes.get(caller.org, adjustment.scope)
        adjusted = await self._adjustments.post(caller.org, adjustment, target, await self._scopes.now_ms())
        if isinstance(adjusted, NotAdjusted):
            raise _refusal(adjusted, adjustment)
        return answer_once(adjusted_json(adjustment, adjusted), repeated=adjusted.repeated)


def _refusal(refused: NotAdjusted, adjustment: Adjustment) -> GatewayError:
    name = scope_name(refused.scope)
    match refused.reason:
        case "conflict":
            return used_for_another("adjustment")
        case "unknown_scope":
            return NotFound(f"There is no {refused.scope.kind} {refused.scope.id}.", param="id")
        case "ahead":
            return InvalidRequest("at is in the future; an adjustment is for what has been.", param="at")
        case "too_much":
            return InvalidRequest(f"{name} would have spent more than can be counted.", param="amount_usd")
        case "too_little":
            spent, wanted = format_usd(refused.spent_nano_usd), format_usd(-adjustment.amount_nano_usd)
            return InvalidRequest(
                f"{name} has spent ${spent} in its window {refused.window}, and ${wanted} cannot be given back of it; "
                "name the time it was spent at, as at.",
                param="amount_usd",
                details={"scope": refused.scope.kind, "id": refused.scope.id, "window": refused.window},
            )
