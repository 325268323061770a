"""What was entered about the account at MiniToolAI, one script and one stream; and the balance it comes to by now."""

import hashlib
import json
from typing import cast

from redis.asyncio import Redis

from gateway.billing.principal import Scope
from gateway.billing.upstream_account import AccountChange, AccountEntry, AccountEntryType, Entered, NotEntered
from gateway.store.keys import Keys
from gateway.store.ledger import TOMBSTONE_MS
from gateway.store.packed import unpack_scope
from gateway.store.scripts import ScriptRunner, TranslatedFaults, load

_Row = tuple[bytes, dict[bytes, bytes]]


class UpstreamAccounts:
    def __init__(self, redis: Redis, scripts: ScriptRunner) -> None:
        self._redis = redis
        self._scripts = scripts
        self._account = load("account")

    async def enter(self, org: str, change: AccountChange) -> Entered | NotEntered:
        """Write an entry once for its id, or say why not. What became of an id is remembered for TOMBSTONE_MS.

        Raises LedgerUnavailable: no answer; send it again with the same id.
        """
        keys = Keys(org)
        reply = await self._scripts.run(
            self._account,
            [keys.receipt(change.id), keys.upstream_account, keys.state(_organisation(org))],
            [_digest(change), TOMBSTONE_MS, change.type, change.amount_nano_usd, change.note, change.author],
        )
        match reply:
            case [b"done" | b"repeated" as outcome, [bytes(entry_id), list(flat)]]:
                fields = dict(zip(flat[::2], flat[1::2], strict=True))
                return Entered(_entry((entry_id, fields)), repeated=outcome == b"repeated")
            case [b"too_much", int(balance)]:
                return NotEntered("too_much", balance)
            case _:
                return NotEntered("conflict")

    async def balance(self, org: str) -> int | None:
        """The estimated balance as of now, in nano-USD, below zero where more was spent; None: nothing was entered."""
        keys = Keys(org)
        with TranslatedFaults():
            # Together: an entry that came between the two reads would count what was spent before it.
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.xrevrange(keys.upstream_account, count=1)
            pipeline.get(keys.state(_organisation(org)))
            rows, packed = cast(tuple[list[_Row], bytes | None], await pipeline.execute())
        if not rows or packed is None:
            return None
        return _entry(rows[0]).balance_at(unpack_scope(packed).spent_nano_usd)

    async def page(self, org: str, *, before: str | None, limit: int) -> list[AccountEntry]:
        """Up to `limit` entries, the newest first; `before` is the id of the last one of the page before."""
        last = f"({before}" if before else "+"
        with TranslatedFaults():
            rows = await self._redis.xrevrange(Keys(org).upstream_account, max=last, min="-", count=limit)
        return [_entry(row) for row in cast(list[_Row], rows)]


def _organisation(org: str) -> Scope:
    return Scope("organisation", org)


def _digest(change: AccountChange) -> str:
    """Equal for equal wishes, however their JSON was written."""
    return hashlib.sha256(json.dumps([change.type, change.amount_nano_usd, change.note]).encode()).hexdigest()


def _entry(row: _Row) -> AccountEntry:
    entry_id, fields = row[0].decode(), row[1]
    return AccountEntry(
        id=entry_id,
        at_ms=int(entry_id.partition("-")[0]),
        type=cast(AccountEntryType, fields[b"type"].decode()),
        amount_nano_usd=int(fields[b"amount"]),
        balance_nano_usd=int(fields[b"balance"]),
        spent_nano_usd=int(fields[b"spent"]),
        note=fields[b"note"].decode(),
        author=fields[b"author"].decode(),
    )
