"""The body of `POST /admin/v1/credits`, and what is answered."""

from collections.abc import Mapping
from typing import get_args

from gateway.billing.budget import instant
from gateway.billing.credit import Paid, Payment
from gateway.billing.errors import InvalidRequest, UnknownField
from gateway.billing.money import format_usd, parse_usd
from gateway.billing.principal import SCOPE_ID, Scope, ScopeKind
from gateway.wire.fields import choice_of
from gateway.wire.strictjson import JSON

_FIELDS = ("org", "scope", "id", "amount_usd", "from", "note")
_NOTE_CHARS_MAX = 500


def payment_of(fields: Mapping[str, JSON], payment_id: str, author: str) -> Payment:
    """Read what is asked. Raises InvalidRequest or UnknownField naming the field."""
    unknown = sorted(set(fields) - set(_FIELDS))
    if unknown:
        raise UnknownField(
            f"A credit has no field {unknown[0][:80]!r}. Known are {', '.join(_FIELDS)}.", param=unknown[0][:80]
        )
    kind = next(
        kind for kind in get_args(ScopeKind) if kind == choice_of(fields.get("scope"), "scope", get_args(ScopeKind))
    )
    scope = Scope(kind, _id(fields.get("id"), "id"))
    source = None if fields.get("from") is None else Scope(kind, _id(fields["from"], "from"))
    if source == scope:
        raise InvalidRequest("from and id name the same scope; a transfer is between two.", param="from")
    amount_nano_usd = _amount(fields.get("amount_usd"))
    return Payment(payment_id, scope, amount_nano_usd, source, _note(fields.get("note")), author)


def paid_json(payment: Payment, paid: Paid) -> dict[str, object]:
    """The answer, equal for the first time and each repeat."""
    credit = paid.credit
    amounts = {
        "amount": payment.amount_nano_usd,
        "paid_in": credit.paid_in_nano_usd,
        "spent": credit.spent_nano_usd,
        "held": credit.held_nano_usd,
        "remaining": max(0, credit.free_nano_usd),
    }
    return {
        "credit": payment.id,
        "type": "transfer" if payment.source else "credit",
        "at": instant(paid.at_ms),
        "entry": paid.entry_id,
        "scope": payment.scope.kind,
        "id": payment.scope.id,
        "from": payment.source.id if payment.source else None,
        "note": payment.note,
        **{f"{name}_usd": format_usd(amount) for name, amount in amounts.items()},
        **{f"{name}_nano_usd": amount for name, amount in amounts.items()},
    }


def _id(value: JSON, param: str) -> str:
    if not isinstance(value, str) or not SCOPE_ID.fullmatch(value):
        raise InvalidRequest(f"{param} must be the id of a scope: 1 to 40 of a-z, 0-9 and '-'.", param=param)
    return value


def _amount(value: JSON) -> int:
    try:
        amount = parse_usd(value)
    except ValueError as error:
        raise InvalidRequest(f"amount_usd: {error}.", param="amount_usd") from None
    if amount == 0:
        raise InvalidRequest("amount_usd must be above zero.", param="amount_usd")
    return amount


def _note(value: JSON) -> str:
    text = "" if value is None else value
    if not isinstance(text, str) or len(text) > _NOTE_CHARS_MAX or any(ord(char) < 32 for char in text):
        raise InvalidRequest(f"note must be text of at most {_NOTE_CHARS_MAX} characters on one line.", param="note")
    return text
