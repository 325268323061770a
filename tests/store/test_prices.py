"""The price schedule in Redis: one for all gateways, changed at one instant by one clock, never backwards."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest

from gateway.billing.errors import LedgerUnavailable
from gateway.billing.price_schedule import (
    ALWAYS_MS,
    DatedPrice,
    EnteredPrice,
    PriceChange,
    PriceContradiction,
    PriceSchedule,
)
from gateway.billing.prices import ModelPrice, PriceList
from gateway.store.admission import Admitted, HoldRequest, StalePrice
from gateway.store.prices import NotPriced, PriceBooks
from tests.store.bench import ORG, Bench

HOUR_MS = 3_600_000


def image(usd_nano: int, from_ms: int = ALWAYS_MS, model: str = "realvision") -> DatedPrice:
    return DatedPrice(model, "image", from_ms, ModelPrice(model, "image", unit_pico_usd=usd_nano * 1000))


def change(from_ms: int, usd: str = "0.002", change_id: str = "p1", model: str = "realvision") -> PriceChange:
    return PriceChange(change_id, model, "image", from_ms, {"usd": usd}, "their mail", "admin")


def seeded(bench: Bench, *dated: DatedPrice) -> PriceBooks:
    """A gateway that was started with these prices in its file."""
    books = PriceBooks(bench.redis, bench.scripts)
    bench.run(books.seed(ORG, PriceSchedule(dated)))
    return books


def entered(bench: Bench, books: PriceBooks, one: PriceChange) -> EnteredPrice:
    answer = bench.run(books.enter(ORG, one))
    assert isinstance(answer, tuple)
    return answer[0]


def call(bench: Bench, prices: PriceList) -> HoldRequest:
    return bench.call(1, model="realvision", kind="image")._replace(price_version=prices.version)


def lines(bench: Bench) -> Sequence[str]:
    return cast(bytes, bench.run(bench.redis.get(bench.keys.price_lists))).decode().splitlines()


def put_back(bench: Bench, by_ms: int) -> None:
    """Let every list end earlier: as if so much time had passed since."""
    moved = [f"{int(ends) - by_ms} {version}" for ends, version in map(str.split, lines(bench))]
    bench.run(bench.redis.set(bench.keys.price_lists, "".join(f"{line}\n" for line in moved)))


def test_a_first_start_enters_the_file(bench: Bench) -> None:
    """With who brought it; the list in force is kept under its version, and admission takes it."""
    books = seeded(bench, image(10), image(20, bench.now_ms() + HOUR_MS))
    found = bench.run(books.read(ORG))
    assert [("price file", ""), ("price file", "")] == [(entry.author, entry.note) for entry in found.entries]
    assert ["current", "upcoming"] == found.schedule.states(found.now_ms)
    latest = books.latest(ORG)
    assert latest.canonical.encode() == bench.run(bench.redis.get(bench.keys.prices(latest.version)))
    assert isinstance(bench.admit(call(bench, latest)), Admitted)


def test_the_past_that_a_file_brings_into_empty_books_is_kept_as_well(bench: Bench) -> None:
    """Books that were built again from an archive name lists of years ago."""
    schedule = PriceSchedule([image(10), image(20, 1000 * HOUR_MS), image(30, 2000 * HOUR_MS)])
    books = seeded(bench, *schedule.entered)
    for instant_ms in (0, 1000 * HOUR_MS, 2000 * HOUR_MS):
        assert bench.run(books.list_of(ORG, schedule.at(instant_ms).version)) is not None


def test_a_second_start_changes_nothing(bench: Bench) -> None:
    """Whoever it is, and however often."""
    seeded(bench, image(10))
    before = bench.everything()
    seeded(bench, image(10))
    assert before == bench.everything()


def test_gateways_that_start_at_once_enter_each_price_once(bench: Bench) -> None:
    """Twenty of them; two kinds of files."""
    files = [PriceSchedule([image(10)]), PriceSchedule([image(10), image(5, model="new")])] * 10
    gateways = [PriceBooks(bench.redis, bench.scripts) for _ in files]
    bench.together([gateway.seed(ORG, listed) for gateway, listed in zip(gateways, files, strict=True)])
    models = [entry.dated.model for entry in bench.run(gateways[0].read(ORG)).entries]
    assert ["new", "realvision"] == sorted(models)


def test_gateways_with_different_files_go_by_the_same_list(bench: Bench) -> None:
    """What one file has and another has not is in force for both: the books decide, and say which list."""
    first = seeded(bench, image(10))
    second = seeded(bench, image(10), image(5, model="new"))
    assert first.latest(ORG).version != second.latest(ORG).version
    refused = bench.admit(call(bench, first.latest(ORG)))
    assert StalePrice(second.latest(ORG).version) == refused
    assert isinstance(refused, StalePrice)
    told = bench.run(first.turn_to(ORG, refused.version))
    assert ("new", "realvision") == told.models() == first.latest(ORG).models()
    assert isinstance(bench.admit(call(bench, told)), Admitted)


def test_a_file_that_contradicts_the_books_stops_the_start(bench: Bench) -> None:
    """And enters nothing of its other prices."""
    seeded(bench, image(10))
    before = bench.everything()
    with pytest.raises(PriceContradiction, match=r"realvision without a date"):
        seeded(bench, image(5, model="new"), image(11))
    assert before == bench.everything()


def test_books_that_were_begun_before_there_were_rules_for_images_go_on_without(bench: Bench) -> None:
    """A file that brings one neither stops the start nor writes anything; a change that names one brings it in."""
    plain = ModelPrice("mini", "chat", 1, 1, 2, 0, 1000, 100, 85, 1445)
    seeded(bench, DatedPrice("mini", "chat", ALWAYS_MS, plain))
    before = bench.everything()
    books = seeded(bench, DatedPrice("mini", "chat", ALWAYS_MS, replace(plain, image_tile_tokens=170)))
    assert before == bench.everything()
    assert plain == books.latest(ORG).of("mini", "chat")
    rates = {"input_usd_per_million": "1", "output_usd_per_million": "2"}
    brings = PriceChange("p1", "mini", "chat", bench.now_ms() + HOUR_MS, {**rates, "image_tile_tokens": 170})
    assert 170 == getattr(entered(bench, books, brings).dated.price, "image_tile_tokens", None)
    version = lines(bench)[-1].split()[1]
    kept = bench.run(seeded(bench).list_of(ORG, version))
    assert kept is not None
    assert (version, 170) == (kept.version, kept.of("mini", "chat").image_tile_tokens)


def test_a_price_to_come_is_in_force_from_its_instant_for_everybody(bench: Bench) -> None:
    """By Redis's clock. Until then the old list is right and the new one is stale; from then on the other way round."""
    books, other = seeded(bench, image(10)), seeded(bench, image(10))
    old = books.latest(ORG)
    entered(bench, other, change(bench.now_ms() + HOUR_MS))
    found = bench.run(books.read(ORG))
    new = found.schedule.at(found.now_ms + HOUR_MS)
    assert isinstance(bench.admit(call(bench, old)), Admitted)
    assert StalePrice(old.version) == bench.admit(call(bench, new))
    put_back(bench, HOUR_MS)
    assert StalePrice(new.version) == bench.admit(call(bench, old))
    assert isinstance(bench.admit(call(bench, new)), Admitted)
    assert 2_000_000 == bench.run(books.turn_to(ORG, new.version)).of("realvision", "image").unit_pico_usd // 1000


