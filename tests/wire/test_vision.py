"""The bound of an image: never below what it counts as, and as low as its size allows."""

import tomllib
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.budget import Calendar
from gateway.billing.price_file import price_schedule
from gateway.billing.prices import ModelPrice, PriceList
from gateway.emulator import tokens as emulator
from gateway.emulator.contract import ImagePart
from gateway.wire.image_size import ImageSize
from gateway.wire.vision import DETAILS, IMAGES_SIZED_MAX, ImageBounds, tokens_of
from tests import pictures
from tests.pictures import FORMATS, data_url

ROOT = Path(__file__).resolve().parent.parent.parent
SHIPPED: PriceList = price_schedule(tomllib.loads((ROOT / "config" / "prices.toml").read_text()), Calendar(UTC)).at(0)
MODELS = SHIPPED.models("chat")
sides = st.one_of(
    st.integers(1, 3_000), st.integers(1, pictures.SIDE_MAX), st.sampled_from([512, 768, 1024, 1536, 2048])
)


def bound(model: str, url: str, detail: str = "auto") -> int:
    return ImageBounds(SHIPPED.of(model, "chat")).tokens_max({"url": url, "detail": detail}, "image_url")


@given(
    model=st.sampled_from(MODELS),
    name=st.sampled_from(sorted(FORMATS)),
    detail=st.sampled_from(DETAILS),
    width=sides,
    height=sides,
)
def test_no_image_counts_above_its_bound(model: str, name: str, detail: str, width: int, height: int) -> None:
    """By the emulator's own reading and counting; and a known size never raises a bound."""
    media_type, draw = FORMATS[name]
    url = data_url(media_type, draw(width, height))
    price = SHIPPED.of(model, "chat")
    most = price.image_tokens_low if detail == "low" else price.image_tokens_high
    assert emulator.image_tokens(model, ImagePart(url, detail)) <= bound(model, url, detail) <= most


@pytest.mark.parametrize(
    ("size", "tiles", "patches"),
    [
        ((1, 1), 4, 1),
        ((32, 33), 4, 2),
        ((512, 512), 4, 256),
        ((1024, 768), 4, 768),
        ((1025, 768), 6, 792),
        ((768, 1536), 6, 1152),
        ((768, 1537), 8, 1176),
        ((4096, 2048), 6, 1536),
        ((2048, 4097), 8, 1536),
    ],
)
def test_known_sizes_have_their_bounds(size: tuple[int, int], tiles: int, patches: int) -> None:
    """Worked out by hand from the published rules; a small image may be enlarged to a shorter side of 768."""
    known = ImageSize(*size)
    by_tiles = [tokens_of(known, SHIPPED.of(model, "chat")) for model in ("gpt-4o", "gpt-4o-mini")]
    assert [85 + 170 * tiles, 2_833 + 5_667 * tiles] == by_tiles
    assert -(-patches * 162 // 100) == tokens_of(known, SHIPPED.of("gpt-4.1-mini", "chat"))


@pytest.mark.parametrize(
    ("size", "tokens"),
    [((8, 8), 415), ((512, 512), 415), ((1024, 768), 1_245), ((4096, 4096), 2_489)],
)
def test_low_detail_in_patches_is_bound_by_the_size_too(size: tuple[int, int], tokens: int) -> None:
    """As it is or as 512 by 512, whichever is more; in tiles it always is the same."""
    url = data_url("png", pictures.png(*size))
    assert (tokens, 85) == (bound("gpt-4.1-mini", url, "low"), bound("gpt-4o", url, "low"))


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/small.png",
        data_url("png", pictures.gif(8, 8)),
        data_url("jpeg", b"no picture"),
        data_url("png", pictures.png(100_000, 3)),
    ],
)
def test_an_unknown_size_or_an_endless_one_is_bound_by_the_detail(url: str) -> None:
    """URLs are not fetched, what cannot be read is not guessed, and the published maximum holds for every size."""
    assert [(48_169, 2_833), (1_445, 85)] == [
        (bound(model, url, "high"), bound(model, url, "low")) for model in ("gpt-4o-mini", "gpt-4o")
    ]
    assert 2_489 == bound("gpt-4.1-mini", url, "low")


def test_a_price_without_a_rule_bounds_by_the_detail() -> None:
    """As books have it that were begun before there were rules."""
    price = ModelPrice("old", "chat", image_tokens_low=85, image_tokens_high=1_445)
    assert 1_445 == ImageBounds(price).tokens_max({"url": data_url("png", pictures.png(8, 8))}, "image_url")


def test_the_media_type_may_be_written_in_capitals() -> None:
    """It is one of those names that case does not change."""
    url = data_url("PNG", pictures.png(8, 8))
    assert 85 + 4 * 170 == bound("gpt-4o", url)


def test_only_so_many_images_of_one_call_are_looked_into() -> None:
    """A body of thousands of small images, each slow to read, would hold every other call up for seconds."""
    price = SHIPPED.of("gpt-4.1-mini", "chat")
    images = ImageBounds(price)
    part = {"url": data_url("png", pictures.png(8, 8))}
    found = [images.tokens_max({**part}, "image_url") for _ in range(IMAGES_SIZED_MAX + 1)]
    assert [2] * IMAGES_SIZED_MAX + [price.image_tokens_high] == found
