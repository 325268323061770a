"""A charge is recomputed from its tokens and its list; one that differs is told with what it should be."""

from dataclasses import replace

import pytest

from gateway.billing.ledger import Entry, EntryType, Progress
from gateway.billing.prices import ModelPrice, PriceList
from gateway.billing.repricing import Mispriced, repriced
from gateway.billing.usage import Usage

CHAT = ModelPrice("mini", "chat", input_pico_usd=2000, cached_pico_usd=500, output_pico_usd=8000)
IMAGE = ModelPrice("realvision", "image", unit_pico_usd=1_500_000_000)
PRICES = PriceList([CHAT, IMAGE])
COST = 10 * 2 + 5 * 8


def entry(cost: int, kind: EntryType = "capture", *flags: str, model: str = "mini") -> Entry:
    """A call of ten tokens in and five out, or of one image."""
    image = model == "realvision"
    return Entry(
        id="1-0", at_ms=0, admitted_at_ms=0, type=kind, hold_id="h", cost_nano_usd=cost, request_id="r", org="o",
        team="t", user=None, key="k", kind="image" if image else "chat", model=model,
        prompt_tokens=0 if image else 10, completion_tokens=0 if image else 5, units=int(image),
        usage_source="upstream", price_version=PRICES.version, flags=flags,
    )  # fmt: skip


@pytest.mark.parametrize(
    "right",
    [
        entry(COST),
        entry(COST, "capture", "overrun"),
        replace(entry(8 * 2 + 1 + 5 * 8), cached_tokens=2),
        entry(1_500_000, model="realvision"),
        entry(-1_500_000, "refund", model="realvision"),
        entry(0, "release"),
        replace(entry(0, "credit"), price_version="", credit_nano_usd=7),
        replace(entry(9, "adjustment"), price_version=""),
        # What rests on an estimate was cut to its hold.
        entry(COST, "expire", "estimated"),
        entry(COST - 1, "capture", "estimated", "unanswered"),
        entry(1, "capture", "anomaly"),
        entry(10 * COST, "expire", "estimated", "whole_hold"),
        # A late capture posts the difference to what the hold was charged when it expired.
        replace(entry(COST - 7, "late_capture"), replaces=Progress(7, Usage(3))),
        replace(entry(-7, "late_capture"), replaces=Progress(COST + 7, Usage(3))),
    ],
)
def test_a_right_charge_has_no_difference(right: Entry) -> None:
    """Of every type that is priced; what is not priced cannot be wrong."""
    assert repriced(right, PRICES) is None


@pytest.mark.parametrize(
    ("wrong", "priced"),
    [
        (entry(COST + 1), COST),
        (entry(COST - 1), COST),
        (replace(entry(COST), cached_tokens=1), COST - 1),
        (entry(1_500_001, model="realvision"), 1_500_000),
        (entry(-1, "refund", model="realvision"), -1_500_000),
        (entry(1, "release"), 0),
        (entry(COST + 1, "capture", "estimated"), COST),
        (replace(entry(COST, "late_capture"), replaces=Progress(7, Usage(3))), COST),
    ],
)
def test_a_wrong_charge_is_told_with_what_it_should_be(wrong: Entry, priced: int) -> None:
    """Too much and too little, also of an estimate that is above what its tokens cost at most."""
    assert Mispriced("1-0", wrong.charge_nano_usd, priced) == repriced(wrong, PRICES)


@pytest.mark.parametrize("prices", [None, PriceList([]), PriceList([replace(CHAT, kind="speech")])])
def test_a_charge_without_a_price_cannot_be_right(prices: PriceList | None) -> None:
    """Its list is lost, or has no price for the model, or only one of another kind. A release costs nothing by any."""
    assert Mispriced("1-0", COST, None) == repriced(entry(COST), prices)
    assert repriced(entry(0, "release"), prices) is None
