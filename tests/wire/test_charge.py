"""Several submissions that shared one hold end it together."""

from gateway.billing.ledger import ANOMALY, ESTIMATED, RELEASE, UNANSWERED, Posting
from gateway.billing.prices import ModelPrice, PriceList
from gateway.billing.usage import Usage
from gateway.wire.charge import together

PRICE_NANO_USD = 1_500_000
ONE = Usage(units=1)
ACCEPTED = Posting("capture", PRICE_NANO_USD, ONE)
LOST = Posting("capture", PRICE_NANO_USD, ONE, "estimated", (ESTIMATED, UNANSWERED))
NAMELESS = Posting("capture", PRICE_NANO_USD, ONE, "estimated", (ANOMALY,))


def price_of(prices: PriceList) -> ModelPrice:
    return prices.of("realvision", "image")


def test_what_was_accepted_is_charged_and_what_was_refused_is_not(prices: PriceList) -> None:
    """Exactly so many prices; the upstream's own figure."""
    postings = [ACCEPTED, RELEASE, ACCEPTED, RELEASE]
    expected = Posting("capture", 2 * PRICE_NANO_USD, Usage(units=2))
    assert expected == together(price_of(prices), postings)


def test_nothing_charged_is_a_release(prices: PriceList) -> None:
    """However many were refused."""
    assert RELEASE == together(price_of(prices), [RELEASE] * 3)


def test_one_estimate_makes_the_whole_an_estimate(prices: PriceList) -> None:
    """An entry has one source; each flag stands once, whichever image it is of."""
    posting = together(price_of(prices), [ACCEPTED, LOST, LOST, NAMELESS])
    assert (4 * PRICE_NANO_USD, Usage(units=4), "estimated") == (
        posting.cost_nano_usd,
        posting.usage,
        posting.usage_source,
    )
    assert (ESTIMATED, UNANSWERED, ANOMALY) == posting.flags


def test_a_price_below_a_nano_dollar_is_rounded_once() -> None:
    """As of any other call: three thirds are a whole."""
    price = ModelPrice("tiny", "image", unit_pico_usd=1_334)
    postings = [Posting("capture", 2, ONE)] * 3
    assert 5 == together(price, postings).cost_nano_usd
