"""Which price is in force when, to the millisecond; and that nothing which was in force is ever changed."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.billing.price_schedule import ALWAYS_MS, DatedPrice, PriceChange, PriceContradiction, PriceSchedule
from gateway.billing.prices import ModelPrice, PriceList, PriceListError

NOON, NOW = 43_200_000_000, 43_000_000_000


def image(usd_nano: int, from_ms: int = ALWAYS_MS, model: str = "realvision") -> DatedPrice:
    return DatedPrice(model, "image", from_ms, ModelPrice(model, "image", unit_pico_usd=usd_nano * 1000))


def chat(input_nano_usd: int, from_ms: int = ALWAYS_MS, context_tokens: int = 1000) -> DatedPrice:
    price = ModelPrice("mini", "chat", input_nano_usd * 1000, input_nano_usd * 1000, 1, 0, context_tokens, 100, 10, 20)
    return DatedPrice("mini", "chat", from_ms, price)


def with_rule(dated: DatedPrice, **rule: Any) -> DatedPrice:
    assert dated.price is not None
    return replace(dated, price=replace(dated.price, **rule))


def withdrawn(from_ms: int, model: str = "realvision") -> DatedPrice:
    return DatedPrice(model, "image", from_ms, None)


def cost(prices: PriceList, model: str = "realvision") -> int | None:
    price = prices.find(model)
    return price.unit_pico_usd // 1000 if price else None


def test_a_price_begins_with_its_millisecond() -> None:
    """The one before is in force until then, its last millisecond included."""
    schedule = PriceSchedule([image(10), image(20, NOON)])
    assert [10, 20, 20] == [cost(schedule.at(NOON + ms)) for ms in (-1, 0, 1)]


def test_a_model_is_there_while_it_has_a_price() -> None:
    """Not before its first price begins, and not after it is withdrawn; it may come back."""
    schedule = PriceSchedule([image(10), image(5, NOON, "new"), withdrawn(NOON, "new-old"), withdrawn(NOON + 10)])
    back = PriceSchedule([*schedule.entered, image(7, NOON + 20)])
    assert [None, 5] == [cost(schedule.at(NOON + ms), "new") for ms in (-1, 0)]
    assert [10, None, 7] == [cost(back.at(NOON + ms)) for ms in (9, 10, 20)]
    assert ("new", "realvision") == schedule.at(NOON).models()


def test_what_is_entered_later_for_the_same_instant_counts() -> None:
    """A slip is put right before it takes effect; both stay in the list of what was entered."""
    schedule = PriceSchedule([image(10), image(99, NOON), image(20, NOON)])
    assert 20 == cost(schedule.at(NOON))
    assert ["current", "replaced", "upcoming"] == schedule.states(NOON - 1)
    assert ["past", "replaced", "current"] == schedule.states(NOON)


def test_the_order_in_which_prices_are_entered_decides_nothing_else() -> None:
    """A price for tomorrow may be entered after one for the day after."""
    earlier, later = image(20, NOON), image(30, NOON + 5)
    lists = [PriceSchedule([image(10), *rest]) for rest in ([earlier, later], [later, earlier])]
    assert [[20, 20, 30]] * 2 == [[cost(one.at(NOON + ms)) for ms in (0, 4, 5)] for one in lists]


def test_equal_prices_are_one_version_whenever_they_are_in_force() -> None:
    """A price that comes back brings its list's name back."""
    schedule = PriceSchedule([image(10), image(20, NOON), image(10, NOON + 5)])
    before, during, after = (schedule.at(NOON + ms).version for ms in (-1, 0, 5))
    assert before == after != during


def test_from_now_on_begins_with_the_list_in_force() -> None:
    """Nothing of what is past; each later list once, at its instant."""
    schedule = PriceSchedule([image(10), image(20, NOON), image(30, NOON + 5), image(1, NOON + 5, "new")])
    assert [(ALWAYS_MS, 20), (NOON + 5, 30)] == [(since, cost(one)) for since, one in schedule.from_now_on(NOON)]


def test_sizes_stay_what_they_are_and_rates_do_not() -> None:
    """A price names its rates; how large a model is rarely changes with them, and is told where it does."""
    schedule = PriceSchedule([chat(10), chat(20, NOON, context_tokens=5000)])
    rates = {"input_usd_per_million": "1", "output_usd_per_million": "2"}
    for from_ms, context_tokens in ((NOON - 1, 1000), (NOON + 1, 5000)):
        price = schedule.dated(PriceChange("c", "mini", "chat", from_ms, rates)).price
        assert price is not None
        assert (context_tokens, 1_000_000, 1_000_000, 2_000_000) == (
            price.context_tokens_max, price.input_pico_usd, price.cached_pico_usd, price.output_pico_usd
        )  # fmt: skip
    wider = schedule.dated(PriceChange("c", "mini", "chat", NOON, {**rates, "context_tokens": 7}))
    assert wider.price is not None
    assert 7 == wider.price.context_tokens_max


