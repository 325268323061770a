"""One tree of errors, each with the HTTP status, type and code the client sees.

A message says what to do; it never holds a key, a stack or an internal host. `details` are merged
into the error object beside `message`, `type`, `param` and `code` (ADR 0006). What a refusal means
for retrying is decided here, once: `retry_after_s` becomes `Retry-After`, `should_retry`
becomes `x-should-retry`, which the OpenAI SDKs obey.
"""

from collections.abc import Mapping
from typing import ClassVar


class GatewayError(Exception):
    """Base of all answers that are not a success. Raised anywhere, turned into HTTP in `web.errors`."""

    status: int = 500
    type: str = "server_error"
    code: str = "internal_error"
    source: ClassVar[str] = "gateway"
    should_retry: ClassVar[bool | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        details: Mapping[str, object] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.details: Mapping[str, object] = details or {}
        self.retry_after_s = retry_after_s


class FailedWhenSent(GatewayError):
    """A fault of ours after the request had been sent: it may have been billed, so it is not to be repeated blindly."""

    should_retry = False


class InvalidRequest(GatewayError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidJSON(InvalidRequest):
    code = "invalid_json"


class DuplicateKey(InvalidRequest):
    code = "duplicate_key"


class UnsupportedParameter(InvalidRequest):
    code = "unsupported_parameter"


class UnsupportedGrouping(InvalidRequest):
    code = "unsupported_grouping"


class UnknownField(InvalidRequest):
    code = "unknown_field"


class AuthenticationError(GatewayError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class MissingAPIKey(AuthenticationError):
    code = "missing_api_key"


class InvalidAPIKey(AuthenticationError):
    code = "invalid_api_key"


class ExpiredAPIKey(AuthenticationError):
    code = "expired_api_key"


class InsufficientQuota(GatewayError):
    """Money is gone: no retry helps before someone raises a limit or a window resets."""

    status = 402
    type = "insufficient_quota"
    code = "budget_exceeded"
    should_retry = False


class BudgetExceeded(InsufficientQuota):
    code = "budget_exceeded"


class CreditExhausted(InsufficientQuota):
    """What was paid in ahead is used up."""

    code = "credit_exhausted"


class MaxCostExceeded(InsufficientQuota):
    """The call could cost more than its caller wants to pay."""

    code = "max_cost_exceeded"


class PermissionDenied(GatewayError):
    status = 403
    type = "permission_error"
    code = "permission_denied"


class ScopeBlocked(PermissionDenied):
    code = "scope_blocked"


class ModelNotAllowed(PermissionDenied):
    code = "model_not_allowed"


class NotFound(GatewayError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    """There is no price for the model: refuse the call, never treat it as free."""

    code = "model_not_found"


class JobNotFound(NotFound):
    code = "job_not_found"


class MethodNotAllowed(GatewayError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str = "") -> None:
        super().__init__(message)
        self.allow = allow
        """The methods the path takes, as the header `Allow` lists them."""


class RequestTimeout(GatewayError):
    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class AlreadyExists(GatewayError):
    status = 409
    type = "invalid_request_error"
    code = "already_exists"
    should_retry = False


class IdempotencyConflict(GatewayError):
    """The Idempotency-Key was used before, for something else."""

    status = 409
    type = "invalid_request_error"
    code = "idempotency_conflict"
    should_retry = False


class IdempotencyInProgress(GatewayError):
    """The first request with this Idempotency-Key has no answer yet."""

    status = 409
    type = "invalid_request_error"
    code = "idempotency_in_progress"


class IdempotencyUnreplayable(GatewayError):
    """The first request with this Idempotency-Key may have been billed and its answer is not known."""

    status = 409
    type = "invalid_request_error"
    code = "idempotency_unreplayable"
    should_retry = False


class PreconditionFailed(GatewayError):
    """What a change was made from is no longer so: nothing was changed, and trying again may well succeed."""

    status = 412
    type = "invalid_request_error"
    code = "precondition_failed"
    should_retry = True


class RequestTooLarge(GatewayError):
    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class UnsupportedMediaType(GatewayError):
    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class HeadersTooLarge(GatewayError):
    status = 431
    type = "invalid_request_error"
    code = "headers_too_large"


class RequestExceedsLimit(InvalidRequest):
    """More than a whole minute's worth of a rate: waiting would not help."""

    code = "request_exceeds_limit"


class RateLimitExceeded(GatewayError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class TooManyBadKeys(RateLimitExceeded):
    """An address has shown too many keys that are not valid; sending the same one again would not help."""

    should_retry = False


class ConcurrencyLimitExceeded(RateLimitExceeded):
    code = "concurrency_limit_exceeded"


class TooManyFailures(GatewayError):
    """An address has shown too many keys that are not valid."""

    status = 429
    type = "rate_limit_error"
    code = "too_many_failures"


class BudgetHeld(GatewayError):
    """Only money held by running calls is in the way: it may come back within seconds."""

    status = 429
    type = "rate_limit_error"
    code = "budget_held"


class UpstreamError(GatewayError):
    status = 502
    type = "upstream_error"
    code = "upstream_error"
    source = "upstream"


class UpstreamBrokeOff(UpstreamError):
    """The request was sent and the connection ended: it may have been billed, so it is not to be repeated blindly."""

    should_retry = False


class ImagesFailed(UpstreamError):
    """Image jobs were accepted and there is no picture: asking again is a new purchase. The message says what this one
    cost."""

    should_retry = False


class UpstreamRefused(UpstreamError):
    """MiniToolAI answered 401, 402 or 403: the organisation's key or balance, not the caller's."""

    code = "upstream_refused"
    should_retry = False


class UpstreamRejected(UpstreamError):
    """MiniToolAI found fault with the caller's own request: that passes with its own status, one of 400 to 499."""

    status = InvalidRequest.status
    type = InvalidRequest.type
    code = "upstream_rejected"

    def __init__(self, message: str, *, status: int = status, retry_after_s: int | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.status = status
        if status == RateLimitExceeded.status:
            self.type = RateLimitExceeded.type


class UpstreamTimeout(UpstreamError):
    """The request was sent and never answered: it may have been billed, so it is not to be repeated blindly."""

    status = 504
    code = "upstream_timeout"
    should_retry = False


class LedgerUnavailable(GatewayError):
    """Redis gave no answer. `maybe_applied`: the command may have left all the same, and may have been carried out."""

    status = 503
    code = "ledger_unavailable"

    def __init__(self, message: str, *, retry_after_s: int = 2, maybe_applied: bool = True) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.maybe_applied = maybe_applied


class Overloaded(GatewayError):
    status = 503
    code = "overloaded"


class Draining(GatewayError):
    status = 503
    code = "draining"
