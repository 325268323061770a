"""Errors as HTTP: status, headers and body, in one place for both planes."""

import re
from collections.abc import Mapping, Sequence

from gateway.billing.budget import Window, instant
from gateway.billing.errors import (
    BudgetExceeded,
    BudgetHeld,
    ConcurrencyLimitExceeded,
    CreditExhausted,
    ExpiredAPIKey,
    GatewayError,
    InvalidAPIKey,
    MethodNotAllowed,
    ModelNotAllowed,
    RateLimitExceeded,
    RequestExceedsLimit,
    RequestTooLarge,
    ScopeBlocked,
    UpstreamError,
    UpstreamRefused,
    UpstreamRejected,
)
from gateway.billing.limits import Allowance, Left, Rate
from gateway.billing.money import format_usd
from gateway.billing.principal import Scope
from gateway.store.admission import OverBudget, RateLimited, Refused
from gateway.wire.stray_keys import without_keys
from gateway.wire.strictjson import encode

Header = tuple[bytes, bytes]

_REFUSED_BY_UPSTREAM = (401, 402, 403)
_STATUS_MAX = 599
_WORTH_WAITING = (429, 503)
_UPSTREAM_RETRY_AFTER_S = 2
_SECONDS = re.compile(rb"[0-9]{1,6}")
_WINDOW_WORDS: Mapping[Window, str] = {
    "total": "in total",
    "day": "for today",
    "week": "for this week",
    "month": "for this month",
    "prepaid": "of prepaid credit",
}


def error_body(error: GatewayError) -> dict[str, object]:
    """The object under "error". It repeats names that the request used, one of which may be a key by mistake."""
    return {
        "message": without_keys(error.message),
        "type": error.type,
        "param": error.param and without_keys(error.param),
        "code": error.code,
        **error.details,
    }


def error_answer(error: GatewayError, beside: Mapping[str, object] | None = None) -> tuple[int, list[Header], bytes]:
    """Status, headers and JSON body of an error; `beside` stands beside "error" (the image paths' own members)."""
    body = encode({"error": error_body(error), **(beside or {})})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-gateway-error-source", error.source.encode()),
    ]
    if isinstance(error, MethodNotAllowed) and error.allow:
        headers.append((b"allow", error.allow.encode()))
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    if error.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
    return error.status, headers, body


def refusal(decision: Refused | OverBudget | RateLimited, *, sees_organisation: bool = False) -> GatewayError:
    """Turn an admission's refusal into the error its caller sees.

    What the whole organisation spends is told only to those who may see it.
    """
    if isinstance(decision, OverBudget):
        return _money_refusal(decision, told=sees_organisation or decision.scope.kind != "organisation")
    if isinstance(decision, RateLimited):
        return _rate_refusal(decision)
    where = {"scope": decision.scope.kind, "id": decision.scope.id}
    match decision.reason:
        case "expired":
            return ExpiredAPIKey("This API key has expired; ask your team's administrator for a new one.")
        case "blocked":
            name = scope_name(decision.scope)
            return ScopeBlocked(f"{name} is blocked; ask an administrator to unblock it.", details=where)
        case "model_not_allowed":
            return ModelNotAllowed(
                f"{scope_name(decision.scope)} may not use this model; GET /v1/me lists the models it may use.",
                param="model",
                details=where,
            )
        case _:
            return InvalidAPIKey("This API key is not valid here: it was revoked or never existed.")


_RATE_WORDS: Mapping[Rate, str] = {
    "requests": "requests a minute",
    "tokens": "tokens a minute",
    "images": "images a minute",
    "concurrent": "calls at once",
}


def _rate_refusal(limited: RateLimited) -> GatewayError:
    name, words = scope_name(limited.scope), _RATE_WORDS[limited.rate]
    details = {"scope": limited.scope.kind, "id": limited.scope.id, "limit": limited.limit, "rate": limited.rate}
    if limited.retry_after_ms is None:
        return RequestExceedsLimit(
            f"{name} may use {limited.limit} {words}, and this one call asks for more; ask for less in one call.",
            details=details,
        )
    retry_after_s = _seconds(limited.retry_after_ms)
    kind = ConcurrencyLimitExceeded if limited.rate == "concurrent" else RateLimitExceeded
    return kind(
        f"{name} may use {limited.limit} {words}; try again in {retry_after_s} s.",
        details=details,
        retry_after_s=retry_after_s,
    )


def _money_refusal(over: OverBudget, *, told: bool) -> GatewayError:
    resets_at = instant(over.span.end_ms) if over.span.end_ms is not None else None
    details: dict[str, object] = {"scope": over.scope.kind, "id": over.scope.id, "window": over.window}
    if told:
        details |= {
            "limit_usd": format_usd(over.limit_nano_usd),
            "spent_usd": format_usd(over.spent_nano_usd),
            "held_usd": format_usd(over.held_nano_usd),
        }
    details |= {"required_usd": format_usd(over.required_nano_usd), "resets_at": resets_at}
    if over.only_held:
        retry_after_s = _seconds(over.retry_after_ms or 0)
        return BudgetHeld(_held_message(over, told=told), details=details, retry_after_s=retry_after_s)
    if over.window == "prepaid":
        return CreditExhausted(_credit_message(over, told=told), details=details)
    return BudgetExceeded(_spent_message(over, resets_at, told=told), details=details)


