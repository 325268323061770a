"""The body of `POST /admin/v1/reconciliation`, and what is answered."""

from collections.abc import Mapping

from gateway.billing.budget import instant
from gateway.billing.errors import InvalidRequest
from gateway.billing.money import format_usd
from gateway.billing.reconciliation import Reconciliation, hundredths_percent
from gateway.wire.fields import amount_of, note_of, refuse_unknown_fields
from gateway.wire.strictjson import JSON

_FIELDS = ("org", "from", "to", "billed_usd", "note")


def figure_fields(fields: Mapping[str, JSON]) -> tuple[str, str, int, str]:
    """`from`, `to` (as they were written), what was billed in nano-USD, and the note.

    Raises InvalidRequest or UnknownField naming the field.
    """
    refuse_unknown_fields(fields, _FIELDS, "A reconciliation")
    first, last = _border(fields.get("from"), "from"), _border(fields.get("to"), "to")
    return first, last, amount_of(fields.get("billed_usd"), "billed_usd"), note_of(fields.get("note"))


def reconciliation_json(found: Reconciliation) -> dict[str, object]:
    """One reconciliation as answered, equal for the first time and each repeat."""
    figure, booked = found.figure, found.booked
    amounts = {
        "ledger": booked.ledger_nano_usd,
        "billed": figure.billed_nano_usd,
        "drift": found.drift_nano_usd,
        "estimated": booked.estimated_nano_usd,
    }
    share = hundredths_percent(booked.estimated_nano_usd, booked.ledger_nano_usd)
    return {
        "reconciliation": found.id,
        "at": instant(found.at_ms),
        "from": instant(figure.from_ms),
        "to": instant(figure.to_ms),
        **{f"{name}_usd": format_usd(amount) for name, amount in amounts.items()},
        **{f"{name}_nano_usd": amount for name, amount in amounts.items()},
        "estimated_percent": None if share is None else f"{share // 100}.{share % 100:02d}",
        "flagged": booked.flagged,
        "note": figure.note,
        "author": figure.author,
    }


def _border(value: JSON, param: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(
            f'{param} must be a date such as "2026-11-01", or an RFC 3339 instant, as the bill has it.', param=param
        )
    return value
