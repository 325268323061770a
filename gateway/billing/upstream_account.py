"""The organisation's prepaid account at MiniToolAI, as far as it is known here.

MiniToolAI has no path that tells a balance, so people enter what they know: a top-up, or the balance they read on its
account page. Each entry keeps the balance right after it and what the organisation had spent by then.

Laws:
- estimated balance = balance of the latest entry − (spent now − spent by then)
                    = Σ amounts of all entries − charged by the ledger since the first one, at every instant.
- Entries are never edited. A slip is put right by the next entry of a balance.
"""

from dataclasses import dataclass
from typing import Literal

DAY_MS = 24 * 3600 * 1000
BURN_DAYS = 7
_DAYS_LEFT_MAX = 36_500
"""A hundred years: whatever lasts longer has no end worth a date."""

AccountEntryType = Literal["top_up", "balance"]


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What is asked: so much was paid (`top_up`), or is there now (`balance`). `id` makes it happen once."""

    id: str
    type: AccountEntryType
    amount_nano_usd: int
    note: str = ""
    author: str = ""


@dataclass(frozen=True, slots=True)
class AccountEntry:
    """What was entered. `amount_nano_usd` is what it changed: of a balance the difference to the estimate, signed.

    `id` orders entries; `spent_nano_usd` is all the organisation had spent by then.
    """

    id: str
    at_ms: int
    type: AccountEntryType
    amount_nano_usd: int
    balance_nano_usd: int
    spent_nano_usd: int
    note: str
    author: str

    def balance_at(self, spent_nano_usd: int) -> int:
        """The balance once so much is spent, while this is the latest entry."""
        return self.balance_nano_usd - (spent_nano_usd - self.spent_nano_usd)


@dataclass(frozen=True, slots=True)
class Entered:
    entry: AccountEntry
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class NotEntered:
    """Nothing was changed. `conflict`: the id was used for something else; `too_much`: more than can be counted."""

    reason: Literal["conflict", "too_much"]
    balance_nano_usd: int = 0


def burn_per_day(cost_nano_usd: int, over_ms: int) -> int:
    """Nano-USD a day, rounded down, of what was spent in so many milliseconds.

    Less than a day counts as one: an organisation's first minutes say nothing about its days.
    """
    return max(0, cost_nano_usd) * DAY_MS // max(over_ms, DAY_MS)


def runs_out_ms(balance_nano_usd: int, burn_nano_usd: int, now_ms: int) -> int | None:
    """The instant a balance is used up at so much a day; now, if it is; None: not within a hundred years."""
    if balance_nano_usd <= 0:
        return now_ms
    if burn_nano_usd == 0 or balance_nano_usd > burn_nano_usd * _DAYS_LEFT_MAX:
        return None
    return now_ms + balance_nano_usd * DAY_MS // burn_nano_usd
