"""What is done to the books from outside: repair a balance, trim what is archived, build all of it again."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis

from gateway.billing.audit import MOVING, Account, Difference, add_to
from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import Entry
from gateway.billing.principal import Scope, ScopeKind
from gateway.billing.scope import ScopeSettings
from gateway.store.archive import Archive, Archiver, RawEntry, UnfitArchive, joined
from gateway.store.audit import Findings, position
from gateway.store.carried import CHECKPOINT, Carried, carried_json, read_carried, what_is_carried
from gateway.store.keys import Keys
from gateway.store.packed import Balances, with_balances
from gateway.store.records import entry_by_hand
from gateway.store.reports import Reports
from gateway.store.scopes import Scopes
from gateway.store.scripts import ScriptRunner, TranslatedFaults, load

REPAIR = "repair"
"""Flag of the adjustment, of no amount, that tells a balance was corrected."""
AUTHOR = "gateway ledger"


class NotTrimmed(RuntimeError):
    """Nothing was taken out; the text says why."""


class NotRepaired(RuntimeError):
    """The books are others than those that were read; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """How many entries went, and the entry that carries them."""

    count: int
    entry_id: str


class Bookkeeping:
    """Works on one organisation's books."""

    def __init__(self, redis: Redis, scripts: ScriptRunner, reports: Reports, org: str) -> None:
        self._redis = redis
        self._scripts = scripts
        self._reports = reports
        self._org = org
        self._keys = Keys(org)

    async def repair(self, findings: Findings) -> list[Difference]:
        """Make each number what its entries say, with an entry about it; returns those that cannot be repaired.

        Each is made only as long as nobody else has repaired or trimmed the books since they were read.

        Raises NotRepaired: somebody has; what was not repaired yet stays as it is. LedgerUnavailable.
        """
        left: list[Difference] = []
        for each in findings.differences:
            outcome = await self._repair(each, findings.revision)
            if outcome == b"changed":
                raise NotRepaired("somebody else repaired or trimmed the books meanwhile; verify them again")
            if outcome == b"repaired":
                findings.revision += 1
            else:
                left.append(each)
        return left

    async def _repair(self, difference: Difference, revision: int) -> object:
        note = f"{difference} (repaired)"
        target = ScopeSettings(kind="organisation", id=self._org)
        entry = entry_by_hand(self._org, target, note=note, author=AUTHOR, flags=(REPAIR,))
        change = difference.expected - difference.stored
        script, place = "repair_cell", difference.sheet
        if not difference.sheet:
            kind, scope_id = difference.place.split(" ")
            script, place = "repair", self._keys.state(Scope(cast(ScopeKind, kind), scope_id))
        reply = await self._scripts.run(
            load(script),
            [place, self._keys.ledger, self._keys.revision],
            [_new_id(REPAIR), difference.what, change, entry, revision, difference.start_ms],
        )
        return reply[0]

    async def trim(self, before_ms: int, archive: Archive) -> Trimmed:
        """Take out every entry posted before an instant, all of which must stand in the archive as they do here.

        Raises NotTrimmed, LedgerUnavailable.
        """
        archived = {raw.id: raw for raw in archive.entries}
        carried = await what_is_carried(self._redis, self._keys)
        last = ""
        async for raw in Archiver(self._redis, self._org).entries():
            if position(raw.id)[0] >= before_ms:
                break
            if archived.get(raw.id) != raw:
                raise NotTrimmed(f"entry {raw.id} is not in the archive as it is here; export anew")
            _add_everywhere(carried.accounts, raw.entry)
            last = raw.id
        if not last:
            raise NotTrimmed("there is no entry that old")
        await self._report(last)
        return await self._take_out(last, carried)

    async def _report(self, last: str) -> None:
        """Let the reports count everything up to an entry. A full Redis takes no more of them: then they must have."""
        with TranslatedFaults():
            checkpoint = cast(bytes, await self._redis.get(self._keys.checkpoint) or b"0-0").decode()
        if position(checkpoint) >= position(last):
            return
        try:
            await self._reports.catch_up(self._org)
        except LedgerUnavailable as error:
            raise NotTrimmed(
                f"the reports have counted the entries up to {checkpoint} only, and Redis takes no more of them; "
                f"is it full? Raise its maxmemory a little, or name a day that begins before that entry"
            ) from error

    async def _take_out(self, last: str, carried: Carried) -> Trimmed:
        milliseconds, number = position(last)
        target = ScopeSettings(kind="organisation", id=self._org)
        note = f"entries up to {last} were archived and taken out; this one carries what they added up to"
        reply = await self._scripts.run(
            load("trim"),
            [self._keys.ledger, self._keys.trimmed, self._keys.checkpoint, self._keys.revision],
            [
                last,
                f"{milliseconds}-{number + 1}",
                carried.entry_id,
                _new_id(CHECKPOINT),
                entry_by_hand(self._org, target, note=note, author=AUTHOR, flags=(CHECKPOINT,)),
                carried_json(carried.accounts, last),
            ],
        )
        if reply[0] != b"trimmed":
            raise NotTrimmed("somebody else works on the ledger; try again")
        return Trimmed(cast(int, reply[1]), cast(bytes, reply[2]).decode())

    async def rebuild(self, archives: Sequence[Archive], scopes: Scopes) -> int:
        """Build the books of an empty Redis from archives; returns how many entries they have.

        The newest archive says what settings and sub-keys there are. Open holds, image jobs and answers are in none.
        Raises UnfitArchive: they do not fit together; then nothing was written. LedgerUnavailable.
        """
        entries = list(joined(list(archives)))
        newest = max(archives, key=lambda archive: position(archive.entries[-1].id) if archive.entries else (0, 0))
        settings = newest.settings()
        accounts = _accounts(entries)
        _refuse_unknown(settings, accounts)
        for each in settings.values():
            await scopes.create(self._org, each)
        with TranslatedFaults():
            for digest, owner in newest.digests.items():
                await self._redis.set(self._keys.digest(digest), owner)
            await self._write_beside(newest)
            for raw in entries:
                await self._write(raw)
            for scope, account in accounts.items():
                await self._set_balances(scope, account)
        await self._reports.catch_up(self._org)
        return len(entries)

    async def _write_beside(self, archive: Archive) -> None:
        for name, value in archive.strings.items():
            await self._redis.set(self._keys.whole(name), value)
        for name, raw in archive.rows:
            await self._redis.xadd(self._keys.whole(name), cast(dict[Any, Any], raw.fields), id=raw.id)
        for name, value, until_ms in archive.receipts:
            await self._redis.set(self._keys.whole(name), value, pxat=until_ms)
        for name, field, value in archive.fields:
            await self._redis.hset(self._keys.whole(name), field, value)

    async def _write(self, raw: RawEntry) -> None:
        fields = cast(dict[Any, Any], raw.fields)
        await self._redis.xadd(self._keys.ledger, fields, id=raw.id)
        if raw.fields["type"] in ("credit", "transfer"):
            await self._redis.xadd(self._keys.credits, fields, id=raw.id)
        if "carries" in raw.fields:
            await self._redis.set(self._keys.trimmed, raw.id)

    async def _set_balances(self, scope: Scope, account: Account) -> None:
        packed = cast(bytes, await self._redis.get(self._keys.state(scope)))
        moving = tuple(account.windows[window] for window in MOVING)
        balances = Balances(account.spent, account.paid_in, account.credit_spent, moving)
        await self._redis.set(self._keys.state(scope), with_balances(packed, balances))