def test_a_refused_price_holds_nothing(bench: Bench) -> None:
    """Not a byte is written, so the call is asked for again under the same id."""
    books = seeded(bench, image(10))
    request = bench.call(1)
    before = bench.everything()
    assert StalePrice(books.latest(ORG).version) == bench.admit(request)
    assert before == bench.everything()
    assert isinstance(bench.admit(request._replace(price_version=books.latest(ORG).version)), Admitted)


def test_a_hold_that_stands_is_answered_whatever_is_in_force_by_now(bench: Bench) -> None:
    """Its first answer was lost, and meanwhile the price has changed: it was admitted at the old one, and stays so."""
    books = seeded(bench, image(10))
    request = call(bench, books.latest(ORG))
    first = bench.admit(request)
    entered(bench, books, change(bench.now_ms() + HOUR_MS))
    put_back(bench, HOUR_MS)
    assert first == bench.admit(request)


def test_the_past_is_not_entered(bench: Bench) -> None:
    """By Redis's clock, its present millisecond included; nothing is written."""
    books = seeded(bench, image(10))
    before = bench.everything()
    now_ms = bench.now_ms()
    for from_ms in (now_ms - HOUR_MS, now_ms):
        answer = bench.run(books.enter(ORG, change(from_ms)))
        assert isinstance(answer, NotPriced)
        assert ("past", True) == (answer.reason, answer.now_ms >= now_ms)
    assert before == bench.everything()


