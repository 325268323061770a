"""One call, from top to bottom: authenticate, read, inspect, hold, forward. `relay` brings its answer back.

Read `Proxy._serve` first; everything below it is one of its steps.
"""

import secrets
import time

from gateway.billing.errors import (
    Draining,
    GatewayError,
    InvalidRequest,
    LedgerUnavailable,
    MethodNotAllowed,
    ModelNotFound,
)
from gateway.billing.money import NanoUSD
from gateway.billing.prices import ModelPrice
from gateway.billing.principal import Principal
from gateway.metrics import CallRecord
from gateway.store.ledger import Admitted, Decision, HoldRequest, OverBudget, Refused
from gateway.web.edge import answer_call
from gateway.web.errors import refusal
from gateway.web.exchange import Exchange, Message, Receive, Send
from gateway.web.relay import HeldCall, Relay
from gateway.web.services import Services
from gateway.wire.call import Call, Endpoint
from gateway.wire.charge import counted_bound, least_bound
from gateway.wire.strictjson import decode


class Proxy:
    """The ASGI callable of one endpoint."""

    def __init__(self, endpoint: Endpoint, services: Services) -> None:
        self._endpoint = endpoint
        self._services = services

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        limits = self._services.limits
        exchange = Exchange(scope, receive, send, new_request_id(), limits.client_write_timeout_s)
        record = CallRecord(self._endpoint.path, exchange.request_id, time.perf_counter())
        await answer_call(self._serve, exchange, record, self._services, self._endpoint.error_fields)

    async def _serve(self, exchange: Exchange, record: CallRecord) -> None:
        self._refuse_at_the_door(exchange)
        principal = await self._services.auth.principal(
            exchange.header(b"authorization"), exchange.header(b"x-api-key")
        )
        record.principal = principal
        limits = self._services.limits
        body = await exchange.json_body(limits.body_bytes_max, limits.body_timeout_s)
        call, price = await self._inspect(body, principal)
        record.kind, record.model = call.kind, call.model
        hold = await self._hold(exchange.request_id, call, price, principal)
        record.hold_nano_usd = hold.amount_nano_usd
        await Relay(self._endpoint, self._services, exchange, HeldCall(call, price, hold, record)).run()

    def _refuse_at_the_door(self, exchange: Exchange) -> None:
        if exchange.method != "POST":
            raise MethodNotAllowed(f"Send POST to {self._endpoint.path}.")
        if self._services.draining:
            raise Draining("This gateway is shutting down; send the call again.", retry_after_s=1)

    async def _inspect(self, body: bytes, principal: Principal) -> tuple[Call, ModelPrice]:
        try:
            call = self._endpoint.inspect(decode(body))
            return call, self._services.prices.of(call.model, call.kind)
        except (InvalidRequest, ModelNotFound):
            # A revoked or blocked key hears that first, whatever its body says.
            await self._services.auth.check_state(principal)
            raise

    async def _hold(self, request_id: str, call: Call, price: ModelPrice, principal: Principal) -> HoldRequest:
        """Hold what the call can cost by its bytes; where that does not fit, once more by its counted tokens.

        Raises what the refusing scope says.
        """
        hold = self._hold_request(request_id, call, price.most_of(call.bound), principal)
        decision = await self._admit(hold)
        if isinstance(decision, OverBudget) and price.most_of(least_bound(call)) <= decision.room_nano_usd:
            counted = price.most_of(await self._services.count(counted_bound, call))
            if counted < hold.amount_nano_usd:
                hold = self._hold_request(request_id, call, counted, principal)
                decision = await self._admit(hold)
        if not isinstance(decision, Admitted):
            raise await self._refusal(decision, principal)
        return hold

    async def _refusal(self, decision: Refused | OverBudget, principal: Principal) -> GatewayError:
        of_organisation = decision.scope.kind == "organisation"
        sees = of_organisation and await self._services.auth.sees_organisation(principal)
        return refusal(decision, sees_organisation=sees)

    def _hold_request(self, request_id: str, call: Call, amount: NanoUSD, principal: Principal) -> HoldRequest:
        version = self._services.prices.version
        return HoldRequest(request_id, request_id, principal, call.kind, call.model, amount, version)

    async def _admit(self, hold: HoldRequest) -> Decision:
        try:
            return await self._services.ledger.admit(hold)
        except LedgerUnavailable as error:
            if error.maybe_applied:
                # Its answer was lost, but the hold may stand: give it back by its id.
                self._services.settlements.release(hold)
            raise


def new_request_id() -> str:
    """Time-ordered, unique over all gateways: milliseconds, then 64 random bits, in hex."""
    return f"req-{time.time_ns() // 1_000_000:012x}{secrets.token_hex(8)}"
