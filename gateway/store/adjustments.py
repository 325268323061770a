"""Adjustments: one script, idempotent by id."""

import hashlib
import json

from gateway.billing.adjustment import Adjusted, Adjustment, NotAdjusted
from gateway.billing.budget import BUDGET_WINDOWS, Calendar
from gateway.billing.principal import Scope
from gateway.billing.scope import ScopeSettings
from gateway.store.keys import Keys
from gateway.store.ledger import TOMBSTONE_MS
from gateway.store.records import entry_by_hand
from gateway.store.scripts import Argument, ScriptRunner, load


class Adjustments:
    """Posts what people correct."""

    def __init__(self, scripts: ScriptRunner, calendar: Calendar) -> None:
        self._scripts = scripts
        self._calendar = calendar
        self._adjust = load("adjust")

    async def post(
        self, org: str, adjustment: Adjustment, target: ScopeSettings, now_ms: int
    ) -> Adjusted | NotAdjusted:
        """Post once for its id at `target` and every scope above it, or say why not.

        It counts in the windows of its instant as far as they still run, and in the reports of that day, or of today's
        where that month is closed (ADR 0020). What became of an id is remembered for TOMBSTONE_MS. Raises
        LedgerUnavailable: no answer; send it again with the same id.
        """
        keys = Keys(org)
        scopes = (Scope("organisation", org), *target.parents(), *(() if _is_top(target) else (target.scope,)))
        at_ms = now_ms if adjustment.at_ms is None else adjustment.at_ms
        spans = self._calendar.spans_at(at_ms)
        args: list[Argument] = [
            adjustment.id,
            "take" if adjustment.amount_nano_usd < 0 else "add",
            abs(adjustment.amount_nano_usd),
            _digest(adjustment),
            TOMBSTONE_MS,
            entry_by_hand(org, target, note=adjustment.note, author=adjustment.author),
            at_ms,
            spans.day.start_ms,
            spans.week.start_ms,
            spans.month.start_ms,
        ]
        states = [keys.state(scope) for scope in scopes]
        reply = await self._scripts.run(self._adjust, [keys.receipt(adjustment.id), keys.ledger, *states], args)
        return _answer(reply, adjustment, scopes)


def _is_top(target: ScopeSettings) -> bool:
    return target.kind == "organisation"


def _answer(reply: list[object], adjustment: Adjustment, scopes: tuple[Scope, ...]) -> Adjusted | NotAdjusted:
    match reply:
        case [b"done" | b"repeated" as outcome, bytes(receipt)]:
            _, at_ms, entry_id = receipt.decode().split("\n")
            return Adjusted(int(at_ms), entry_id, repeated=outcome == b"repeated")
        case [b"unknown_scope", int(number)]:
            return NotAdjusted("unknown_scope", scopes[number - 1])
        case [b"too_little", int(number), int(window), int(spent)]:
            return NotAdjusted("too_little", scopes[number - 1], BUDGET_WINDOWS[window - 1], spent)
        case [b"too_much", int(number)]:
            return NotAdjusted("too_much", scopes[number - 1])
        case [b"ahead", _]:
            return NotAdjusted("ahead", adjustment.scope)
        case _:
            return NotAdjusted("conflict", adjustment.scope)


def _digest(adjustment: Adjustment) -> str:
    """Equal for equal wishes, however their JSON was written."""
    scope = [adjustment.scope.kind, adjustment.scope.id]
    asked = [*scope, adjustment.amount_nano_usd, adjustment.note, adjustment.at_ms]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()
