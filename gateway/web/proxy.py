"""One call, from top to bottom: authenticate, read, inspect, hold, forward. `relay` brings its answer back.

Read `Proxy._serve` first; everything below it is one of its steps.
"""

import time
from collections.abc import Callable
from typing import Protocol

from gateway.billing.errors import Draining, GatewayError, LedgerUnavailable, MethodNotAllowed
from gateway.billing.money import format_usd
from gateway.billing.prices import PriceList
from gateway.billing.principal import Principal
from gateway.call_log import CallRecord
from gateway.store.admission import Admitted, Claimed, Decision, HoldRequest, StalePrice
from gateway.store.answers import KeptAnswer
from gateway.web.admission import MAX_COST_HEADER, Admissions, PricedCall, refused
from gateway.web.bodies import read_fields
from gateway.web.edge import answer_call, tell_standing
from gateway.web.errors import allowance_headers
from gateway.web.exchange import Exchange
from gateway.web.folding import relay_of
from gateway.web.relay import HeldCall
from gateway.web.repeats import claim_of, first_answer
from gateway.web.services import Services
from gateway.wire.call import Endpoint
from gateway.wire.presentation import AS_SENT, INCLUDE_COST, Presentation, wants_cost
from gateway.wire.strictjson import JSONObject
from gateway.wire.tags import TAGS_HEADER, tags_of

_INCLUDE_COST_HEADER = INCLUDE_COST.encode()


class Running(Protocol):
    """An admitted call on its way."""

    async def run(self) -> None:
        """Bring it to its end: its hold ended, its answer given."""


NewRelay = Callable[[Presentation, Endpoint, Services, Exchange, HeldCall], Running]


class Proxy:
    """Serves one endpoint; called with each exchange, it begins the call and returns.

    `new_relay` makes what brings an admitted call to the upstream and its answer back.
    """

    def __init__(self, endpoint: Endpoint, services: Services, new_relay: NewRelay = relay_of) -> None:
        self._new_relay = new_relay
        self._endpoint = endpoint
        self._services = services
        self._admissions = Admissions(self._admit, services.counted_bound)

    def __call__(self, exchange: Exchange) -> None:
        record = CallRecord(self._endpoint.path, exchange.request_id, time.perf_counter())
        answer_call(self._serve, exchange, record, self._services, self._endpoint.error_fields)

    async def _serve(self, exchange: Exchange, record: CallRecord) -> None:
        self._refuse_at_the_door(exchange)
        principal = await self._services.auth.principal(
            exchange.header(b"authorization"), exchange.header(b"x-api-key")
        )
        record.principal = principal
        try:
            held = await self._held(exchange, await read_fields(exchange, self._services, principal), principal, record)
        except GatewayError as error:
            if exchange.told is None and not isinstance(error, LedgerUnavailable):
                # Refused before admission. A revoked or blocked key hears that first, whatever its request says.
                await tell_standing(exchange, self._services, principal)
            raise
        if isinstance(held, KeptAnswer):
            exchange.cost_nano_usd = None
            await exchange.answer(held.status, held.headers, held.body)
            return
        await held.run()

    def _refuse_at_the_door(self, exchange: Exchange) -> None:
        if exchange.method != "POST":
            raise MethodNotAllowed(f"Send POST to {self._endpoint.path}.", allow="POST")
        if self._services.draining:
            raise Draining("This gateway is shutting down; send the call again.", retry_after_s=1)

    async def _held(
        self, exchange: Exchange, fields: JSONObject, principal: Principal, record: CallRecord
    ) -> Running | KeptAnswer:
        """Price the call and hold what it can cost; once more where another price list is in force by now.

        What is returned is all that stays of the request: what it was read into may be many times larger.
        """
        prices = self._services.prices.latest(principal.org)
        for _ in range(2):
            priced = self._priced(exchange, fields, prices)
            record.kind, record.model = priced.call.kind, priced.call.model
            hold = await self._hold(exchange, priced, principal)
            if isinstance(hold, KeptAnswer):
                return hold
            if not isinstance(hold, StalePrice):
                record.hold_nano_usd = hold.amount_nano_usd
                held = HeldCall(priced.call, priced.price, hold, record)
                return self._new_relay(priced.presentation, self._endpoint, self._services, exchange, held)
            prices = await self._services.prices.turn_to(principal.org, hold.version)
        raise LedgerUnavailable("Prices are changing at this moment; send the call again. Nothing was billed.")

    def _priced(self, exchange: Exchange, fields: JSONObject, prices: PriceList) -> PricedCall:
        call = self._endpoint.inspect(fields, prices)
        price = prices.of(call.model, call.kind)
        return PricedCall(call, price, prices.version, self._presentation(exchange, fields))

    def _presentation(self, exchange: Exchange, fields: JSONObject) -> Presentation:
        if self._endpoint.present is None:
            return AS_SENT
        return self._endpoint.present(fields, with_cost=wants_cost(exchange.headers(_INCLUDE_COST_HEADER)))

    async def _hold(
        self, exchange: Exchange, priced: PricedCall, principal: Principal
    ) -> HoldRequest | KeptAnswer | StalePrice:
        """Hold what the call can cost; an earlier call's answer, where this one repeats it under its Idempotency-Key.

        Raises what the refusing scope says.
        """
        keys = exchange.headers(b"idempotency-key")
        claim = claim_of(keys, principal, self._endpoint.path, priced.call, priced.presentation)
        wishes = exchange.headers(MAX_COST_HEADER)
        sent_tags = exchange.headers(TAGS_HEADER)
        tags = tags_of(sent_tags) if sent_tags else ()
        hold, decision = await self._admissions.decide(exchange.request_id, principal, priced, claim, wishes, tags)
        if isinstance(decision, StalePrice):
            return decision
        if isinstance(decision, Admitted):
            return self._held_by(exchange, hold, decision)
        exchange.told = allowance_headers(decision.allowance)
        if isinstance(decision, Claimed):
            return await first_answer(self._services.answers, principal.org, decision)
        raise await refused(self._services.auth, decision, principal)

    def _held_by(self, exchange: Exchange, hold: HoldRequest, decision: Admitted) -> HoldRequest:
        exchange.told = allowance_headers(decision.allowance)
        exchange.told.append((b"x-gateway-hold-usd", format_usd(hold.amount_nano_usd).encode()))
        return hold

    async def _admit(self, hold: HoldRequest) -> Decision:
        try:
            return await self._services.ledger.admit(hold)
        except LedgerUnavailable as error:
            if error.maybe_applied:
                # Its answer was lost, but the hold may stand: give it back by its id.
                self._services.settlements.release(hold)
            raise
