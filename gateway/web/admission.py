"""How a call gets its hold: by what its bytes can mean at most, and where that does not fit, by its counted tokens.

Who places a hold and who only asks whether there would be room for one both come by here, so both hear the same.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from gateway.billing.errors import GatewayError, InvalidRequest, MaxCostExceeded
from gateway.billing.money import format_usd, parse_usd
from gateway.billing.prices import ModelPrice
from gateway.billing.principal import Principal
from gateway.billing.usage import Usage
from gateway.store.admission import Admitted, Claim, Decision, HoldRequest, OverBudget, RateLimited, Refused
from gateway.web.auth import Authenticator
from gateway.web.errors import refusal
from gateway.wire.call import Call
from gateway.wire.charge import least_bound, so_far_unheard
from gateway.wire.presentation import AS_SENT, Presentation

_MAX_COST = "x-gateway-max-cost-usd"
MAX_COST_HEADER = _MAX_COST.encode()

CountBound = Callable[[Call], Awaitable[Usage]]
"""A call's bound with its prompt counted: `Services.counted_bound`."""


class PricedCall(NamedTuple):
    """A request that was inspected, its price, the version of the list that has it, and how its answer is shown."""

    call: Call
    price: ModelPrice
    version: str
    presentation: Presentation = AS_SENT


class Admissions:
    """Asks for holds. `admit` places one, or only says whether it could be; `count` counts a prompt's tokens."""

    def __init__(self, admit: Callable[[HoldRequest], Awaitable[Decision]], count: CountBound) -> None:
        self._admit = admit
        self._count = count

    async def decide(
        self,
        request_id: str,
        principal: Principal,
        priced: PricedCall,
        claim: Claim | None,
        wishes: Sequence[bytes],
        tags: tuple[str, ...] = (),
    ) -> tuple[HoldRequest, Decision]:
        """Ask to hold what the call can cost by its bytes; where that does not fit, once more by its counted tokens.

        Returns what was asked for last, and what was decided. `wishes`: what was sent as x-gateway-max-cost-usd.

        Raises MaxCostExceeded: the caller wants to pay less than the call may cost. InvalidRequest, LedgerUnavailable.
        """
        call, price = priced.call, priced.price
        bound = await self._bound_within(wishes, call, price) if wishes else call.bound
        hold = _hold_request(request_id, priced, bound, principal, claim, tags)
        decision = await self._admit(hold)
        if isinstance(decision, Admitted):
            return hold, decision
        if bound is call.bound and _a_count_may_fit(decision, call, price):
            counted = await self._count(call)
            if counted.prompt_tokens < call.bound.prompt_tokens:
                hold = _hold_request(request_id, priced, counted, principal, claim, tags)
                decision = await self._admit(hold)
        return hold, decision

    async def _bound_within(self, wishes: Sequence[bytes], call: Call, price: ModelPrice) -> Usage:
        """The call's bound, counted where its bytes are above what the caller wants to pay at most."""
        most = _max_cost(wishes)
        if price.most_of(call.bound) <= most:
            return call.bound
        bound = call.bound
        if price.most_of(least_bound(call)) <= most:
            bound = await self._count(call)
        if price.most_of(bound) <= most:
            return bound
        required = format_usd(price.most_of(bound))
        raise MaxCostExceeded(
            f"This call can cost up to ${required}, above the ${format_usd(most)} its x-gateway-max-cost-usd allows; "
            "lower its maximum of completion tokens, or raise the header.",
            param=_MAX_COST,
            details={"required_usd": required},
        )


async def refused(
    auth: Authenticator, decision: Refused | OverBudget | RateLimited, principal: Principal
) -> GatewayError:
    """The error that a refusal is to this caller: the organisation's amounts are told to those who may see them."""
    of_organisation = decision.scope.kind == "organisation"
    sees = of_organisation and await auth.sees_organisation(principal)
    return refusal(decision, sees_organisation=sees)


def _hold_request(
    request_id: str,
    priced: PricedCall,
    bound: Usage,
    principal: Principal,
    claim: Claim | None,
    tags: tuple[str, ...],
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
        tags=tags,
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
