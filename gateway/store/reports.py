"""Reports: a projection of the ledger into cells by day, month and hour.

Entries are read behind a checkpoint, summed (`store.projection`), and applied by one script together with the new
checkpoint, so each entry counts exactly once however many gateways project at the same time. They do so every few
seconds, whatever has come together since, for large batches cost each entry least; and whoever asks for a report brings
the projection up to the ledger's end first: an answer is always exact.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import replace
from typing import cast

from redis.asyncio import Redis

from gateway.billing.budget import Calendar
from gateway.billing.errors import InvalidRequest, LedgerUnavailable
from gateway.store.carried import trimmed_through
from gateway.store.cells import Cell, Measures, has_cells, measures_of, owners_of, read_cells
from gateway.store.keys import Keys
from gateway.store.ledger import Between, Ledger, go_on
from gateway.store.periods import Grain, Timetable, counts_at_ms, period_of, periods_within
from gateway.store.projection import Batch
from gateway.store.records import Fields
from gateway.store.scripts import ScriptRunner, TranslatedFaults, load

log = logging.getLogger("gateway.reports")

HOURS_REPORTED_MS = 35 * 24 * 3600 * 1000
"""How far back reports by the hour are exact."""
_BATCH = 600  # read, and summed, without a pause, and the calls on this loop wait meanwhile: some 2 ms
_CELLS_AT_ONCE = 500  # the same


class Reports:
    def __init__(self, redis: Redis, scripts: ScriptRunner, ledger: Ledger, calendar: Calendar) -> None:
        self._redis = redis
        self._scripts = scripts
        self._ledger = ledger
        self._calendar = calendar
        self._timetable = Timetable(calendar)
        self._project = load("project")

    async def over(
        self, org: str, axis: str, from_ms: int, to_ms: int, grain: str = "", ids: Collection[str] | None = None
    ) -> AsyncIterator[Cell]:
        """What a half-open interval adds up to, exact up to the last entry written before the call: of the owners
        named, or (None) of all on the axis.

        The cells' periods are of the `grain` asked for: hour, day or month; without one they mean nothing. Cells are
        read where some fit the interval's borders, else the ledger's entries. Hours are kept for HOURS_REPORTED_MS.
        """
        fitting = self._fitting(axis, from_ms, to_ms, grain)
        if fitting is None:
            async for cell in self.cells_between(org, axis, from_ms, to_ms, grain or "day", ids):
                yield cell
            return
        async for cell in self.cells(org, axis, *fitting, ids):
            yield _by_month(cell) if grain == "month" else cell

    def has_cells(self, axis: str, from_ms: int, to_ms: int, grain: str = "") -> bool:
        """Whether such a report is read from cells, however long ago it was, and not from the ledger's entries."""
        return self._fitting(axis, from_ms, to_ms, grain) is not None

    def _fitting(self, axis: str, from_ms: int, to_ms: int, grain: str) -> tuple[Grain, list[str]] | None:
        found = periods_within(self._calendar, from_ms, to_ms, grain)
        return found if found and has_cells(axis, found[0]) else None

    async def total(self, org: str, from_ms: int, to_ms: int, grain: str = "") -> Measures:
        """What a half-open interval adds up to for the whole organisation; `grain` hour: its borders are hours."""
        total = Measures()
        async for cell in self.over(org, "org", from_ms, to_ms, grain, (org,)):
            total += cell.measures
        return total

    async def cells(
        self, org: str, axis: str, grain: Grain, periods: Sequence[str], ids: Collection[str] | None = None
    ) -> AsyncIterator[Cell]:
        """All cells of the periods, exact up to the last entry written before the call."""
        await self.catch_up(org)
        async for cell in read_cells(self._redis, Keys(org), axis, grain, periods, ids):
            yield cell

    async def of_team(
        self, org: str, team: str, axis: str, ids: Collection[str], from_ms: int, to_ms: int, grain: str
    ) -> AsyncIterator[Cell]:
        """The same as `over` of the users or keys of one team (`ids`: all that it has), and under "" what the team has
        beside theirs: calls of keys without a user, adjustments of its own.

        Exact up to the checkpoint, if that was the same before and behind it.
        """
        fitting = self._fitting(axis, from_ms, to_ms, grain)
        if fitting is None:
            async for cell in self.cells_between(org, axis, from_ms, to_ms, grain or "day", team=team):
                yield cell
            return
        rest: dict[tuple[str, str, str], Measures] = defaultdict(Measures)
        async for cell in read_cells(self._redis, Keys(org), "team", *fitting, (team,)):
            rest[cell.period, cell.model, cell.kind] += cell.measures
        async for cell in read_cells(self._redis, Keys(org), axis, *fitting, ids):
            rest[cell.period, cell.model, cell.kind] -= cell.measures
            yield _by_month(cell) if grain == "month" else cell
        for (period, model, kind), measures in rest.items():
            if measures != Measures():
                cell = Cell(period, "", model, kind, measures)
                yield _by_month(cell) if grain == "month" else cell

    async def cells_between(
        self,
        org: str,
        axis: str,
        from_ms: int,
        to_ms: int,
        grain: str,
        ids: Collection[str] | None = None,
        team: str | None = None,
        between: Between = go_on,
    ) -> AsyncIterator[Cell]:
        """The same for any half-open interval: read from the ledger's entries, of one team if one is named. `between`
        is awaited now and then, while nothing is read.

        An entry counts at the instant its call was admitted, or later (ADR 0020), and is posted no earlier; nor is it
        posted after its month has closed. Raises InvalidRequest: entries of that time were trimmed.
        """
        if from_ms < await trimmed_through(self._redis, Keys(org)):
            raise InvalidRequest(
                "Entries of that time were archived and taken out; their reports are by whole days or months.",
                param="from",
            )
        sums: dict[tuple[str, str, str, str], Measures] = defaultdict(Measures)
        closed_ms = self._calendar.closes_at_ms(to_ms - 1)
        async for entry in self._ledger.all_entries(org, from_ms=from_ms, between=between):
            if entry.at_ms >= closed_ms:
                break
            at_ms = counts_at_ms(self._calendar, entry)
            counts = from_ms <= at_ms < to_ms and team in (None, entry.team)
            owners = owners_of(entry, axis) if counts else ()
            for owner in owners:
                if ids is None or owner in ids:
                    period = period_of(self._calendar, at_ms, grain)
                    sums[period, owner, entry.model, entry.kind] += measures_of(entry)
        for number, (place, measures) in enumerate(sums.items()):
            if measures != Measures():
                yield Cell(*place, measures)
            if number % _CELLS_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def catch_up(self, org: str) -> int:
        """Apply all entries that are not in the cells yet; returns how many this call applied."""
        applied = 0
        while (count := await self.apply_batch(org)) is not None:
            applied += count
        return applied

    async def checkpoint(self, org: str) -> bytes:
        """The last entry that is in the cells."""
        with TranslatedFaults():
            return cast(bytes, await self._redis.get(Keys(org).checkpoint) or b"0-0")

    async def apply_batch(self, org: str) -> int | None:
        """Apply the next entries; returns how many (0: somebody else did), or None where all are applied."""
        keys, applied = Keys(org), 0
        checkpoint = await self.checkpoint(org)
        rows = await self._rows_behind(checkpoint, keys)
        if not rows:
            return None
        while applied < len(rows):
            await asyncio.sleep(0)  # the calls on this loop have their turn between the steps
            batch = self._batch(keys, rows[applied:])
            await asyncio.sleep(0)
            reply = await self._scripts.run(self._project, *batch.command(checkpoint))
            if reply[0] != b"applied":
                break
            applied += batch.count
            checkpoint = batch.last
        return applied

    async def _rows_behind(self, checkpoint: bytes, keys: Keys) -> list[tuple[bytes, Fields]]:
        with TranslatedFaults():
            rows = await self._redis.xrange(keys.ledger, min=b"(" + checkpoint, max="+", count=_BATCH)
        return cast(list[tuple[bytes, Fields]], rows)

    def _batch(self, keys: Keys, rows: Iterable[tuple[bytes, Fields]]) -> Batch:
        """The first of these entries, as many as one batch takes."""
        batch = Batch(keys, self._calendar, self._timetable)
        for entry_id, fields in rows:
            batch.add(entry_id, fields)
            if batch.is_full:
                break
        return batch


def _by_month(cell: Cell) -> Cell:
    return replace(cell, period=cell.period[:7])


class Projector:
    """Projects in the background, so that the first report after much traffic has little left to read."""

    def __init__(self, reports: Reports, orgs: Sequence[str], interval_s: float = 5.0) -> None:
        self._reports = reports
        self._orgs = orgs
        self._interval_s = interval_s

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set."""
        while not stop.is_set():
            for org in self._orgs:
                await self._catch_up(org, stop)
            try:
                await asyncio.wait_for(stop.wait(), self._interval_s)
            except TimeoutError:
                continue

    async def _catch_up(self, org: str, stop: asyncio.Event) -> None:
        try:
            while not stop.is_set() and await self._reports.apply_batch(org):
                pass  # until all are applied, or another gateway is about it: two at once would both sum the same
        except LedgerUnavailable:
            pass  # logged where it was found; the entries wait
        except Exception:  # an entry that cannot be projected is shown by the report that needs it, and ends no gateway
            log.exception("projecting the ledger of %s failed", org)
