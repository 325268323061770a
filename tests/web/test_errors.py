"""Errors as clients see them: one table, the interface's, and words that say what to do."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gateway.billing import errors
from gateway.billing.budget import Span, Window
from gateway.billing.errors import GatewayError
from gateway.billing.limits import Allowance, Left
from gateway.billing.principal import Scope
from gateway.store.admission import OverBudget, RateLimited, Refused
from gateway.web.errors import allowance_headers, error_answer, refusal, upstream_retry_after_s

TABLE = {
    "internal_error": (500, "server_error"),
    "invalid_request": (400, "invalid_request_error"),
    "invalid_json": (400, "invalid_request_error"),
    "request_exceeds_limit": (400, "invalid_request_error"),
    "duplicate_key": (400, "invalid_request_error"),
    "unsupported_parameter": (400, "invalid_request_error"),
    "unsupported_grouping": (400, "invalid_request_error"),
    "unknown_field": (400, "invalid_request_error"),
    "missing_api_key": (401, "authentication_error"),
    "invalid_api_key": (401, "authentication_error"),
    "expired_api_key": (401, "authentication_error"),
    "budget_exceeded": (402, "insufficient_quota"),
    "credit_exhausted": (402, "insufficient_quota"),
    "permission_denied": (403, "permission_error"),
    "scope_blocked": (403, "permission_error"),
    "model_not_allowed": (403, "permission_error"),
    "not_found": (404, "invalid_request_error"),
    "model_not_found": (404, "invalid_request_error"),
    "job_not_found": (404, "invalid_request_error"),
    "method_not_allowed": (405, "invalid_request_error"),
    "request_timeout": (408, "invalid_request_error"),
    "already_exists": (409, "invalid_request_error"),
    "max_cost_exceeded": (402, "insufficient_quota"),
    "idempotency_conflict": (409, "invalid_request_error"),
    "idempotency_in_progress": (409, "invalid_request_error"),
    "idempotency_unreplayable": (409, "invalid_request_error"),
    "precondition_failed": (412, "invalid_request_error"),
    "request_too_large": (413, "invalid_request_error"),
    "unsupported_media_type": (415, "invalid_request_error"),
    "headers_too_large": (431, "invalid_request_error"),
    "rate_limit_exceeded": (429, "rate_limit_error"),
    "concurrency_limit_exceeded": (429, "rate_limit_error"),
    "budget_held": (429, "rate_limit_error"),
    "too_many_failures": (429, "rate_limit_error"),  # not the interface's: the dashboard's login answers it
    "upstream_error": (502, "upstream_error"),
    "upstream_rejected": (400, "invalid_request_error"),
    "upstream_refused": (502, "upstream_error"),
    "upstream_timeout": (504, "upstream_error"),
    "ledger_unavailable": (503, "server_error"),
    "overloaded": (503, "server_error"),
    "draining": (503, "server_error"),
}
NEVER_AGAIN = {
    "budget_exceeded",
    "credit_exhausted",
    "already_exists",
    "idempotency_conflict",
    "idempotency_unreplayable",
    "max_cost_exceeded",
    "upstream_refused",
    "upstream_timeout",
}
"""Codes that carry `x-should-retry: false`, always."""


def kinds(of: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    """The whole tree of errors."""
    yield of
    for below in of.__subclasses__():
        yield from kinds(below)


def seen(error: GatewayError) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and the error object, as a client reads them."""
    status, headers, body = error_answer(error)
    assert str(len(body)) == dict(headers)[b"content-length"].decode()
    return status, {name.decode(): value.decode() for name, value in headers}, msgspec.json.decode(body)["error"]


def over(
    scope: Scope, *, window: Window = "month", only_held: bool = False, end_ms: int | None = 1_796_083_200_000
) -> OverBudget:
    retry_after_ms = 2000 if only_held else None
    return OverBudget(
        scope, window, Span(0, end_ms), 25 * 10**9, 24 * 10**9, 10**8, 2 * 10**9, only_held, retry_after_ms
    )


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_every_error_is_one_of_the_interfaces(kind: type[GatewayError]) -> None:
    """Status, type and code are what clients are written against; a new one is added to the table first."""
    status, headers, error = seen(kind("Do this."))
    assert TABLE[error["code"]] == (status, error["type"])
    assert {"message": "Do this.", "type": error["type"], "param": None, "code": kind.code} == error
    assert ("upstream" if issubclass(kind, errors.UpstreamError) else "gateway") == headers["x-gateway-error-source"]
    if kind.code in NEVER_AGAIN:
        assert "false" == headers["x-should-retry"]


def test_the_table_has_no_code_that_is_never_sent() -> None:
    """Nor does the tree lack one."""
    assert set(TABLE) == {kind.code for kind in kinds()}


def test_members_beside_the_error_stay_beside_it() -> None:
    """The image paths carry MiniToolAI's own members, so that its clients find what they look for."""
    _, _, body = error_answer(errors.NotFound("x"), {"status": "error", "jobid": None, "signature": None})
    assert [b"error", b"status", b"jobid", b"signature"] == [name.encode() for name in msgspec.json.decode(body)]


