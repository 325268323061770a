"""The body of `POST /admin/v1/credits`, and what is answered."""

from collections.abc import Mapping

from gateway.billing.budget import instant
from gateway.billing.credit import Paid, Payment
from gateway.billing.errors import InvalidRequest
from gateway.billing.money import format_usd
from gateway.billing.principal import Scope
from gateway.wire.fields import amount_of, note_of, refuse_unknown_fields, scope_id_of, scope_kind_of
from gateway.wire.strictjson import JSON

_FIELDS = ("org", "scope", "id", "amount_usd", "from", "note")


def payment_of(fields: Mapping[str, JSON], payment_id: str, author: str) -> Payment:
    """Read what is asked. Raises InvalidRequest or UnknownField naming the field."""
    refuse_unknown_fields(fields, _FIELDS, "A credit")
    kind = scope_kind_of(fields.get("scope"))
    scope = Scope(kind, scope_id_of(fields.get("id"), "id"))
    source = None if fields.get("from") is None else Scope(kind, scope_id_of(fields["from"], "from"))
    if source == scope:
        raise InvalidRequest("from and id name the same scope; a transfer is between two.", param="from")
    amount_nano_usd = amount_of(fields.get("amount_usd"), "amount_usd", least=1)
    return Payment(payment_id, scope, amount_nano_usd, source, note_of(fields.get("note")), author)


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
