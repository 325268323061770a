"""Corrections made by hand: what no other entry can say, with a note and an author."""

from dataclasses import dataclass
from typing import Literal

from gateway.billing.budget import Window
from gateway.billing.principal import Scope


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What is asked: so many nano-USD (negative: given back) at a scope and all above it, as of an instant.

    `id` makes it happen once, however often it is sent. `at_ms` None is now.
    """

    id: str
    scope: Scope
    amount_nano_usd: int
    note: str
    author: str
    at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Adjusted:
    """What became of it, however often it is sent: `entry_id` is the ledger's."""

    at_ms: int
    entry_id: str
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class NotAdjusted:
    """Nothing was changed. `too_little`: the scope has spent less in the window than would be given back."""

    reason: Literal["conflict", "unknown_scope", "ahead", "too_little", "too_much"]
    scope: Scope
    window: Window = "total"
    spent_nano_usd: int = 0
