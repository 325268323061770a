"""Whether a charge is what its tokens cost by the price list it names: the books are recomputed, not believed."""

from dataclasses import dataclass

from gateway.billing.ledger import INEXACT, WHOLE_HOLD, Entry
from gateway.billing.prices import ModelPrice, PriceList
from gateway.billing.usage import Usage


@dataclass(frozen=True, slots=True)
class Mispriced:
    """An entry whose charge is not what its tokens cost; `priced_nano_usd` None: its list has no price for its model.

    Both amounts are signed as entries are: below zero for a refund.
    """

    entry_id: str
    charged_nano_usd: int
    priced_nano_usd: int | None


def repriced(entry: Entry, prices: PriceList | None) -> Mispriced | None:
    """Recompute one entry's charge from its tokens and the list of its `price_version` (None: that list is not known).

    None where it is right, or where nothing was priced (a release, a credit, a transfer, an adjustment). A late capture
    is held to its whole charge, not to the difference it posts. A charge that rests on an estimate was cut to its hold,
    which no entry names: it may be less than what its tokens cost at most, never more. A hold that expired and was
    charged whole has no tokens to be priced by: it is believed.
    """
    if not entry.price_version or WHOLE_HOLD in entry.flags:
        return None
    charged = entry.charge_nano_usd
    price = prices.find(entry.model) if prices else None
    if price is None or price.kind != entry.kind:
        return Mispriced(entry.id, charged, None) if charged else None
    match entry.type:
        case "capture" | "late_capture" | "expire":
            priced = _priced(entry, price)
        case "refund":
            priced = -price.cost_of(_usage(entry))
        case _:
            priced = 0
    return None if charged == priced else Mispriced(entry.id, charged, priced)


def _priced(entry: Entry, price: ModelPrice) -> int:
    if not INEXACT.intersection(entry.flags):
        return price.cost_of(_usage(entry))
    return min(entry.charge_nano_usd, price.most_of(_usage(entry)))


def _usage(entry: Entry) -> Usage:
    return Usage(entry.prompt_tokens, entry.completion_tokens, entry.cached_tokens, entry.units)
