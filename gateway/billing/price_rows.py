"""One price as people write it, in `prices.toml` and over HTTP: decimal strings of dollars, read exactly or not at all.

Chat is priced by the million tokens and has sizes, everything else by the piece (`usd`).
"""

import re
from collections.abc import Mapping

from gateway.billing.money import NANO_PER_USD, PICO_PER_NANO
from gateway.billing.prices import IMAGE_RULES, ModelPrice, PriceListError

PICO_PER_USD = NANO_PER_USD * PICO_PER_NANO
TOKENS_PER_PRICE = 1_000_000

CHAT_RATES = ("input_usd_per_million", "cached_usd_per_million", "output_usd_per_million")
CHAT_SIZES = ("context_tokens", "output_tokens", "image_tokens_low", "image_tokens_high", *IMAGE_RULES)
UNIT_RATES = ("usd",)

_NAME = re.compile(r"[ -{}~]{1,100}")
"""Printable ASCII but for the bar, which separates names in the cells of reports."""

_DECIMAL = re.compile(r"(\d{1,7})(?:\.(\d{1,12}))?", re.ASCII)


def price_fields(kind: str) -> tuple[str, ...]:
    """What a price of this kind is written with."""
    return (*CHAT_RATES, *CHAT_SIZES) if kind == "chat" else UNIT_RATES


def read_price(
    model: str, kind: str, row: Mapping[str, object], *, where: str = "", before: ModelPrice | None = None
) -> ModelPrice:
    """The price that a row of `price_fields` says. Sizes it does not name are those of `before`.

    `where` is the row's path with its dot, for the messages. Raises PriceListError: anything missing, unknown, a float
    where a decimal string belongs, finer than a pico-dollar.
    """
    for name in (model, kind):
        check_name(name)
    known = price_fields(kind)
    unknown = sorted(set(row) - set(known))
    if unknown:
        raise PriceListError(f"{where}{unknown[0]} is not known here; known are {', '.join(sorted(known))}", unknown[0])
    if kind != "chat":
        return ModelPrice(model=model, kind=kind, unit_pico_usd=_pico(row, "usd", where))
    sizes = _sizes(row, where, before)
    input_pico_usd = _pico_a_token(row, "input_usd_per_million", where)
    cached = "cached_usd_per_million"
    return ModelPrice(
        model=model,
        kind=kind,
        input_pico_usd=input_pico_usd,
        # Cached tokens cost what other input tokens cost unless the row says otherwise.
        cached_pico_usd=_pico_a_token(row, cached, where) if cached in row else input_pico_usd,
        output_pico_usd=_pico_a_token(row, "output_usd_per_million", where),
        **sizes,
    )


def price_row(price: ModelPrice) -> dict[str, object]:
    """The row that says this price: what `read_price` reads back."""
    if price.kind != "chat":
        return {"usd": _usd(price.unit_pico_usd)}
    return {
        "input_usd_per_million": _usd(price.input_pico_usd * TOKENS_PER_PRICE),
        "cached_usd_per_million": _usd(price.cached_pico_usd * TOKENS_PER_PRICE),
        "output_usd_per_million": _usd(price.output_pico_usd * TOKENS_PER_PRICE),
        **{name: getattr(price, attribute) for name, attribute in _ATTRIBUTES.items()},
        **{name: getattr(price, name) for name in IMAGE_RULES if getattr(price, name)},
    }


def check_name(name: str) -> None:
    """Raises PriceListError: it cannot name a model or kind."""
    if not _NAME.fullmatch(name):
        raise PriceListError(
            f"{name[:80]!r} is no name for a model or kind: 1 to 100 printable ASCII characters, no '|'", "model"
        )


_ATTRIBUTES = {
    "context_tokens": "context_tokens_max",
    "output_tokens": "output_tokens_max",
    "image_tokens_low": "image_tokens_low",
    "image_tokens_high": "image_tokens_high",
}


def _sizes(row: Mapping[str, object], where: str, before: ModelPrice | None) -> dict[str, int]:
    return {
        attribute: _count(row, name, where) if name in row or before is None else getattr(before, attribute)
        for name, attribute in _ATTRIBUTES.items()
    } | _image_rule(row, where, before)


def _image_rule(row: Mapping[str, object], where: str, before: ModelPrice | None) -> dict[str, int]:
    """At most one, and none is needed: without a rule an image is bound by its detail alone."""
    named = [name for name in IMAGE_RULES if name in row]
    if len(named) > 1:
        raise PriceListError(f"{where}{named[1]} stands beside {named[0]}; a model has one of them", named[1])
    if named:
        return {named[0]: _count(row, named[0], where)}
    return {name: getattr(before, name) for name in IMAGE_RULES} if before else {}


def _pico_a_token(row: Mapping[str, object], field: str, where: str) -> int:
    pico_usd = _pico(row, field, where)
    if pico_usd % TOKENS_PER_PRICE:
        raise PriceListError(f"{where}{field} is finer than a pico-dollar a token; round it up", field)
    return pico_usd // TOKENS_PER_PRICE


def _pico(row: Mapping[str, object], field: str, where: str) -> int:
    text = row.get(field)
    if not isinstance(text, str):
        raise PriceListError(f'{where}{field} must be a decimal string of dollars, such as "0.15"', field)
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise PriceListError(
            f'{where}{field} = "{text[:80]}" is not a decimal number of dollars: zero or more, below ten million, no '
            "finer than a pico-dollar",
            field,
        )
    return int(match[1]) * PICO_PER_USD + int((match[2] or "").ljust(12, "0"))


def _count(row: Mapping[str, object], field: str, where: str) -> int:
    value = row.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise PriceListError(f"{where}{field} must be a whole number above zero", field)
    return value


def _usd(pico_usd: int) -> str:
    """A decimal string: at least two decimals, no more than needed."""
    whole, fraction = divmod(pico_usd, PICO_PER_USD)
    digits = f"{fraction:012d}".rstrip("0").ljust(2, "0")
    return f"{whole}.{digits}"
