"""The price list: from decimal strings to integer rates, and from usage to a charge.

A model without a price does not exist: `PriceList.of` raises, nothing is ever free by omission.
Source: MiniToolAI's price table (seed 000_…, "Giá API"); ADR 0001.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation

from gateway.billing.errors import ModelNotFound
from gateway.billing.money import NANO_PER_USD, PICO_PER_NANO, NanoUSD, nano_from_pico
from gateway.billing.usage import Usage

PICO_PER_USD = NANO_PER_USD * PICO_PER_NANO
TOKENS_PER_PRICE = 1_000_000

_NAME = re.compile(r"[ -{}~]{1,100}")
"""Printable ASCII but for the bar, which separates names in the cells of reports."""


class PriceListError(ValueError):
    """The price file is wrong; the text says which model, which field and what would be right."""


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """Price and size of one model.

    Chat models are priced by token (`input_pico_usd`, `output_pico_usd` a token) and bounded by
    `context_tokens_max` and `output_tokens_max`; `image_tokens_*` bound one image part by its detail.
    Everything else is priced by `unit_pico_usd` an image, call or character.
    """

    model: str
    kind: str
    input_pico_usd: int = 0
    cached_pico_usd: int = 0
    output_pico_usd: int = 0
    unit_pico_usd: int = 0
    context_tokens_max: int = 0
    output_tokens_max: int = 0
    image_tokens_low: int = 0
    image_tokens_high: int = 0

    def cost_of(self, usage: Usage) -> NanoUSD:
        """Price one call: quantities × pico-USD, summed, rounded up to nano-USD once.

        Cached tokens are part of `usage.prompt_tokens`, never added to it; they cost what other
        input tokens cost unless the list says otherwise.
        """
        fresh_tokens = usage.prompt_tokens - usage.cached_tokens
        return nano_from_pico(
            fresh_tokens * self.input_pico_usd
            + usage.cached_tokens * self.cached_pico_usd
            + usage.completion_tokens * self.output_pico_usd
            + usage.units * self.unit_pico_usd
        )

    def most_of(self, usage: Usage) -> NanoUSD:
        """The most a call with this bound can cost, whatever part of its prompt turns out cached."""
        dearest = max(self.input_pico_usd, self.cached_pico_usd)
        return nano_from_pico(
            usage.prompt_tokens * dearest
            + usage.completion_tokens * self.output_pico_usd
            + usage.units * self.unit_pico_usd
        )


class PriceList:
    """All models that have a price. `version` names exactly this list (a digest of its content)."""

    def __init__(self, prices: Iterable[ModelPrice]) -> None:
        self._by_model: dict[str, ModelPrice] = {}
        for price in prices:
            if price.model in self._by_model:
                raise PriceListError(f"model {price.model} has two prices; keep one")
            self._by_model[price.model] = price
        rows = [asdict(self._by_model[model]) for model in sorted(self._by_model)]
        canonical = json.dumps(rows, sort_keys=True, separators=(",", ":"))
        self.version = hashlib.sha256(canonical.encode()).hexdigest()[:12]
        self.canonical = canonical

    def of(self, model: str, kind: str) -> ModelPrice:
        """The price of a model for one kind of call.

        Raises ModelNotFound: no price, or a price of another kind (an image model sent to chat).
        """
        price = self._by_model.get(model)
        if price is None or price.kind != kind:
            known = ", ".join(self.models(kind)) or "none"
            raise ModelNotFound(
                f"There is no {kind} model {model[:80]!r} with a price. Models for {kind}: {known}.",
                param="model",
            )
        return price

    def models(self, kind: str | None = None) -> tuple[str, ...]:
        """Model names in list order, of one kind or of all."""
        return tuple(p.model for p in self._by_model.values() if kind is None or p.kind == kind)


def price_list(document: Mapping[str, object]) -> PriceList:
    """Build the list from the parsed `prices.toml`.

    Shape: `[chat.<model>]` with `input_usd_per_million`, `output_usd_per_million` (decimal strings),
    `context_tokens`, `output_tokens`, optional `cached_usd_per_million`, `image_tokens_low/high`;
    `[units.<kind>]` with `usd` and `models` for what is priced by the piece.

    Raises PriceListError: anything missing, unknown, a float where a decimal string belongs.
    """
    unknown = set(document) - {"source", "date", "chat", "units"}
    if unknown:
        raise PriceListError(f"unknown entry {sorted(unknown)[0]!r}; known are source, date, chat, units")
    chat = _table(document.get("chat", {}), "chat")
    units = _table(document.get("units", {}), "units")
    prices = [_chat_price(model, _table(row, f"chat.{model}")) for model, row in chat.items()]
    for kind, row in units.items():
        if kind == "chat":
            # Chat is billed by its tokens, which such a row would make free.
            raise PriceListError("units.chat cannot be: chat is priced by token, in [chat.<model>]")
        prices.extend(_unit_prices(kind, _table(row, f"units.{kind}")))
    for name in [*units, *(price.model for price in prices)]:
        if not _NAME.fullmatch(name):
            raise PriceListError(
                f"{name!r} is no name for a model or kind: 1 to 100 printable ASCII characters, no '|'"
            )
    if not prices:
        raise PriceListError("the list is empty; without prices every call would be refused")
    return PriceList(prices)


_CHAT_FIELDS = {
    "input_usd_per_million",
    "cached_usd_per_million",
    "output_usd_per_million",
    "context_tokens",
    "output_tokens",
    "image_tokens_low",
    "image_tokens_high",
}


def _chat_price(model: str, row: Mapping[str, object]) -> ModelPrice:
    where = f"chat.{model}"
    _refuse_unknown(row, _CHAT_FIELDS, where)
    input_pico_usd = _pico_a_token(row, "input_usd_per_million", where)
    return ModelPrice(
        model=model,
        kind="chat",
        input_pico_usd=input_pico_usd,
        cached_pico_usd=_pico_a_token(row, "cached_usd_per_million", where)
        if "cached_usd_per_million" in row
        else input_pico_usd,
        output_pico_usd=_pico_a_token(row, "output_usd_per_million", where),
        context_tokens_max=_count(row, "context_tokens", where),
        output_tokens_max=_count(row, "output_tokens", where),
        image_tokens_low=_count(row, "image_tokens_low", where),
        image_tokens_high=_count(row, "image_tokens_high", where),
    )


def _unit_prices(kind: str, row: Mapping[str, object]) -> list[ModelPrice]:
    where = f"units.{kind}"
    _refuse_unknown(row, {"usd", "models"}, where)
    models = row.get("models")
    if not isinstance(models, list) or not models or not all(isinstance(m, str) and m for m in models):
        raise PriceListError(f"{where}.models must be a list of model names")
    unit_pico_usd = _pico(row, "usd", where)
    return [ModelPrice(model=model, kind=kind, unit_pico_usd=unit_pico_usd) for model in models]


def _pico_a_token(row: Mapping[str, object], field: str, where: str) -> int:
    pico_usd = _pico(row, field, where)
    if pico_usd % TOKENS_PER_PRICE:
        raise PriceListError(f"{where}.{field} is finer than a pico-dollar a token; round it up")
    return pico_usd // TOKENS_PER_PRICE


def _pico(row: Mapping[str, object], field: str, where: str) -> int:
    text = row.get(field)
    if not isinstance(text, str):
        raise PriceListError(f'{where}.{field} must be a decimal string of dollars, such as "0.15"')
    try:
        pico_usd = Decimal(text) * PICO_PER_USD
    except InvalidOperation:
        raise PriceListError(f'{where}.{field} = "{text}" is not a decimal number of dollars') from None
    if not pico_usd.is_finite() or pico_usd < 0 or pico_usd != pico_usd.to_integral_value():
        raise PriceListError(f'{where}.{field} = "{text}" must be zero or more, no finer than a pico-dollar')
    return int(pico_usd)


def _count(row: Mapping[str, object], field: str, where: str) -> int:
    value = row.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise PriceListError(f"{where}.{field} must be a whole number above zero")
    return value


def _table(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise PriceListError(f"{where} must be a table")
    return value


def _refuse_unknown(row: Mapping[str, object], known: set[str], where: str) -> None:
    unknown = sorted(set(row) - known)
    if unknown:
        raise PriceListError(f"{where}.{unknown[0]} is not known here; known are {', '.join(sorted(known))}")