def test_a_change_without_a_kind_is_of_the_models_own() -> None:
    """A model has one kind for good."""
    assert image(20, NOON) == PriceSchedule([image(10)]).dated(
        PriceChange("c", "realvision", "", NOON, {"usd": "0.00000002"})
    )


def test_a_model_that_comes_back_has_the_sizes_it_had() -> None:
    """They are looked for behind its withdrawal."""
    gone = DatedPrice("mini", "chat", NOON, None)
    schedule = PriceSchedule([chat(10), gone])
    row = {"input_usd_per_million": "1", "output_usd_per_million": "2"}
    price = schedule.dated(PriceChange("c", "mini", "chat", NOON + 1, row)).price
    assert price is not None
    assert 1000 == price.context_tokens_max


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (PriceChange("c", "realvision", "chat", NOON, {"usd": "1"}), "kind"),
        (PriceChange("c", "unknown", "image", NOON, None), "model"),
        (PriceChange("c", "unknown", "", NOON, {"usd": "1"}), "kind"),
        (PriceChange("c", "a|b", "image", NOON, {"usd": "1"}), "model"),
        (PriceChange("c", "unknown", "chat", NOON, {"input_usd_per_million": "1"}), "context_tokens"),
        (PriceChange("c", "realvision", "image", NOON, {"usd": "1e3"}), "usd"),
        (PriceChange("c", "realvision", "image", NOON, {"usd": "1", "models": []}), "models"),
    ],
)
def test_a_wrong_change_names_its_field(change: PriceChange, field: str) -> None:
    """Another kind would price a chat by the image; a new model without sizes would hold nothing."""
    with pytest.raises(PriceListError) as refused:
        PriceSchedule([image(10)]).dated(change)
    assert field == refused.value.field


def test_a_file_adds_what_is_still_to_come_and_whole_new_models() -> None:
    """A new model may bring its past; what the books have already is added once."""
    books = PriceSchedule([image(10)])
    new = [image(20, NOON), image(1, model="new"), image(2, NOW - 5, "new")]
    assert new == books.lacks(PriceSchedule([image(10), *new]), NOW)
    assert [] == PriceSchedule([image(10), *new]).lacks(PriceSchedule([image(10), *new]), NOON + 1)
    assert [] == PriceSchedule([image(10), *new]).lacks(books, NOW)


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        (image(11), "realvision without a date at usd 0.000000011, but the books have usd 0.00000001 without a date"),
        (image(11, NOON), "from 1971-05-16T00:00:00Z at usd 0.000000011, but the books have usd 0.00000002"),
        (withdrawn(NOON), "at no price, but the books have usd 0.00000002"),
        (image(12, NOW), "but the books have usd 0.00000001 without a date"),
        (chat(10), "mini"),
    ],
)
def test_a_file_that_says_otherwise_is_a_contradiction(listed: DatedPrice, says: str) -> None:
    """Another price for the same instant, or a new one for an instant that has passed: calls were priced otherwise."""
    books = PriceSchedule([image(10), image(20, NOON), chat(9)])
    with pytest.raises(PriceContradiction) as refused:
        books.lacks(PriceSchedule([listed]), NOW)
    assert says in str(refused.value)
    assert "[[change]]" in str(refused.value)


@pytest.mark.parametrize("rule", ["image_tile_tokens", "image_patch_percent"])
def test_a_rule_for_images_that_only_one_side_has_contradicts_nothing(rule: str) -> None:
    """Books are older than rules: they go on as they are. Another rule, or other rates beside it, is another price."""
    plain, ruled = PriceSchedule([chat(10)]), PriceSchedule([with_rule(chat(10), **{rule: 170})])
    assert [[], []] == [plain.lacks(ruled, NOW), ruled.lacks(plain, NOW)]
    for books, listed in (
        (ruled, with_rule(chat(10), **{rule: 171})),
        (ruled, chat(11)),
        (plain, with_rule(chat(10, context_tokens=2000), **{rule: 170})),
    ):
        with pytest.raises(PriceContradiction):
            books.lacks(PriceSchedule([listed]), NOW)


def test_a_rule_for_images_stays_as_sizes_do() -> None:
    """And gives way to the other one."""
    schedule = PriceSchedule([with_rule(chat(10), image_tile_tokens=170)])
    row: dict[str, object] = {"input_usd_per_million": "1", "output_usd_per_million": "2"}
    for more, expected in (({}, (170, 0)), ({"image_tile_tokens": 5}, (5, 0)), ({"image_patch_percent": 9}, (0, 9))):
        price = schedule.dated(PriceChange("c", "mini", "chat", NOON, row | more)).price
        assert price is not None
        assert expected == (price.image_tile_tokens, price.image_patch_percent)


def test_a_contradiction_tells_only_what_differs() -> None:
    """Seven equal numbers would hide the eighth."""
    with pytest.raises(PriceContradiction) as refused:
        PriceSchedule([chat(10)]).lacks(PriceSchedule([chat(10, context_tokens=2000)]), NOW)
    assert "mini without a date at context_tokens 2000, but the books have context_tokens 1000" in str(refused.value)
    assert "usd" not in str(refused.value)
