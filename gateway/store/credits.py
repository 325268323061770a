"""Credits and transfers: one script each, idempotent by id."""

import hashlib
import json
from typing import cast

from gateway.billing.credit import NotPaid, Paid, Payment
from gateway.billing.ledger import Credit
from gateway.billing.scope import ScopeSettings
from gateway.store.keys import Keys
from gateway.store.ledger import TOMBSTONE_MS
from gateway.store.records import entry_by_hand
from gateway.store.scripts import Argument, ScriptRunner, load


class Credits:
    """Writes what was paid in; `Ledger.credits` reads it back."""

    def __init__(self, scripts: ScriptRunner) -> None:
        self._scripts = scripts
        self._credit = load("credit")

    async def pay(
        self, org: str, payment: Payment, target: ScopeSettings, source: ScopeSettings | None = None
    ) -> Paid | NotPaid:
        """Post a credit, or both sides of a transfer, once for its id; or say why not.

        `target` and `source` are the scopes the payment names: their parents stand in the entries. What became of an id
        is remembered for TOMBSTONE_MS. Raises LedgerUnavailable: no answer; send it again with the same id.
        """
        keys = Keys(org)
        states = [keys.state(scope.scope) for scope in (target, source) if scope is not None]
        args: list[Argument] = [
            payment.id,
            payment.amount_nano_usd,
            _digest(payment),
            TOMBSTONE_MS,
            _entry(org, target, payment, source),
            _entry(org, source, payment, target) if source else "",
        ]
        reply = await self._scripts.run(
            self._credit, [keys.receipt(payment.id), keys.ledger, keys.credits, *states], args
        )
        return _answer(reply, payment)


def _answer(reply: list[object], payment: Payment) -> Paid | NotPaid:
    source = payment.source or payment.scope
    match reply:
        case [b"done" | b"repeated" as outcome, bytes(receipt)]:
            _, at_ms, entry_id, *numbers = receipt.decode().split("\n")
            return Paid(int(at_ms), entry_id, Credit(*map(int, numbers)), repeated=outcome == b"repeated")
        case [b"too_much", int(paid_in)]:
            return NotPaid("too_much", payment.scope, Credit(paid_in))
        case [b"too_little", *numbers_of_source]:
            return NotPaid("too_little", source, Credit(*cast(list[int], numbers_of_source)))
        case [b"unknown_scope", number]:
            return NotPaid("unknown_scope", source if number == 2 else payment.scope)
        case [b"not_prepaid"]:
            return NotPaid("not_prepaid", payment.scope)
        case _:
            return NotPaid("conflict", payment.scope)


def _digest(payment: Payment) -> str:
    """Equal for equal wishes, however their JSON was written."""
    source = payment.source and [payment.source.kind, payment.source.id]
    asked = [payment.scope.kind, payment.scope.id, payment.amount_nano_usd, source, payment.note]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _entry(org: str, scope: ScopeSettings, payment: Payment, other: ScopeSettings | None) -> str:
    counterpart = other.id if other else ""
    return entry_by_hand(org, scope, note=payment.note, author=payment.author, counterpart=counterpart)