def _accounts(entries: Sequence[RawEntry]) -> dict[Scope, Account]:
    """What the entries add up to. Where the oldest are missing, the checkpoint that carries them stands for them."""
    carrying = next((raw for raw in entries if "carries" in raw.fields), None)
    accounts: dict[Scope, Account] = {}
    carried: dict[Scope, Account] = {}
    through = (0, 0)
    if carrying is not None:
        carried, last = read_carried(carrying.bytes_fields)
        through = position(last)
        if position(entries[0].id) > through:
            accounts, carried = carried, {}
    for raw in entries:
        if carried and position(raw.id) > through:
            _refuse_gap(accounts, carried)
            carried = {}
        _add_everywhere(accounts, raw.entry)
    return accounts


def _refuse_gap(accounts: dict[Scope, Account], carried: dict[Scope, Account]) -> None:
    if accounts != carried:
        raise UnfitArchive("entries are missing between the archives: they do not add up to what a checkpoint carries")


def _refuse_unknown(settings: dict[Scope, ScopeSettings], accounts: dict[Scope, Account]) -> None:
    """Before the first write: an archive that lacks a scope leaves an empty Redis empty."""
    named = {parent for each in settings.values() for parent in each.parents()}
    for scope in sorted({*accounts, *named} - settings.keys(), key=str):
        why = "has entries" if scope in accounts else "has scopes inside it"
        raise UnfitArchive(f"{scope.kind} {scope.id} {why} and no settings in the archive")


def _add_everywhere(accounts: dict[Scope, Account], entry: Entry) -> None:
    for scope in entry.scopes():
        add_to(accounts.setdefault(scope, Account()), scope, entry)


def _new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(12)}"
