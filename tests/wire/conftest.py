"""Prices for tests of requests: one chat model with round numbers, one image model, one invented kind."""

import pytest

from gateway.billing.prices import ModelPrice, PriceList


@pytest.fixture
def prices() -> PriceList:
    """Small maxima, so that clipping shows."""
    return PriceList(
        [
            ModelPrice(
                model="gpt-4o-mini",
                kind="chat",
                input_pico_usd=150_000,
                output_pico_usd=600_000,
                context_tokens_max=128_000,
                output_tokens_max=16_384,
                image_tokens_low=2_833,
                image_tokens_high=48_169,
            ),
            ModelPrice(model="realvision", kind="image", unit_pico_usd=1_500_000_000),
            ModelPrice(model="voice", kind="speech", unit_pico_usd=15_000_000),
        ]
    )
