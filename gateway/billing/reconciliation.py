"""Holding the ledger against MiniToolAI's own figure: what each says for one span, and the drift between them.

Laws:
- drift = ledger − billed: above zero, the ledger charged more than MiniToolAI billed.
- What was found is never edited: a later look at the same span is another entry.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """What MiniToolAI billed for a half-open span, as somebody read it there. `id` makes it happen once."""

    id: str
    from_ms: int
    to_ms: int
    billed_nano_usd: int
    note: str = ""
    author: str = ""


@dataclass(frozen=True, slots=True)
class Booked:
    """What the ledger has of the calls admitted in a span; `flagged` is how many of its entries carry a flag."""

    ledger_nano_usd: int
    estimated_nano_usd: int
    flagged: int


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """A figure and what the ledger had at that moment. `id` orders them."""

    id: str
    at_ms: int
    figure: Figure
    booked: Booked

    @property
    def drift_nano_usd(self) -> int:
        return self.booked.ledger_nano_usd - self.figure.billed_nano_usd


def hundredths_percent(part: int, whole: int) -> int | None:
    """The share of a part in hundredths of a percent, rounded down; None where there is no whole."""
    return max(0, part) * 10_000 // whole if whole > 0 else None
