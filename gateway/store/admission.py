"""What admission is asked, and what it decides. An expected refusal is a value; `web` turns it into an error."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from gateway.billing.budget import BUDGET_WINDOWS, Calendar, Span, Window
from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import NOT_TOLD, Progress
from gateway.billing.limits import NOTHING_LIMITED, RATES, Allowance, Left, Rate
from gateway.billing.principal import Principal, Scope


@dataclass(frozen=True, slots=True)
class Claim:
    """What an Idempotency-Key claims: `name` is a digest of it and the asking key, `request` one of what is asked."""

    name: str
    request: str


class HoldRequest(NamedTuple):
    """What admission needs to know of one call. `so_far` is what it is charged should nobody be heard of it again.

    `tags` are for reports ("project=alpha"); they go where the call's entries go and decide about nothing.
    """

    hold_id: str
    request_id: str
    principal: Principal
    kind: str
    model: str
    amount_nano_usd: int
    price_version: str
    tokens: int = 0
    images: int = 0
    so_far: Progress = NOT_TOLD
    claim: Claim | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Admitted:
    admitted_at_ms: int
    deadline_ms: int
    allowance: Allowance = field(default=NOTHING_LIMITED, compare=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The state of a scope forbids the call. `reason`: unknown_scope, revoked, expired, blocked, model_not_allowed."""

    reason: str
    scope: Scope
    allowance: Allowance = field(default=NOTHING_LIMITED, compare=False)


@dataclass(frozen=True, slots=True)
class OverBudget:
    """A limit would be passed: by what is spent (402), or only by what running calls hold (`only_held`, 429).

    Of prepaid the limit is what was paid in. `retry_after_ms` is None where no waiting helps.
    """

    scope: Scope
    window: Window
    span: Span
    limit_nano_usd: int
    spent_nano_usd: int
    held_nano_usd: int
    required_nano_usd: int
    only_held: bool
    retry_after_ms: int | None = None
    allowance: Allowance = field(default=NOTHING_LIMITED, compare=False)

    @property
    def room_nano_usd(self) -> int:
        """The most the call could cost and be refused no more, or no longer for good (402)."""
        return self.limit_nano_usd - self.spent_nano_usd - (self.held_nano_usd if self.only_held else 0)


@dataclass(frozen=True, slots=True)
class RateLimited:
    """A rate is used up. `retry_after_ms` is the longest wait of all scopes, whichever of them is named here.

    None where the call asks for more than a whole minute's worth.
    """

    scope: Scope
    rate: Rate
    limit: int
    retry_after_ms: int | None
    allowance: Allowance = field(default=NOTHING_LIMITED, compare=False)


@dataclass(frozen=True, slots=True)
class Claimed:
    """The call's Idempotency-Key belongs to an earlier call, of this hold; `same` says whether that asked the same."""

    hold_id: str
    same: bool
    allowance: Allowance = field(default=NOTHING_LIMITED, compare=False)


@dataclass(frozen=True, slots=True)
class StalePrice:
    """Another price list is in force than the call was priced by; `version` names it ("": Redis has none)."""

    version: str


Decision = Admitted | Claimed | Refused | OverBudget | RateLimited | StalePrice


def decision_of(reply: Sequence[object], request: HoldRequest, calendar: Calendar) -> Decision:
    """Read the admission script's reply (`lua/admit.lua` says what it looks like)."""
    numbers = cast(Sequence[int], reply[1])
    allowance = _allowance(cast(Sequence[int], reply[2]))
    if reply[0] == b"admitted":
        return Admitted(numbers[0], numbers[1], allowance)
    outcome = cast(bytes, reply[0]).decode()
    if outcome == "stale_price":
        return StalePrice(cast(bytes, reply[3]).decode())
    if outcome == "resolved":
        raise LedgerUnavailable(f"hold {request.hold_id} has already ended; ask again with a new request")
    if outcome == "claimed" and request.claim is not None:
        hold_id, digest = cast(bytes, reply[3]).decode().split("\n")
        return Claimed(hold_id, digest == request.claim.request, allowance)
    scope = request.principal.scopes()[numbers[0] - 1]
    if outcome in ("rate_limited", "exceeds_limit"):
        retry_after_ms = numbers[3] if outcome == "rate_limited" else None
        return RateLimited(scope, RATES[numbers[1] - 1], numbers[2], retry_after_ms, allowance)
    if outcome not in ("budget_exceeded", "budget_held"):
        return Refused(outcome, scope, allowance)
    window = BUDGET_WINDOWS[numbers[1] - 1]
    return OverBudget(
        scope=scope,
        window=window,
        span=Span(0, None) if window in ("total", "prepaid") else calendar.spans_at(numbers[5]).of(window),
        limit_nano_usd=numbers[2],
        spent_nano_usd=numbers[3],
        held_nano_usd=numbers[4],
        required_nano_usd=request.amount_nano_usd,
        only_held=outcome == "budget_held",
        retry_after_ms=numbers[6] if outcome == "budget_held" else None,
        allowance=allowance,
    )


def _allowance(left: Sequence[int]) -> Allowance:
    if not left:
        return NOTHING_LIMITED
    requests, requests_left, requests_ms, tokens, tokens_left, tokens_ms, money = left
    return Allowance(
        Left(requests, requests_left, requests_ms) if requests >= 0 else None,
        Left(tokens, tokens_left, tokens_ms) if tokens >= 0 else None,
        money if money >= 0 else None,
    )
