"""The body of `POST /admin/v1/upstream`, and what is answered."""

from collections.abc import Mapping

from gateway.billing.budget import instant
from gateway.billing.errors import InvalidRequest
from gateway.billing.money import format_usd
from gateway.billing.upstream_account import AccountChange, AccountEntry
from gateway.wire.fields import amount_of, note_of, refuse_unknown_fields
from gateway.wire.strictjson import JSON

_FIELDS = ("org", "amount_usd", "balance_usd", "note")


def change_of(fields: Mapping[str, JSON], change_id: str, author: str) -> AccountChange:
    """Read what is asked. Raises InvalidRequest or UnknownField naming the field."""
    refuse_unknown_fields(fields, _FIELDS, "A top-up")
    note = note_of(fields.get("note"))
    if fields.get("balance_usd") is None:
        paid = amount_of(fields.get("amount_usd"), "amount_usd", least=1)
        return AccountChange(change_id, "top_up", paid, note, author)
    if fields.get("amount_usd") is not None:
        raise InvalidRequest(
            "Send amount_usd for what was paid, or balance_usd for what is there now, not both.", param="balance_usd"
        )
    there = amount_of(fields["balance_usd"], "balance_usd")
    return AccountChange(change_id, "balance", there, note, author)


def entry_json(entry: AccountEntry) -> dict[str, object]:
    """One entry as answered, equal for the first time and each repeat."""
    return {
        "entry": entry.id,
        "at": instant(entry.at_ms),
        "type": entry.type,
        "amount_usd": format_usd(entry.amount_nano_usd),
        "amount_nano_usd": entry.amount_nano_usd,
        "balance_usd": format_usd(entry.balance_nano_usd),
        "balance_nano_usd": entry.balance_nano_usd,
        "note": entry.note,
        "author": entry.author,
    }


def outlook_json(balance_nano_usd: int | None, burn_nano_usd: int, runs_out_on: str | None) -> dict[str, object]:
    """What the account comes to: its estimated balance, what a day costs, and the day it is used up."""
    return {
        "balance_estimated_usd": None if balance_nano_usd is None else format_usd(balance_nano_usd),
        "balance_estimated_nano_usd": balance_nano_usd,
        "burn_per_day_usd": format_usd(burn_nano_usd),
        "burn_per_day_nano_usd": burn_nano_usd,
        "runs_out_on": runs_out_on,
    }