def test_a_change_is_entered_once_for_its_id(bench: Bench) -> None:
    """Sent again it is answered as the first time, even after it took effect; another under its id is refused."""
    books = seeded(bench, image(10))
    from_ms = bench.now_ms() + HOUR_MS
    first = entered(bench, books, change(from_ms))
    assert ("their mail", "admin", from_ms) == (first.note, first.author, first.dated.from_ms)
    assert (first, True) == bench.run(books.enter(ORG, change(from_ms)))
    assert NotPriced("conflict") == bench.run(books.enter(ORG, change(from_ms, "0.003")))
    assert 2 == len(bench.run(books.read(ORG)).entries)


def test_changes_at_once_are_all_entered(bench: Bench) -> None:
    """Each is worked out from the ones before it: no list misses a price that another has brought."""
    books = seeded(bench, *(image(10, model=f"m{number}") for number in range(8)))
    from_ms = bench.now_ms() + HOUR_MS
    changes = [change(from_ms, "0.002", f"p{number}", f"m{number}") for number in range(8)]
    answers = bench.together([books.enter(ORG, one) for one in changes])
    assert 8 == sum(isinstance(answer, tuple) for answer in answers)
    version = lines(bench)[-1].split()[1]
    prices = bench.run(books.list_of(ORG, version))
    assert prices is not None
    assert {2_000_000_000} == {prices.of(model, "image").unit_pico_usd for model in prices.models()}


def test_a_slip_is_put_right_before_it_takes_effect(bench: Bench) -> None:
    """The later one counts, both are kept, and the list that never came into force is found all the same."""
    books = seeded(bench, image(10))
    from_ms = bench.now_ms() + HOUR_MS
    entered(bench, books, change(from_ms, "9", "slip"))
    slip = lines(bench)[-1].split()[1]
    entered(bench, books, change(from_ms, "0.002", "right"))
    found = bench.run(books.read(ORG))
    assert ["current", "replaced", "upcoming"] == found.schedule.states(found.now_ms)
    assert slip != lines(bench)[-1].split()[1]
    assert bench.run(books.list_of(ORG, slip)) is not None


def test_a_version_that_never_was_has_no_list(bench: Bench) -> None:
    """Nothing is priced by a guess: where Redis has lost its prices calls are refused."""
    books = seeded(bench, image(10))
    assert bench.run(books.list_of(ORG, "0" * 12)) is None
    bench.run(bench.redis.delete(bench.keys.price_lists))
    assert StalePrice("") == bench.admit(call(bench, books.latest(ORG)))
    with pytest.raises(LedgerUnavailable, match="lost its prices"):
        bench.run(books.turn_to(ORG, ""))
    assert isinstance(bench.admit(call(bench, seeded(bench, image(10)).latest(ORG))), Admitted)
