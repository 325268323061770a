"""`POST /v1/estimate`: what a call would use and cost at most, and whether it would be admitted now.

It goes the way of a call up to its hold, which is weighed and not placed: nothing is spent, held, written or sent.
"""

import asyncio
import time
from collections.abc import Mapping

from gateway.billing.errors import GatewayError, InvalidRequest, LedgerUnavailable, MaxCostExceeded, MethodNotAllowed
from gateway.billing.money import format_usd
from gateway.billing.principal import Principal
from gateway.billing.usage import Usage
from gateway.call_log import CallRecord
from gateway.store.admission import Admitted, Claimed, StalePrice
from gateway.web.admission import MAX_COST_HEADER, Admissions, PricedCall, refused
from gateway.web.bodies import read_fields
from gateway.web.edge import answer_call, tell_standing
from gateway.web.errors import error_body
from gateway.web.exchange import Exchange
from gateway.web.services import Services
from gateway.wire.call import Call, Endpoint
from gateway.wire.presentation import AS_SENT
from gateway.wire.strictjson import JSONObject, encode
from gateway.wire.tags import TAGS_HEADER, tags_of

ESTIMATE = "/v1/estimate"
_JSON = ((b"content-type", b"application/json"),)


class Estimates:
    """Serves the path; called with each exchange, it begins the estimate and returns.

    `endpoints` are those whose calls can be estimated, by a field that only their bodies have.
    """

    def __init__(self, endpoints: Mapping[str, Endpoint], services: Services) -> None:
        self._endpoints = endpoints
        self._services = services
        self._counting = asyncio.Lock()
        """One estimate counts at a time: an admission that must count finds at most one of them before it."""

    def __call__(self, exchange: Exchange) -> None:
        record = CallRecord(ESTIMATE, exchange.request_id, time.perf_counter(), kind="estimate")
        answer_call(self._serve, exchange, record, self._services, {})

    async def _serve(self, exchange: Exchange, record: CallRecord) -> None:
        services = self._services
        if exchange.method != "POST":
            raise MethodNotAllowed(f"Send POST to {ESTIMATE}.", allow="POST")
        principal = await services.auth.principal(exchange.header(b"authorization"), exchange.header(b"x-api-key"))
        record.principal = principal
        await tell_standing(exchange, services, principal)
        fields = await read_fields(exchange, services, principal)
        endpoint = self._endpoint_of(fields)
        tags_of(
            exchange.headers(TAGS_HEADER)
        )  # nothing is done with them, but the call would be refused for wrong ones
        prices = services.prices.latest(principal.org)
        presentation = endpoint.present(fields, with_cost=False) if endpoint.present else AS_SENT
        for _ in range(2):
            call = endpoint.inspect(fields, prices)
            record.model = call.model
            priced = PricedCall(call, prices.of(call.model, call.kind), prices.version, presentation)
            bound = await self._counted(call)
            refusal = await self._refusal(exchange, priced, bound, principal)
            if not isinstance(refusal, StalePrice):
                return await exchange.answer(200, _JSON, encode(estimate_json(priced, bound, refusal)))
            prices = await services.prices.turn_to(principal.org, refusal.version)
        raise LedgerUnavailable("Prices are changing at this moment; ask again.")

    def _endpoint_of(self, fields: JSONObject) -> Endpoint:
        found = [endpoint for field, endpoint in self._endpoints.items() if field in fields]
        if len(found) != 1:
            raise InvalidRequest(
                f"Send the body of the call to estimate, which has one of: {', '.join(self._endpoints)}."
            )
        return found[0]

    async def _counted(self, call: Call) -> Usage:
        if call.prompt is None:
            return call.bound
        async with self._counting:
            return await self._services.counted_bound(call)

    async def _refusal(
        self, exchange: Exchange, priced: PricedCall, bound: Usage, principal: Principal
    ) -> GatewayError | StalePrice | None:
        """What the call would be refused with now; None where it would be admitted. `bound`: of its counted tokens."""

        async def counted(_call: Call) -> Usage:
            return bound

        admissions = Admissions(self._services.ledger.weigh, counted)
        wishes = exchange.headers(MAX_COST_HEADER)
        try:
            _, decision = await admissions.decide(exchange.request_id, principal, priced, None, wishes)
        except MaxCostExceeded as error:
            return error
        match decision:
            case Admitted() | Claimed():
                return None
            case StalePrice():
                return decision
            case _:
                return await refused(self._services.auth, decision, principal)


def estimate_json(priced: PricedCall, bound: Usage, refusal: GatewayError | None) -> dict[str, object]:
    """What is answered; `bound` is the call's with its prompt counted."""
    call = priced.call
    most_nano_usd = priced.price.most_of(bound)
    return {
        "kind": call.kind,
        "model": call.model,
        "prompt_tokens": bound.prompt_tokens,
        "prompt_tokens_max": call.bound.prompt_tokens,
        "completion_tokens_max": bound.completion_tokens,
        "images": bound.units if call.kind == "image" else 0,
        "most_cost_nano_usd": most_nano_usd,
        "most_cost_usd": format_usd(most_nano_usd),
        "price_version": priced.version,
        "admitted": refusal is None,
        "refusal": None if refusal is None else error_body(refusal),
    }
