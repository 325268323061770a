"""Rate limits of one scope, and what is left of them.

Requests and images are GCRA buckets: they hold a minute's worth, refill evenly, and one number (the theoretical
arrival time) is their whole state. Tokens are known only when a call ends, so their bucket takes what was really
used at that moment, while the most a running call can use is set aside beside it (ADR 0010): what is admitted in any
span is never above the limit plus the refill of that span, and unused tokens come back exactly.
"""

from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

Rate = Literal["requests", "tokens", "images", "concurrent"]
RATES: tuple[Rate, ...] = ("requests", "tokens", "images", "concurrent")

LIMIT_MAX = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one scope; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    images_per_minute: int | None = None
    concurrent_requests: int | None = None

    def given(self) -> dict[str, int]:
        """The limits that are set, by name, in a fixed order."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}


RATE_OF_LIMIT: dict[str, Rate] = {
    "requests_per_minute": "requests",
    "tokens_per_minute": "tokens",
    "images_per_minute": "images",
    "concurrent_requests": "concurrent",
}

NO_LIMITS = Limits()


class Left(NamedTuple):
    """What is left of a limit, and after how long all of it is back."""

    limit: int
    remaining: int
    reset_ms: int


class Allowance(NamedTuple):
    """The tightest of several scopes; None where no scope limits it. The organisation's money is not in it."""

    requests: Left | None = None
    tokens: Left | None = None
    budget_nano_usd: int | None = None


NOTHING_LIMITED = Allowance()
