"""The body of `POST /admin/v1/prices`, and what is answered."""

from collections.abc import Callable, Collection, Mapping

from gateway.billing.budget import instant
from gateway.billing.errors import InvalidRequest
from gateway.billing.price_rows import CHAT_RATES, CHAT_SIZES, UNIT_RATES, price_row
from gateway.billing.price_schedule import EnteredPrice, PriceChange
from gateway.wire.fields import boolean_of, choice_of, note_of, refuse_unknown_fields, string_of
from gateway.wire.strictjson import JSON

OWNER = "minitoolai"
"""Who provides the models, in OpenAI's `owned_by`."""
_ROW = (*CHAT_RATES, *CHAT_SIZES, *UNIT_RATES)
_FIELDS = ("org", "model", "kind", "effective_from", *_ROW, "withdrawn", "note")


def change_of(
    fields: Mapping[str, JSON],
    change_id: str,
    author: str,
    *,
    kinds: Collection[str],
    from_ms_of: Callable[[str], int],
) -> PriceChange:
    """Read what is asked; `from_ms_of` reads a date or an instant. Whether the price is right is not looked at.

    Raises InvalidRequest or UnknownField naming the field.
    """
    refuse_unknown_fields(fields, _FIELDS, "A price")
    withdrawn = fields.get("withdrawn") is not None and boolean_of(fields["withdrawn"], "withdrawn")
    row = {name: fields[name] for name in _ROW if fields.get(name) is not None}
    if withdrawn and row:
        raise InvalidRequest("withdrawn stands in place of the rates; send one or the other.", param="withdrawn")
    return PriceChange(
        id=change_id,
        model=string_of(fields.get("model"), "model", empty=False),
        kind="" if fields.get("kind") is None else choice_of(fields["kind"], "kind", kinds),
        from_ms=from_ms_of(string_of(fields.get("effective_from"), "effective_from", empty=False)),
        row=None if withdrawn else row,
        note=note_of(fields.get("note")),
        author=author,
    )


def model_json(entry: EnteredPrice) -> dict[str, object]:
    """The model that a price in force is of, as OpenAI's API shows one, and what it costs and takes.

    `created` (s) is when this price began; where it was always there, when it was entered. `pricing` is a million
    tokens' or a piece's in dollars, and a token's or a piece's in pico-dollars.
    """
    price = entry.dated.price
    if price is None:
        raise ValueError(f"{entry.dated.model} was withdrawn: it is no model now")
    row = price_row(price)
    about: dict[str, object] = {
        "id": price.model,
        "object": "model",
        "created": (entry.dated.from_ms or entry.at_ms) // 1000,
        "owned_by": OWNER,
        "kind": price.kind,
    }
    if price.kind != "chat":
        return about | {"pricing": row | {"pico_usd": price.unit_pico_usd}}
    picos = {
        "input_pico_usd": price.input_pico_usd,
        "cached_pico_usd": price.cached_pico_usd,
        "output_pico_usd": price.output_pico_usd,
    }
    sizes = {"context_tokens": price.context_tokens_max, "output_tokens": price.output_tokens_max}
    return about | {"pricing": {name: row[name] for name in CHAT_RATES} | picos, **sizes}


def price_json(entry: EnteredPrice) -> dict[str, object]:
    """One entry as answered, equal for the first time and each repeat."""
    dated = entry.dated
    return {
        "price": entry.id,
        "at": instant(entry.at_ms),
        "model": dated.model,
        "kind": dated.kind,
        "effective_from": instant(dated.from_ms) if dated.from_ms else None,
        **(price_row(dated.price) if dated.price else {"withdrawn": True}),
        "note": entry.note,
        "author": entry.author,
    }
