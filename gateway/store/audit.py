"""Reads the books while they are written, and checks them: `gateway ledger verify`.

Scopes are read some hundred at a time, each lot in one transaction with the id of the newest entry and with the open
holds, so each lot is exact as of one instant. The entries are then read once; each counts at the scopes that were read
after it was posted.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from redis.asyncio import Redis

from gateway.billing.audit import (
    MOVING,
    Account,
    Difference,
    Held,
    Stored,
    add_to,
    held_differences,
    spent_differences,
)
from gateway.billing.budget import Calendar
from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import RESOLUTIONS, Entry, OpenHold
from gateway.billing.principal import Scope, ScopeKind
from gateway.billing.repricing import Mispriced, repriced
from gateway.store.audit_cells import CellAudit
from gateway.store.carried import what_is_carried
from gateway.store.keys import Keys
from gateway.store.ledger import Ledger
from gateway.store.packed import ScopeState, unpack_scope
from gateway.store.prices import PriceBooks
from gateway.store.records import open_hold_of
from gateway.store.reports import Reports
from gateway.store.scripts import TranslatedFaults

_BELOW: tuple[ScopeKind, ...] = ("team", "user", "key")
_LOT = 500
_TRIES = 200
_SHOWN_ENTRIES = 20
LOST = "balance (lost)"


@dataclass(slots=True)
class Findings:
    """What an audit found. `busy`: scopes whose held money could not be read, because calls never stood still."""

    entries: int = 0
    scopes: int = 0
    holds: int = 0
    last_id: str = "0-0"
    revision: int = 0
    """How often the books had been repaired or trimmed before they were read; repairs are made only while so."""
    quarantined: int = 0
    differences: list[Difference] = field(default_factory=list)
    busy: int = 0
    mispriced: list[Mispriced] = field(default_factory=list)
    """Entries whose charge is not what their tokens cost; found only where that was asked for."""


@dataclass(frozen=True, slots=True)
class Lot:
    """Some scopes as of one instant: right behind the entry `last_id`. `holds` None: not known for that instant."""

    last_id: str
    states: dict[Scope, ScopeState]
    holds: tuple[OpenHold, ...] | None


class Audit:
    """Checks one organisation's balances and report cells against its entries."""

    def __init__(self, redis: Redis, ledger: Ledger, reports: Reports, calendar: Calendar, org: str) -> None:
        self._redis = redis
        self._ledger = ledger
        self._reports = reports
        self._calendar = calendar
        self._org = org
        self._keys = Keys(org)

    async def run(self) -> Findings:
        """Check every scope and every report. Raises LedgerUnavailable."""
        with TranslatedFaults():
            revision = int(cast(bytes, await self._redis.get(self._keys.revision) or b"0"))
        lots = [lot async for lot in self.lots()]
        count = sum(len(lot.states) for lot in lots)
        findings = Findings(scopes=count, last_id=lots[0].last_id, revision=revision)
        accounts = await self._summed(lots, findings)
        for lot in lots:
            findings.differences += await self._differences(lot, accounts, findings)
        findings.differences += await self._lost(accounts, lots)
        with TranslatedFaults():
            findings.quarantined = await self._redis.hlen(self._keys.quarantine)
            seconds, _ = await self._redis.time()
        cells = CellAudit(self._redis, self._ledger, self._reports, self._calendar, self._org)
        findings.differences += [each async for each in cells.differences(int(seconds) * 1000)]
        return findings

    async def reprice(self, prices: PriceBooks, findings: Findings) -> None:
        """Compute every charge again, from its tokens and the price list of its version. Raises LedgerUnavailable."""
        async for entry in self._entries(None):
            listed = await prices.list_of(self._org, entry.price_version) if entry.price_version else None
            wrong = repriced(entry, listed)
            if wrong is not None:
                findings.mispriced.append(wrong)

    async def lots(self) -> AsyncIterator[Lot]:
        """Every scope, the organisation first."""
        scopes = [Scope("organisation", self._org), *[scope async for scope in self._scopes()]]
        for start in range(0, len(scopes), _LOT):
            yield await self._lot(scopes[start : start + _LOT])

    async def _scopes(self) -> AsyncIterator[Scope]:
        for kind in _BELOW:
            with TranslatedFaults():
                ids = cast(list[bytes], await self._redis.zrange(self._keys.index(kind), 0, -1))
            for member in ids:
                yield Scope(kind, member.decode())

    async def _lot(self, scopes: Sequence[Scope]) -> Lot:
        """Read until the holds known beforehand are those that were open; where that never is, without holds."""
        lot = Lot("0-0", {}, None)
        known: list[str] = []
        for _ in range(_TRIES):
            lot, leased = await self._read(scopes, known)
            if lot.holds is not None:
                return lot
            known = leased
        return lot

    async def _read(self, scopes: Sequence[Scope], known: Sequence[str]) -> tuple[Lot, list[str]]:
        with TranslatedFaults():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.xrevrange(self._keys.ledger, count=1)
            pipeline.mget([self._keys.state(scope) for scope in scopes])
            pipeline.zrange(self._keys.leases, 0, -1)
            if known:
                pipeline.mget([self._keys.hold(hold_id) for hold_id in known])
            newest, packed, members, *held = await pipeline.execute()
        states = {
            scope: _unpacked(scope, value) for scope, value in zip(scopes, packed, strict=True) if value is not None
        }
        leased = [member.decode() for member in members]
        holds = None
        if set(leased) <= set(known):
            values = dict(zip(known, held[0], strict=True)) if known else {}
            holds = tuple(open_hold_of(each, value) for each in leased if (value := values[each]) is not None)
        return Lot(newest[0][0].decode() if newest else "0-0", states, holds), leased

    async def _summed(self, lots: Sequence[Lot], findings: Findings) -> dict[Scope, Account]:
        """What the entries say, each scope's as far as its lot had them; a checkpoint carries what was trimmed."""
        until = {scope: position(lot.last_id) for lot in lots for scope in lot.states}
        last = max(position(lot.last_id) for lot in lots)
        carried = await what_is_carried(self._redis, self._keys)
        accounts, ends = carried.accounts, Counter[str]()
        async for entry in self._entries(carried.through):
            at = position(entry.id)
            if at > last:
                break
            findings.entries += 1
            ends[entry.hold_id] += entry.type in RESOLUTIONS
            for scope in entry.scopes():
                if at <= until.get(scope, last):
                    add_to(accounts.setdefault(scope, Account()), scope, entry)
        open_then = {hold.id for lot in lots[:1] for hold in lot.holds or () if position(lot.last_id) == last}
        findings.differences += [
            Difference(f"hold {hold_id}", "times it was ended", times, int(hold_id not in open_then))
            for hold_id, times in ends.items()
            if times > (hold_id not in open_then)
        ]
        return accounts

    async def _differences(self, lot: Lot, accounts: dict[Scope, Account], findings: Findings) -> list[Difference]:
        held = None if lot.holds is None else _held(lot.holds)
        findings.holds = len(lot.holds or ())
        findings.busy += 0 if held is not None else len(lot.states)
        found: list[Difference] = []
        for scope, state in lot.states.items():
            stored = stored_of(state)
            wrong = list(spent_differences(scope, stored, accounts.pop(scope, Account())))
            if wrong:
                entries = await self._newest_of(scope, lot.last_id)
                wrong = [replace(each, entries=entries) for each in wrong]
            if held is not None:
                wrong += held_differences(scope, stored, held.get(scope, Held()))
            found += wrong
        return found

    async def _lost(self, accounts: dict[Scope, Account], lots: Sequence[Lot]) -> list[Difference]:
        """Scopes that are listed or have entries, and have no balance."""
        seen = {scope for lot in lots for scope in lot.states}
        listed = [Scope("organisation", self._org), *[scope async for scope in self._scopes()]]
        missing = sorted({*listed, *accounts} - seen, key=lambda scope: (scope.kind, scope.id))
        if not missing:
            return []
        with TranslatedFaults():  # once more: whoever was created meanwhile has a balance by now
            packed = await self._redis.mget([self._keys.state(scope) for scope in missing])
        return [
            Difference(f"{scope.kind} {scope.id}", LOST, 0, accounts.get(scope, Account()).spent)
            for scope, value in zip(missing, packed, strict=True)
            if value is None
        ]

    async def _newest_of(self, scope: Scope, last_id: str) -> tuple[str, ...]:
        """Where to begin to look: the newest entries of a scope."""
        found: list[str] = []
        async for entry in self._entries(None):
            if position(entry.id) > position(last_id):
                break
            if scope in entry.scopes():
                found.append(entry.id)
        return tuple(found[-_SHOWN_ENTRIES:])

    async def _entries(self, after: str | None) -> AsyncIterator[Entry]:
        page = await self._ledger.entries(self._org, after=after)
        while page:
            for entry in page:
                yield entry
            page = await self._ledger.entries(self._org, after=page[-1].id)


def _unpacked(scope: Scope, packed: bytes) -> ScopeState:
    try:
        return unpack_scope(packed)
    except (LedgerUnavailable, ValueError, OverflowError) as error:
        raise LedgerUnavailable(f"The balance of {scope.kind} {scope.id} cannot be read.") from error


def position(entry_id: str) -> tuple[int, int]:
    """Where an id stands in the stream."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)


def stored_of(state: ScopeState) -> Stored:
    return Stored(
        spent=state.spent_nano_usd,
        held=state.held_nano_usd,
        paid_in=state.credit.paid_in_nano_usd,
        credit_spent=state.credit.spent_nano_usd,
        credit_held=state.credit.held_nano_usd,
        calls=state.calls_open,
        tokens=state.tokens_held,
        windows={window: state.stored(window) for window in MOVING},
    )


def _held(holds: Iterable[OpenHold]) -> dict[Scope, Held]:
    sums: dict[Scope, Held] = {}
    for hold in holds:
        for scope in hold.scopes():
            sums.setdefault(scope, Held()).add(hold, from_credit=scope.kind in hold.paid_by)
    return sums
