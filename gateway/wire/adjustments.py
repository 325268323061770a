"""The body of `POST /admin/v1/adjustments`, and what is answered."""

from collections.abc import Mapping

from gateway.billing.adjustment import Adjusted, Adjustment
from gateway.billing.budget import instant
from gateway.billing.errors import InvalidRequest
from gateway.billing.money import format_usd
from gateway.billing.principal import Scope
from gateway.wire.fields import amount_of, note_of, refuse_unknown_fields, scope_id_of, scope_kind_of
from gateway.wire.scopes import instant_ms
from gateway.wire.strictjson import JSON

_EARLIEST_MS = 365 * 24 * 3_600_000
_FIELDS = ("org", "scope", "id", "amount_usd", "note", "at")


def adjustment_of(fields: Mapping[str, JSON], adjustment_id: str, author: str) -> Adjustment:
    """Read what is asked: `amount_usd` may begin with a minus, and a note is needed.

    Raises InvalidRequest or UnknownField naming the field.
    """
    refuse_unknown_fields(fields, _FIELDS, "An adjustment")
    scope = Scope(scope_kind_of(fields.get("scope")), scope_id_of(fields.get("id"), "id"))
    note = note_of(fields.get("note"))
    if not note.strip():
        raise InvalidRequest("note must say why: an adjustment is read by whoever checks the books.", param="note")
    at = fields.get("at")
    if at is not None and not isinstance(at, str):
        raise InvalidRequest("at must be an RFC 3339 instant, such as 2026-11-21T20:00:00Z.", param="at")
    at_ms = None if at is None else instant_ms(at, "at")
    if at_ms is not None and at_ms < _EARLIEST_MS:
        raise InvalidRequest("at is before there was anything to correct.", param="at")
    return Adjustment(adjustment_id, scope, _signed(fields.get("amount_usd")), note, author, at_ms)


def adjusted_json(adjustment: Adjustment, adjusted: Adjusted) -> dict[str, object]:
    """The answer, equal for the first time and each repeat."""
    return {
        "adjustment": adjustment.id,
        "at": instant(adjusted.at_ms),
        "for": instant(adjusted.at_ms if adjustment.at_ms is None else adjustment.at_ms),
        "entry": adjusted.entry_id,
        "scope": adjustment.scope.kind,
        "id": adjustment.scope.id,
        "amount_usd": format_usd(adjustment.amount_nano_usd),
        "amount_nano_usd": adjustment.amount_nano_usd,
        "note": adjustment.note,
        "author": adjustment.author,
    }


def _signed(value: JSON) -> int:
    text = value.removeprefix("-") if isinstance(value, str) else value
    amount_nano_usd = amount_of(text, "amount_usd", least=1)
    return -amount_nano_usd if text != value else amount_nano_usd
