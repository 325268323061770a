"""The body of `POST /admin/v1/prices`, and what is answered."""

from collections.abc import Callable, Collection, Mapping

from gateway.billing.budget import instant
from gateway.billing.errors import InvalidRequest
from gateway.billing.price_rows import CHAT_RATES, CHAT_SIZES, UNIT_RATES, price_row
from gateway.billing.price_schedule import EnteredPrice, PriceChange
from gateway.wire.fields import boolean_of, choice_of, note_of, refuse_unknown_fields, string_of
from gateway.wire.strictjson import JSON

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
