"""Reconciliations as they were found: a stream that only grows."""

import hashlib
import json
from typing import cast

from redis.asyncio import Redis

from gateway.billing.reconciliation import Booked, Figure, Reconciliation
from gateway.store.keys import Keys
from gateway.store.ledger import TOMBSTONE_MS
from gateway.store.reports import Reports
from gateway.store.scripts import Argument, ScriptRunner, TranslatedFaults, load

_Row = tuple[bytes, dict[bytes, bytes]]


class Reconciliations:
    def __init__(self, redis: Redis, scripts: ScriptRunner, reports: Reports) -> None:
        self._redis = redis
        self._scripts = scripts
        self._reports = reports
        self._enter = load("enter")

    async def reconcile(self, org: str, figure: Figure) -> tuple[Reconciliation, bool] | None:
        """Hold a figure against the ledger as it is now, and keep what was found; also whether it had been kept before.

        The ledger's side is exact up to the last entry written before the call. A figure of the same id is answered
        with what was found the first time, for TOMBSTONE_MS; None: the id was used for another figure.
        Raises LedgerUnavailable: no answer; send it again with the same id.
        """
        booked = await self.booked(org, figure.from_ms, figure.to_ms)
        keys = Keys(org)
        reply = await self._scripts.run(
            self._enter,
            [keys.receipt(figure.id), keys.reconciliations],
            [_digest(figure), TOMBSTONE_MS, *_fields(figure, booked)],
        )
        match reply:
            case [b"done" | b"repeated" as outcome, [bytes(entry_id), list(flat)]]:
                fields = dict(zip(flat[::2], flat[1::2], strict=True))
                return _reconciliation((entry_id, fields)), outcome == b"repeated"
            case _:
                return None

    async def booked(self, org: str, from_ms: int, to_ms: int) -> Booked:
        """What the ledger has of a half-open span, as reports have it."""
        total = await self._reports.total(org, from_ms, to_ms)
        return Booked(total.cost_nano_usd, total.estimated_nano_usd, total.flagged)

    async def latest(self, org: str) -> Reconciliation | None:
        """What was found last; None: nothing was reconciled yet."""
        found = await self.page(org, before=None, limit=1)
        return found[0] if found else None

    async def page(self, org: str, *, before: str | None, limit: int) -> list[Reconciliation]:
        """Up to `limit` of them, the newest first; `before` is the id of the last one of the page before."""
        last = f"({before}" if before else "+"
        with TranslatedFaults():
            rows = await self._redis.xrevrange(Keys(org).reconciliations, max=last, min="-", count=limit)
        return [_reconciliation(row) for row in cast(list[_Row], rows)]


def _digest(figure: Figure) -> str:
    """Equal for equal wishes, however their JSON was written; what the ledger has by then is no part of it."""
    asked = [figure.from_ms, figure.to_ms, figure.billed_nano_usd, figure.note]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _fields(figure: Figure, booked: Booked) -> list[Argument]:
    fields: dict[str, Argument] = {
        "from": figure.from_ms,
        "to": figure.to_ms,
        "billed": figure.billed_nano_usd,
        "ledger": booked.ledger_nano_usd,
        "estimated": booked.estimated_nano_usd,
        "flagged": booked.flagged,
        "figure": figure.id,
        "note": figure.note,
        "author": figure.author,
    }
    return [part for pair in fields.items() for part in pair]


def _reconciliation(row: _Row) -> Reconciliation:
    entry_id, fields = row[0].decode(), row[1]
    figure = Figure(
        id=fields[b"figure"].decode(),
        from_ms=int(fields[b"from"]),
        to_ms=int(fields[b"to"]),
        billed_nano_usd=int(fields[b"billed"]),
        note=fields[b"note"].decode(),
        author=fields[b"author"].decode(),
    )
    booked = Booked(int(fields[b"ledger"]), int(fields[b"estimated"]), int(fields[b"flagged"]))
    return Reconciliation(entry_id, int(entry_id.partition("-")[0]), figure, booked)
