"""Paying into a prepaid budget, and moving credit between two."""

from dataclasses import dataclass, field
from typing import Literal

from gateway.billing.ledger import Credit
from gateway.billing.principal import Scope


@dataclass(frozen=True, slots=True)
class Payment:
    """What is asked: so many nano-USD to a scope; `source` is the sibling a transfer takes them from.

    `id` makes it happen once, however often it is sent.
    """

    id: str
    scope: Scope
    amount_nano_usd: int
    source: Scope | None = None
    note: str = ""
    author: str = ""


@dataclass(frozen=True, slots=True)
class Paid:
    """What became of it, however often it is sent: `entry_id` is the ledger's, `credit` the scope's right after it."""

    at_ms: int
    entry_id: str
    credit: Credit
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class NotPaid:
    """Nothing was changed. `credit` is of the scope that has too little or too much.

    `conflict`: the id was used for something else. `not_prepaid`: the scope has no prepaid budget.
    """

    reason: Literal["conflict", "unknown_scope", "not_prepaid", "too_much", "too_little"]
    scope: Scope
    credit: Credit = field(default_factory=Credit)
