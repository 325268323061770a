"""Which price is in force when: prices with the instant each begins, never taken back.

Laws:
- A price is in force from its instant on, that millisecond included, until another of its model begins.
- Of two prices of one model and one instant the one that was entered later counts; it can be entered only before then.
- What is or was in force never changes. So each list that was ever in force can be told by its version, for ever.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gateway.billing.budget import instant
from gateway.billing.price_rows import price_row, read_price
from gateway.billing.prices import IMAGE_RULES, ModelPrice, PriceList, PriceListError

PriceState = Literal["current", "upcoming", "past", "replaced"]
"""`past`: another price of its model has taken its place. `replaced`: so was it before it ever began."""

ALWAYS_MS = 0
"""The instant of a price without one: it is in force from the beginning of time."""


@dataclass(frozen=True, slots=True)
class DatedPrice:
    """What a model costs from an instant on (ms); `price` None: from then on it has none, and its calls are refused."""

    model: str
    kind: str
    from_ms: int
    price: ModelPrice | None


@dataclass(frozen=True, slots=True)
class PriceChange:
    """A price that someone asks to enter, once for its `id`. `row` is it as written; None: the model is withdrawn.

    `kind` "": the kind that the model has.
    """

    id: str
    model: str
    kind: str
    from_ms: int
    row: Mapping[str, object] | None
    note: str = ""
    author: str = ""


@dataclass(frozen=True, slots=True)
class EnteredPrice:
    """One entry of the schedule, entered at `at_ms` by `author`; `id` orders them."""

    id: str
    at_ms: int
    dated: DatedPrice
    note: str
    author: str


class PriceContradiction(ValueError):
    """The price file says what the books do not; the text says which, and what to do."""


class PriceSchedule:
    """Prices in the order they were entered."""

    def __init__(self, entered: Iterable[DatedPrice] = ()) -> None:
        self.entered: Sequence[DatedPrice] = tuple(entered)
        self._by_model: dict[str, dict[int, DatedPrice]] = {}
        for dated in self.entered:
            self._by_model.setdefault(dated.model, {})[dated.from_ms] = dated

    def models(self) -> tuple[str, ...]:
        """Every model that was ever entered, in the order they were."""
        return tuple(self._by_model)

    def at(self, instant_ms: int) -> PriceList:
        """The list in force at an instant."""
        in_force = (_at(dates, instant_ms) for dates in self._by_model.values())
        return PriceList(dated.price for dated in in_force if dated and dated.price)

    def from_now_on(self, now_ms: int) -> list[tuple[int, PriceList]]:
        """The list in force now, under ALWAYS_MS, and those to come, each with the instant it begins."""
        to_come = sorted({dated.from_ms for dated in self.entered if dated.from_ms > now_ms})
        return [(ALWAYS_MS, self.at(now_ms)), *((from_ms, self.at(from_ms)) for from_ms in to_come)]

    def since(self, first_ms: int) -> list[PriceList]:
        """Every list that comes into force at or after an instant."""
        return [
            self.at(from_ms) for from_ms in sorted({dated.from_ms for dated in self.entered}) if from_ms >= first_ms
        ]

    def next_change_ms(self, now_ms: int) -> int | None:
        """When the next price begins; None where none is to come."""
        return min((dated.from_ms for dated in self.entered if dated.from_ms > now_ms), default=None)

    def states(self, now_ms: int) -> list[PriceState]:
        """What each of `entered` is at an instant."""
        return [self._state(dated, now_ms) for dated in self.entered]

    def dated(self, change: PriceChange) -> DatedPrice:
        """The price that a change enters; sizes it does not name stay what they are by then.

        Raises PriceListError: a wrong row, another kind than the model has, none of a new one, or one withdrawn that
        never was.
        """
        dates = self._by_model.get(change.model, {})
        known = next(iter(dates.values()), None)
        kind = change.kind or (known.kind if known else "")
        if known and known.kind != kind:
            raise PriceListError(f"{change.model} is priced as {known.kind}, not as {kind}", "kind")
        if change.row is None:
            if known is None:
                raise PriceListError(f"there is no model {change.model[:80]!r} with a price", "model")
            return DatedPrice(change.model, kind, change.from_ms, None)
        if not kind:
            raise PriceListError(f"{change.model[:80]!r} has no price yet; a new model's price says its kind", "kind")
        priced = {from_ms: dated for from_ms, dated in dates.items() if dated.price}
        before = _at(priced, change.from_ms)
        price = read_price(change.model, kind, change.row, before=before.price if before else None)
        return DatedPrice(change.model, kind, change.from_ms, price)

    def lacks(self, listed: "PriceSchedule", now_ms: int) -> list[DatedPrice]:
        """What a price file adds. A model that was never priced may bring its past along; of any other only prices that
        are still to come are new.

        Raises PriceContradiction: the file has another price for the same model and instant, or a new one that is past.
        """
        return [dated for dated in listed.entered if self._is_new(dated, now_ms)]

    def _is_new(self, dated: DatedPrice, now_ms: int) -> bool:
        dates = self._by_model.get(dated.model)
        if dates is None:
            return True
        known = dates.get(dated.from_ms)
        if known is None and dated.from_ms > now_ms:
            return True
        if known is None or not _agree(known, dated):
            raise PriceContradiction(_contradiction(dated, known or _at(dates, now_ms)))
        return False

    def _state(self, dated: DatedPrice, now_ms: int) -> PriceState:
        dates = self._by_model[dated.model]
        if dates[dated.from_ms] is not dated:
            return "replaced"
        if dated.from_ms > now_ms:
            return "upcoming"
        return "current" if _at(dates, now_ms) is dated else "past"


def _at(dates: Mapping[int, DatedPrice], instant_ms: int) -> DatedPrice | None:
    begun = [from_ms for from_ms in dates if from_ms <= instant_ms]
    return dates[max(begun)] if begun else None


def _agree(known: DatedPrice, listed: DatedPrice) -> bool:
    """Whether the books and the file say the same; a rule for images that only one of them has contradicts nothing.

    Rules came later than books: those that do not know one go on without it, which bounds an image higher.
    """
    if known.price and listed.price and (_has_image_rule(known.price) != _has_image_rule(listed.price)):
        return _without_image_rule(known) == _without_image_rule(listed)
    return known == listed


def _has_image_rule(price: ModelPrice) -> bool:
    return any(getattr(price, name) for name in IMAGE_RULES)


def _without_image_rule(dated: DatedPrice) -> DatedPrice:
    return replace(dated, price=dated.price and replace(dated.price, image_tile_tokens=0, image_patch_percent=0))


def _contradiction(listed: DatedPrice, known: DatedPrice | None) -> str:
    file, books = _words(listed), _words(known)
    if known and known.from_ms == listed.from_ms:  # what is equal in both says nothing
        file, books = file - books, books - file
    return (
        f"the price file has {listed.model} {_since(listed)} at {_text(file)}, but the books have "
        f"{_text(books)}{f' {_since(known)}' if known else ''}; a price in the books stays: make the file say so, and "
        "give the new one a [[change]] with a day to come"
    )


def _since(dated: DatedPrice) -> str:
    return f"from {instant(dated.from_ms)}" if dated.from_ms else "without a date"


def _words(dated: DatedPrice | None) -> set[str]:
    row = price_row(dated.price) if dated and dated.price else {}
    return {f"{name} {value}" for name, value in row.items()}


def _text(words: set[str]) -> str:
    return ", ".join(sorted(words)) or "no price"