@pytest.mark.parametrize("scope", [Scope("team", "research"), Scope("user", "an"), Scope("key", "key-1")])
def test_a_money_refusal_says_whose_limit_what_is_spent_and_when_it_resets(scope: Scope) -> None:
    """In words for people and in members for scripts."""
    status, headers, error = seen(refusal(over(scope)))
    assert (402, "budget_exceeded", "false") == (status, error["code"], headers["x-should-retry"])
    assert "retry-after" not in headers
    assert {
        "scope": scope.kind,
        "id": scope.id,
        "window": "month",
        "limit_usd": "25.00",
        "spent_usd": "24.00",
        "held_usd": "0.10",
        "required_usd": "2.00",
        "resets_at": "2026-12-01T00:00:00Z",
    } == {name: error[name] for name in error if name not in ("message", "type", "param", "code")}
    assert (
        f"{scope.kind.capitalize()} {scope.id} has spent $24.00 of its $25.00 for this month and this call needs up to "
        "$2.00; it resets at 2026-12-01T00:00:00Z."
    ) == error["message"]


def test_held_money_is_worth_waiting_for() -> None:
    """429 with the seconds to wait; SDKs try again by themselves."""
    status, headers, error = seen(refusal(over(Scope("team", "research"), only_held=True)))
    assert (429, "budget_held", "2") == (status, error["code"], headers["retry-after"])
    assert "x-should-retry" not in headers
    assert "holds $0.10 for running calls" in error["message"]


def test_a_total_does_not_reset() -> None:
    """Waiting does not help; a person does."""
    _, _, error = seen(refusal(over(Scope("team", "research"), window="total", end_ms=None)))
    assert error["resets_at"] is None
    assert "ask an administrator to raise it" in error["message"]


@pytest.mark.parametrize("only_held", [False, True])
@pytest.mark.parametrize("window", ["total", "day", "week", "month"])
def test_the_organisations_amounts_are_not_told_to_members(window: Window, only_held: bool) -> None:
    """Neither in members nor in words: only what this call needs, and when it may go on."""
    _, _, error = seen(refusal(over(Scope("organisation", "default"), window=window, only_held=only_held)))
    assert not {"limit_usd", "spent_usd", "held_usd"} & set(error)
    assert "2.00" == error["required_usd"]
    for amount in ("25.00", "24.00", "0.10"):
        assert amount not in error["message"]


@pytest.mark.parametrize(
    ("reason", "scope", "status", "code", "says"),
    [
        ("unknown_scope", Scope("team", "gone"), 401, "invalid_api_key", "not valid here"),
        ("revoked", Scope("key", "key-1"), 401, "invalid_api_key", "not valid here"),
        ("expired", Scope("key", "key-1"), 401, "expired_api_key", "has expired"),
        ("blocked", Scope("user", "an"), 403, "scope_blocked", "User an is blocked"),
        ("blocked", Scope("organisation", "default"), 403, "scope_blocked", "The organisation is blocked"),
        ("model_not_allowed", Scope("team", "red"), 403, "model_not_allowed", "Team red may not use this model"),
    ],
)
def test_a_refusal_by_state_says_what_to_do(reason: str, scope: Scope, status: int, code: str, says: str) -> None:
    """It names the scope, except where a key that is not valid would learn something about it."""
    got, _, error = seen(refusal(Refused(reason, scope)))
    assert (status, code) == (got, error["code"])
    assert says in error["message"]
    assert (None if status == 401 else scope.id) == error.get("id")


@pytest.mark.parametrize(("retry_after_ms", "seconds"), [(1, "1"), (1000, "1"), (1001, "2"), (59_999, "60")])
def test_a_used_up_rate_says_when_to_come_back(retry_after_ms: int, seconds: str) -> None:
    """In whole seconds, never too early; the rate and whose it is stand in the words and in the members."""
    status, headers, error = seen(refusal(RateLimited(Scope("user", "an"), "images", 10, retry_after_ms)))
    assert (429, seconds, "rate_limit_exceeded") == (status, headers["retry-after"], error["code"])
    assert f"User an may use 10 images a minute; try again in {seconds} s." == error["message"]
    assert ("user", "an", "images", 10) == tuple(error[name] for name in ("scope", "id", "rate", "limit"))


def test_what_is_left_is_told_in_openais_headers() -> None:
    """Times as Go writes durations; a header without a limit behind it is left out."""
    left = Allowance(Left(60, 12, 48_000), Left(9, 0, 360_001), 1_500_000)
    assert [
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"12"),
        (b"x-ratelimit-reset-requests", b"48s"),
        (b"x-ratelimit-limit-tokens", b"9"),
        (b"x-ratelimit-remaining-tokens", b"0"),
        (b"x-ratelimit-reset-tokens", b"6m1s"),
        (b"x-gateway-budget-remaining-usd", b"0.0015"),
    ] == allowance_headers(left)
    assert [] == allowance_headers(Allowance())


@pytest.mark.parametrize(
    ("status", "sent", "retry_after_s"),
    [
        (429, b"17", 17),
        (429, b" 0 ", 0),
        (503, b"17", 17),
        (429, b"Sun, 22 Nov 2026 10:00:00 GMT", 2),
        (429, b"-1", 2),
        (429, b"9" * 7, 2),
        (429, None, 2),
        (400, b"17", None),
        (500, b"17", None),
    ],
)
def test_when_to_come_back_is_the_upstreams_word_where_it_is_one(
    status: int, sent: bytes | None, retry_after_s: int | None
) -> None:
    """Seconds are taken over; whatever else stands there, two of them bring no harm."""
    headers = [(b"retry-after", sent)] if sent is not None else []
    assert retry_after_s == upstream_retry_after_s(status, headers)
