"""The price list: read exactly or not at all, and a bound that no bill passes."""

import tomllib
from collections.abc import Callable, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.budget import Calendar
from gateway.billing.errors import ModelNotFound
from gateway.billing.price_file import price_schedule
from gateway.billing.prices import ModelPrice, PriceList, PriceListError
from gateway.billing.usage import Usage

tokens = st.integers(min_value=0, max_value=2_000_000)
rates = st.integers(min_value=0, max_value=20_000_000)


def price_list(listed: Mapping[str, Any]) -> PriceList:
    """What a price file without dates says."""
    return price_schedule(listed, Calendar(UTC)).at(0)


@pytest.fixture
def shipped(repository: Path) -> PriceList:
    """The list the project ships."""
    return price_list(tomllib.loads((repository / "config" / "prices.toml").read_text()))


def document() -> dict[str, Any]:
    """A small list that is right."""
    chat = {
        "input_usd_per_million": "0.15",
        "output_usd_per_million": "0.60",
        "context_tokens": 128_000,
        "output_tokens": 16_384,
        "image_tokens_low": 85,
        "image_tokens_high": 1_445,
    }
    return {"chat": {"small": chat}, "units": {"image": {"usd": "0.0015", "models": ["realvision"]}}}


@pytest.mark.parametrize(
    ("model", "input_nano_usd", "output_nano_usd"),
    [("gpt-4o-mini", 150, 600), ("gpt-4o", 2_500, 10_000), ("gpt-4.1", 2_000, 8_000), ("gpt-4.1-mini", 400, 1_600),
     ("gpt-4.1-nano", 100, 400)],
)  # fmt: skip
def test_chat_costs_what_minitoolai_lists(
    shipped: PriceList, model: str, input_nano_usd: int, output_nano_usd: int
) -> None:
    """Nano-dollars a token, as in the table of their documentation; cached tokens cost what others cost."""
    price = shipped.of(model, "chat")
    assert input_nano_usd == price.cost_of(Usage(prompt_tokens=1))
    assert output_nano_usd == price.cost_of(Usage(completion_tokens=1))
    assert input_nano_usd == price.cost_of(Usage(prompt_tokens=1, cached_tokens=1))


def test_every_image_costs_the_same(shipped: PriceList) -> None:
    """Fifteen models, $0.0015 an image."""
    prices = [shipped.of(model, "image").cost_of(Usage(units=1)) for model in shipped.models("image")]
    assert [1_500_000] * 15 == prices


@pytest.mark.parametrize(
    ("model", "kind"),
    [("gpt-5", "chat"), ("realvision", "chat"), ("gpt-4o", "image"), ("", "chat"), ("gpt-4o\n", "chat")],
)
def test_a_model_without_a_price_for_the_kind_does_not_exist(shipped: PriceList, model: str, kind: str) -> None:
    """An image model sent to chat would else be priced by tokens it has no rate for: free."""
    with pytest.raises(ModelNotFound) as refused:
        shipped.of(model, kind)
    assert "model" == refused.value.param


@given(prompt=tokens, output=tokens, cached_share=st.floats(0, 1), rate=rates, cached_rate=rates, output_rate=rates)
def test_no_bill_passes_its_bound(
    prompt: int, output: int, cached_share: float, rate: int, cached_rate: int, output_rate: int
) -> None:
    """Whatever part of a prompt turns out cached, and whether cached tokens are cheaper or dearer."""
    price = ModelPrice("m", "chat", input_pico_usd=rate, cached_pico_usd=cached_rate, output_pico_usd=output_rate)
    usage = Usage(prompt, output, cached_tokens=int(prompt * cached_share))
    assert price.cost_of(usage) <= price.most_of(Usage(prompt, output))


def test_a_price_below_a_nano_dollar_is_summed_before_it_is_rounded() -> None:
    """Rounding token by token would charge 1,000 nano-dollars here instead of one."""
    price = ModelPrice("tiny", "chat", input_pico_usd=1)
    assert 1 == price.cost_of(Usage(prompt_tokens=1_000))
    assert 2 == price.cost_of(Usage(prompt_tokens=1_001))


def test_the_version_names_exactly_this_list() -> None:
    """The same prices in another order are the same list; one changed digit is another."""
    first, second = ModelPrice("a", "chat", input_pico_usd=1), ModelPrice("b", "chat", input_pico_usd=2)
    assert PriceList([first, second]).version == PriceList([second, first]).version
    assert PriceList([first]).version != PriceList([ModelPrice("a", "chat", input_pico_usd=2)]).version


