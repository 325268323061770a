"""Prepaid credit on the control plane: top-ups and transfers between siblings; and the alerts of soft thresholds."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import RuledRoute, Who
from gateway.billing.budget import instant
from gateway.billing.credit import NotPaid, Payment
from gateway.billing.errors import (
    CreditExhausted,
    GatewayError,
    InvalidRequest,
    NotFound,
)
from gateway.billing.money import format_usd
from gateway.billing.scope import ScopeSettings
from gateway.store.alerts import Alert, Alerts
from gateway.store.credits import Credits
from gateway.store.scopes import Scopes
from gateway.web.auth import Authenticator, Caller
from gateway.web.books import stream_cursor
from gateway.web.errors import scope_name
from gateway.web.http import Done, answered, guarded, json_fields, json_response, limit_of, own_org, query
from gateway.web.idempotency import idempotent_id, key_sent, used_for_another
from gateway.wire.credits import paid_json, payment_of
from gateway.wire.strictjson import JSONObject

PAID_BY: Who = "writer"


class CreditDesk:
    """Handlers of `POST /admin/v1/credits` and `GET /admin/v1/alerts`, and what the first does."""

    def __init__(self, auth: Authenticator, credit: Credits, alerts: Alerts, scopes: Scopes) -> None:
        self._auth = auth
        self._credits = credit
        self._alerts = alerts
        self._scopes = scopes

    def routes(self) -> list[RuledRoute]:
        return [
            guarded("POST", "/admin/v1/credits", self._auth, PAID_BY, self._pay),
            guarded("GET", "/admin/v1/alerts", self._auth, "reader", self._page),
        ]

    async def _pay(self, request: Request, caller: Caller) -> Response:
        key = key_sent(request)
        return answered(await self.pay(await json_fields(request), key, caller))

    async def pay(self, fields: JSONObject, key: str | None, caller: Caller) -> Done:
        """Post a credit or a transfer, once for an Idempotency-Key.

        Raises InvalidRequest, UnknownField, NotFound, CreditExhausted, IdempotencyConflict.
        """
        payment_id = idempotent_id("credit", key, caller)
        own_org(fields.get("org") or caller.org, caller)
        payment = payment_of(fields, payment_id, caller.author)
        target, _ = await self._scopes.get(caller.org, payment.scope)
        source = None
        if payment.source is not None:
            source, _ = await self._scopes.get(caller.org, payment.source)
            _refuse_strangers(target, source)
        paid = await self._credits.pay(caller.org, payment, target, source)
        if isinstance(paid, NotPaid):
            raise _refusal(paid, payment)
        return Done(paid_json(payment, paid), 201, paid.repeated)

    async def _page(self, request: Request, caller: Caller) -> Response:
        params = query(request, {"limit": "100", "cursor": ""})
        limit = limit_of(params["limit"])
        alerts = await self._alerts.page(caller.org, before=stream_cursor(params["cursor"]), limit=limit)
        last = alerts[-1].id if len(alerts) == limit else None
        return json_response({"data": [alert_json(alert) for alert in alerts], "next_cursor": last})


def alert_json(alert: Alert) -> dict[str, object]:
    """One alert as answered."""
    crossing = alert.crossing
    return {
        "alert": alert.id,
        "at": instant(alert.at_ms),
        "type": "threshold",
        "scope": crossing.scope.kind,
        "id": crossing.scope.id,
        "window": crossing.window,
        "starts_at": instant(alert.start_ms) if alert.start_ms else None,
        "percent": crossing.percent,
        "limit_usd": format_usd(crossing.limit_nano_usd),
        "limit_nano_usd": crossing.limit_nano_usd,
        "spent_usd": format_usd(crossing.spent_nano_usd),
        "spent_nano_usd": crossing.spent_nano_usd,
    }


def _refuse_strangers(target: ScopeSettings, source: ScopeSettings) -> None:
    if (target.team, target.user) != (source.team, source.user):
        raise InvalidRequest(
            f"Credit moves between siblings: {target.kind} {source.id} does not belong where {target.id} does.",
            param="from",
        )


def _refusal(refused: NotPaid, payment: Payment) -> GatewayError:
    name, amount = scope_name(refused.scope), format_usd(payment.amount_nano_usd)
    where = {"scope": refused.scope.kind, "id": refused.scope.id}
    match refused.reason:
        case "conflict":
            return used_for_another("credit")
        case "unknown_scope":
            return NotFound(f"There is no {refused.scope.kind} {refused.scope.id}.", param="id")
        case "not_prepaid":
            return InvalidRequest(
                f'{name} has no prepaid budget; give it one first: PATCH its budgets with {{"window": "prepaid"}}.',
                param="id",
                details=where,
            )
        case "too_much":
            return InvalidRequest(
                f"{name} was paid ${format_usd(refused.credit.paid_in_nano_usd)}; with ${amount} more it would be above"
                " $9000000.00, the most that is counted.",
                param="amount_usd",
                details=where,
            )
        case "too_little":
            free = format_usd(max(0, refused.credit.free_nano_usd))
            return CreditExhausted(
                f"{name} has ${free} of credit that is neither spent nor held; ${amount} cannot be taken from it.",
                param="amount_usd",
                details=where
                | {
                    "paid_in_usd": format_usd(refused.credit.paid_in_nano_usd),
                    "spent_usd": format_usd(refused.credit.spent_nano_usd),
                    "held_usd": format_usd(refused.credit.held_nano_usd),
                    "required_usd": amount,
                },
            )