def _seconds(retry_after_ms: int) -> int:
    return max(1, -(-retry_after_ms // 1000))


def _held_message(over: OverBudget, *, told: bool) -> str:
    words = _WINDOW_WORDS[over.window]
    required = format_usd(over.required_nano_usd)
    if not told:
        return f"Running calls hold the organisation's budget {words}; this call needs up to ${required}. Try again."
    return (
        f"{scope_name(over.scope)} has spent ${format_usd(over.spent_nano_usd)} and holds "
        f"${format_usd(over.held_nano_usd)} for running calls, of its ${format_usd(over.limit_nano_usd)} {words}; this "
        f"call needs up to ${required}. Try again when a running call has ended."
    )


def _credit_message(over: OverBudget, *, told: bool) -> str:
    required = format_usd(over.required_nano_usd)
    if not told:
        return (
            f"The organisation's credit is used up for a call of up to ${required}; ask an administrator to top it up."
        )
    return (
        f"{scope_name(over.scope)} has spent ${format_usd(over.spent_nano_usd)} of the "
        f"${format_usd(over.limit_nano_usd)} paid in and this call needs up to ${required}; "
        "ask an administrator to top it up."
    )


def _spent_message(over: OverBudget, resets_at: str | None, *, told: bool) -> str:
    words = _WINDOW_WORDS[over.window]
    then = f"it resets at {resets_at}" if resets_at else "it does not reset; ask an administrator to raise it"
    required = format_usd(over.required_nano_usd)
    if not told:
        return f"The organisation's budget {words} is used up for a call of up to ${required}; {then}."
    return (
        f"{scope_name(over.scope)} has spent ${format_usd(over.spent_nano_usd)} of its "
        f"${format_usd(over.limit_nano_usd)} {words} and this call needs up to ${required}; {then}."
    )


def scope_name(scope: Scope) -> str:
    """A scope at the beginning of a sentence."""
    return "The organisation" if scope.kind == "organisation" else f"{scope.kind.capitalize()} {scope.id}"


def unfit_status(status: int) -> UpstreamError | None:
    """What a status of the upstream's is to the caller that must not pass; None for all that may."""
    if status in _REFUSED_BY_UPSTREAM:
        return UpstreamRefused(
            "MiniToolAI refused the organisation's own key or balance; your key is fine. Tell an administrator."
        )
    if 300 <= status < 400:
        return UpstreamError(f"The upstream answered with status {status}; an administrator must look at its address.")
    if status > _STATUS_MAX:
        return UpstreamError("The upstream answered with a status that does not exist; nothing was billed.")
    return None


def coded_failure(status: int) -> UpstreamError:
    """In the place of a failure whose body is not to be read, and may hold the organisation's key."""
    return UpstreamError(f"The upstream failed with status {status}, in a coding nobody asked for.")


def passed_failure(status: int, headers: Sequence[Header]) -> tuple[str, list[Header]]:
    """What a failure of the upstream that passes to the caller counts as, and its headers.

    What the upstream says of the request (400 and above) is its caller's affair, from 500 on it is its own.
    """
    passed = [*headers, (b"x-gateway-error-source", b"upstream")]
    if status in _WORTH_WAITING and not any(name == b"retry-after" for name, _ in headers):
        passed.append((b"retry-after", str(_UPSTREAM_RETRY_AFTER_S).encode()))
    return UpstreamError.code if status >= 500 else UpstreamRejected.code, passed


def upstream_retry_after_s(status: int, headers: Sequence[Header]) -> int | None:
    """When to come back, where the status says so: by the upstream's own header, if that names seconds."""
    if status not in _WORTH_WAITING:
        return None
    said = next((value for name, value in headers if name == b"retry-after"), b"").strip()
    return int(said) if _SECONDS.fullmatch(said) else _UPSTREAM_RETRY_AFTER_S


def allowance_headers(allowance: Allowance) -> list[Header]:
    """What is left, in the headers OpenAI's clients know; a header without a limit behind it is left out."""
    headers = []
    for name, left in ((b"requests", allowance.requests), (b"tokens", allowance.tokens)):
        if left is not None:
            headers += [
                (b"x-ratelimit-limit-" + name, str(left.limit).encode()),
                (b"x-ratelimit-remaining-" + name, str(left.remaining).encode()),
                (b"x-ratelimit-reset-" + name, _reset(left)),
            ]
    if allowance.budget_nano_usd is not None:
        headers.append((b"x-gateway-budget-remaining-usd", format_usd(allowance.budget_nano_usd).encode()))
    return headers


def _reset(left: Left) -> bytes:
    """Whole seconds in the form of Go's durations, as OpenAI writes them: 1s, 6m0s."""
    minutes, seconds = divmod(-(-left.reset_ms // 1000), 60)
    return b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds


def body_too_large(body_bytes_max: int) -> RequestTooLarge:
    """What a call's body above the bound is answered."""
    return RequestTooLarge(f"The request's body is above {body_bytes_max} bytes; send less in one call.")