def test_a_list_without_rules_for_images_has_the_version_it_always_had() -> None:
    """Entries name versions for ever: a field that is new must not rename the lists that do not have it."""
    price = ModelPrice("a", "chat", 1, 1, 2, 0, 1000, 100, 85, 1_445)
    assert "7eb4a96e02d9" == PriceList([price]).version
    assert price == PriceList.of_canonical(PriceList([price]).canonical).find("a")


def test_a_rule_for_images_survives_being_written_down() -> None:
    """As any other field, and it is part of what a version names."""
    plain, ruled = (PriceList([ModelPrice("a", "chat", image_tile_tokens=tokens)]) for tokens in (0, 170))
    assert plain.version != ruled.version
    assert ruled.find("a") == PriceList.of_canonical(ruled.canonical).find("a")


def test_a_cached_rate_is_used_where_the_list_has_one() -> None:
    """MiniToolAI lists none today; the day it does, it is one line."""
    listed = document()
    listed["chat"]["small"]["cached_usd_per_million"] = "0.075"
    assert 75 == price_list(listed).of("small", "chat").cost_of(Usage(prompt_tokens=1, cached_tokens=1))


_TWO_RULES = document()["chat"]["small"] | {"image_tile_tokens": 170, "image_patch_percent": 162}


def _set(*path: str, to: object) -> Callable[[dict[str, Any]], None]:
    def change(listed: dict[str, Any]) -> None:
        for step in path[:-1]:
            listed = listed[step]
        listed[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (_set("chats", to={}), "'chats'"),
        (_set("chat", to=[]), "chat must be a table"),
        (_set("chat", "small", to="0.15"), "chat.small must be a table"),
        (_set("chat", "small", "price", to="1"), "chat.small.price is not known"),
        (_set("chat", "small", "input_usd_per_million", to=0.15), "input_usd_per_million must be a decimal string"),
        (_set("chat", "small", "input_usd_per_million", to="free"), '"free" is not a decimal'),
        (_set("chat", "small", "input_usd_per_million", to="-0.15"), "zero or more"),
        (_set("chat", "small", "input_usd_per_million", to="NaN"), "zero or more"),
        (_set("chat", "small", "input_usd_per_million", to="Infinity"), "zero or more"),
        (_set("chat", "small", "output_usd_per_million", to="0.0000001"), "finer than a pico-dollar a token"),
        (_set("chat", "small", "context_tokens", to=0), "context_tokens must be a whole number above zero"),
        (_set("chat", "small", "output_tokens", to=True), "output_tokens must be a whole number above zero"),
        (_set("chat", "small", "output_tokens", to=1.5), "output_tokens must be a whole number above zero"),
        (_set("chat", "small", "image_tile_tokens", to=0), "image_tile_tokens must be a whole number above zero"),
        (_set("chat", "small", to=_TWO_RULES), "chat.small.image_patch_percent stands beside image_tile_tokens"),
        (_set("units", "image", "models", to=[]), "units.image.models must be a list"),
        (_set("units", "image", "models", to="realvision"), "units.image.models must be a list"),
        (_set("units", "image", "models", to=["a", "a"]), "model a has two prices"),
        (_set("units", "image", "models", to=["small"]), "model small has two prices"),
        (_set("units", "image", "usd", to=0.0015), "units.image.usd must be a decimal string"),
        (_set("units", "chat", to={"usd": "1", "models": ["odd"]}), "units.chat"),
        (_set("units", "image", "models", to=["a|b"]), "a|b"),
        (_set("units", "image", "models", to=["a\nb"]), "no name for a model"),
    ],
)
def test_a_wrong_list_names_what_is_wrong(change: Callable[[dict[str, Any]], None], names: str) -> None:
    """A price that is read wrongly is wrong on every bill, so nothing is guessed."""
    listed = document()
    change(listed)
    with pytest.raises(PriceListError) as refused:
        price_list(listed)
    assert names in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("field", list(document()["chat"]["small"]))
def test_every_field_of_a_chat_price_is_needed(field: str) -> None:
    """A missing maximum would be a hold of zero."""
    listed = document()
    del listed["chat"]["small"][field]
    with pytest.raises(PriceListError, match=field):
        price_list(listed)


def test_an_empty_list_is_refused() -> None:
    """It would refuse every call, one by one, instead of refusing to start."""
    with pytest.raises(PriceListError, match="empty"):
        price_list({})
