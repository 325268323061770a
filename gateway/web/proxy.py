"""One call, from top to bottom: authenticate, read, inspect, hold, forward. `relay` brings its answer back.

Read `Proxy._serve` first; everything below it is one of its steps.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from typing import NamedTuple, cast

from gateway.billing.errors import (
    Draining,
    GatewayError,
    InvalidRequest,
    LedgerUnavailable,
    MaxCostExceeded,
    MethodNotAllowed,
)
from gateway.billing.money import format_usd, parse_usd
from gateway.billing.prices import ModelPrice, PriceList
from gateway.billing.principal import Principal
from gateway.billing.usage import Usage
from gateway.call_log import CallRecord
from gateway.store.admission import (
    Admitted,
    Claim,
    Claimed,
    Decision,
    HoldRequest,
    OverBudget,
    RateLimited,
    Refused,
    StalePrice,
)
from gateway.store.answers import KeptAnswer
from gateway.web.edge import answer_call, tell_standing
from gateway.web.errors import allowance_headers, refusal
from gateway.web.exchange import Exchange
from gateway.web.relay import HeldCall, Relay
from gateway.web.repeats import claim_of, first_answer
from gateway.web.services import Services
from gateway.wire.call import Call, Endpoint
from gateway.wire.charge import least_bound, so_far_unheard
from gateway.wire.strictjson import JSONObject, decode, decode_in_steps

_MAX_COST = "x-gateway-max-cost-usd"
_MAX_COST_HEADER = _MAX_COST.encode()
_READ_AT_ONCE_BYTES = 128 * 1024
"""So much is decoded, inspected and encoded in about a millisecond."""


class PricedCall(NamedTuple):
    """A request that was inspected, its price, and the version of the list that has it."""

    call: Call
    price: ModelPrice
    version: str


class Proxy:
    """Serves one endpoint; called with each exchange, it begins the call and returns."""

    def __init__(self, endpoint: Endpoint, services: Services) -> None:
        self._endpoint = endpoint
        self._services = services

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
            fields = await self._read(exchange)
            priced, hold = await self._held(exchange, fields, principal, record)
        except GatewayError as error:
            if exchange.told is None and not isinstance(error, LedgerUnavailable):
                # Refused before admission. A revoked or blocked key hears that first, whatever its request says.
                await tell_standing(exchange, self._services, principal)
            raise
        if isinstance(hold, KeptAnswer):
            exchange.cost_nano_usd = None
            await exchange.answer(hold.status, [*hold.headers, (b"idempotent-replayed", b"true")], hold.body)
            return
        record.hold_nano_usd = hold.amount_nano_usd
        await Relay(self._endpoint, self._services, exchange, HeldCall(priced.call, priced.price, hold, record)).run()

    def _refuse_at_the_door(self, exchange: Exchange) -> None:
        if exchange.method != "POST":
            raise MethodNotAllowed(f"Send POST to {self._endpoint.path}.", allow="POST")
        if self._services.draining:
            raise Draining("This gateway is shutting down; send the call again.", retry_after_s=1)

    async def _read(self, exchange: Exchange) -> JSONObject:
        limits = self._services.limits
        body = await exchange.json_body(limits.body_bytes_max, limits.body_timeout_s)
        if len(body) <= _READ_AT_ONCE_BYTES:
            return decode(body)
        return await _decoded_between_others(body)

    async def _held(
        self, exchange: Exchange, fields: JSONObject, principal: Principal, record: CallRecord
    ) -> tuple[PricedCall, HoldRequest | KeptAnswer]:
        """Price the call and hold what it can cost; once more where another price list is in force by now."""
        prices = self._services.prices.latest(principal.org)
        for _ in range(2):
            priced = self._priced(fields, prices)
            record.kind, record.model = priced.call.kind, priced.call.model
            hold = await self._hold(exchange, priced, principal)
            if not isinstance(hold, StalePrice):
                return priced, hold
            prices = await self._services.prices.turn_to(principal.org, hold.version)
        raise LedgerUnavailable("Prices are changing at this moment; send the call again. Nothing was billed.")

    def _priced(self, fields: JSONObject, prices: PriceList) -> PricedCall:
        call = self._endpoint.inspect(fields, prices)
        return PricedCall(call, prices.of(call.model, call.kind), prices.version)

    async def _hold(
        self, exchange: Exchange, priced: PricedCall, principal: Principal
    ) -> HoldRequest | KeptAnswer | StalePrice:
        """Hold what the call can cost by its bytes; where that does not fit, once more by its counted tokens.

        An earlier call's answer, where this one repeats it under its Idempotency-Key. Raises what the refusing scope
        says.
        """
        call, price = priced.call, priced.price
        claim = claim_of(exchange.headers(b"idempotency-key"), principal, self._endpoint.path, call)
        wishes = exchange.headers(_MAX_COST_HEADER)
        bound = await self._bound_within(wishes, call, price) if wishes else call.bound
        hold = _hold_request(exchange.request_id, priced, bound, principal, claim)
        decision = await self._admit(hold)
        if isinstance(decision, Admitted):
            return self._held_by(exchange, hold, decision)
        if bound is call.bound and _a_count_may_fit(decision, call, price):
            counted = await self._services.counted_bound(call)
            if counted.prompt_tokens < call.bound.prompt_tokens:
                hold = _hold_request(exchange.request_id, priced, counted, principal, claim)
                decision = await self._admit(hold)
        if isinstance(decision, StalePrice):
            return decision
        if isinstance(decision, Admitted):
            return self._held_by(exchange, hold, decision)
        exchange.told = allowance_headers(decision.allowance)
        if isinstance(decision, Claimed):
            return await first_answer(self._services.answers, principal.org, decision)
        raise await self._refusal(decision, principal)

    def _held_by(self, exchange: Exchange, hold: HoldRequest, decision: Admitted) -> HoldRequest:
        exchange.told = allowance_headers(decision.allowance)
        exchange.told.append((b"x-gateway-hold-usd", format_usd(hold.amount_nano_usd).encode()))
        return hold

    async def _bound_within(self, wishes: Sequence[bytes], call: Call, price: ModelPrice) -> Usage:
        """The call's bound, counted where its bytes are above what the caller wants to pay at most.

        Raises MaxCostExceeded.
        """
        most = _max_cost(wishes)
        if price.most_of(call.bound) <= most:
            return call.bound
        bound = call.bound
        if price.most_of(least_bound(call)) <= most:
            bound = await self._services.counted_bound(call)
        if price.most_of(bound) <= most:
            return bound
        required = format_usd(price.most_of(bound))
        raise MaxCostExceeded(
            f"This call can cost up to ${required}, above the ${format_usd(most)} its x-gateway-max-cost-usd allows; "
            "lower its maximum of completion tokens, or raise the header.",
            param=_MAX_COST,
            details={"required_usd": required},
        )

    async def _refusal(self, decision: Refused | OverBudget | RateLimited, principal: Principal) -> GatewayError:
        of_organisation = decision.scope.kind == "organisation"
        sees = of_organisation and await self._services.auth.sees_organisation(principal)
        return refusal(decision, sees_organisation=sees)

    async def _admit(self, hold: HoldRequest) -> Decision:
        try:
            return await self._services.ledger.admit(hold)
        except LedgerUnavailable as error:
            if error.maybe_applied:
                # Its answer was lost, but the hold may stand: give it back by its id.
                self._services.settlements.release(hold)
            raise


async def _decoded_between_others(body: bytes) -> JSONObject:
    """A large body took a while to arrive and takes one to read, and then to inspect: other calls go in between."""
    steps = decode_in_steps(body)
    while True:
        await _let_others_go()
        try:
            next(steps)
        except StopIteration as end:
            await _let_others_go()
            return cast(JSONObject, end.value)


async def _let_others_go() -> None:
    """In one turn of the loop what has arrived for other calls is read, in the next one it is passed on."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def _hold_request(
    request_id: str, priced: PricedCall, bound: Usage, principal: Principal, claim: Claim | None
) -> HoldRequest:
    call, price = priced.call, priced.price
    amount_nano_usd = price.most_of(bound)
    return HoldRequest(
        hold_id=request_id,
        request_id=request_id,
        principal=principal,
        kind=call.kind,
        model=call.model,
        amount_nano_usd=amount_nano_usd,
        price_version=priced.version,
        tokens=bound.prompt_tokens + bound.completion_tokens,
        images=bound.units if call.kind == "image" else 0,
        so_far=so_far_unheard(price, bound, amount_nano_usd),
        claim=claim,
    )


def _a_count_may_fit(decision: Decision, call: Call, price: ModelPrice) -> bool:
    """Whether the call was refused for a bound that its counted tokens may keep within."""
    match decision:
        case OverBudget():
            return price.most_of(least_bound(call)) <= decision.room_nano_usd
        case RateLimited(rate="tokens"):
            least = least_bound(call)
            return least.prompt_tokens + least.completion_tokens <= decision.limit
        case _:
            return False


def _max_cost(wishes: Sequence[bytes]) -> int:
    if len(wishes) > 1:
        raise InvalidRequest("x-gateway-max-cost-usd is sent once.", param=_MAX_COST)
    try:
        return parse_usd(wishes[0].decode("latin-1").strip())
    except ValueError as error:
        raise InvalidRequest(f"x-gateway-max-cost-usd: {error}.", param=_MAX_COST) from None


def new_request_id() -> str:
    """Time-ordered, unique over all gateways: milliseconds, then 64 random bits, in hex."""
    return f"req-{time.time_ns() // 1_000_000:012x}{os.urandom(8).hex()}"
