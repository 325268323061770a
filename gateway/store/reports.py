"""Reports: a projection of the ledger into cells by day, month and hour.

A cell is a field of a hash: `<id>|<model>|<kind>|<measure>` in the hash of one period and one axis (team, user
or key). Entries are read behind a checkpoint, summed here, and applied by one script together with the new
checkpoint, so each entry counts exactly once however many gateways project at the same time. They do so every few
seconds, and whoever asks for a report brings the projection up to the ledger's end first: an answer is always exact.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from typing import cast

from redis.asyncio import Redis

from gateway.billing.budget import Calendar
from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import RESOLUTIONS, Entry
from gateway.billing.usage import Usage
from gateway.store.keys import Keys
from gateway.store.ledger import Ledger
from gateway.store.scripts import Argument, ScriptRunner, TranslatedFaults, load

log = logging.getLogger("gateway.reports")

AXES = ("team", "user", "key")
HOURS_REPORTED_MS = 35 * 24 * 3600 * 1000
"""How far back reports by the hour are exact."""
_HOURS_KEPT_MS = 36 * 24 * 3600 * 1000
HOUR_MS = 3600 * 1000
_BATCH = 100  # summed without a pause, and the calls on this loop wait meanwhile


@dataclass(frozen=True, slots=True)
class Measures:
    """What a row of a report adds up. Costs are nano-USD; `flagged` counts the entries that carry a flag."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    images: int = 0
    cost_nano_usd: int = 0
    estimated_nano_usd: int = 0
    flagged: int = 0

    def __add__(self, other: "Measures") -> "Measures":
        return Measures(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Cell:
    """One summed cell. `period` is like 2026-11-21, 2026-11 or 2026-11-21T20Z; `id` is on the axis asked for."""

    period: str
    id: str
    model: str
    kind: str
    measures: Measures


class Reports:
    def __init__(self, redis: Redis, scripts: ScriptRunner, ledger: Ledger, calendar: Calendar) -> None:
        self._redis = redis
        self._scripts = scripts
        self._ledger = ledger
        self._calendar = calendar
        self._project = load("project")

    async def over(self, org: str, axis: str, from_ms: int, to_ms: int, grain: str = "") -> list[Cell]:
        """What a half-open interval adds up to, exact up to the last entry written before the call.

        The cells' periods are of the `grain` asked for: hour, day or month; without one they mean nothing. Cells are
        read where some fit the interval's borders, else the ledger's entries. Hours are kept for HOURS_REPORTED_MS.
        """
        fitting = periods_within(self._calendar, from_ms, to_ms, grain)
        if fitting is None or (fitting[0] == "hour" and axis != "team"):
            return await self.cells_between(org, axis, from_ms, to_ms, grain or "day")
        cells = await self.cells(org, axis, *fitting)
        return [_by_month(cell) for cell in cells] if grain == "month" else cells

    async def cells(self, org: str, axis: str, grain: str, periods: Sequence[str]) -> list[Cell]:
        """All cells of the periods, exact up to the last entry written before the call."""
        await self.catch_up(org)
        keys = Keys(org)
        with TranslatedFaults():
            pipeline = self._redis.pipeline(transaction=False)
            for period in periods:
                pipeline.hgetall(keys.cells(grain, period, axis))
            hashes = await pipeline.execute()
        return [cell for period, values in zip(periods, hashes, strict=True) for cell in _cells(period, values)]

    async def cells_between(self, org: str, axis: str, from_ms: int, to_ms: int, grain: str) -> list[Cell]:
        """The same for any half-open interval: read from the ledger's entries.

        An entry belongs to the instant its call was admitted, and is posted no earlier.
        """
        sums: dict[tuple[str, str, str, str], Measures] = defaultdict(Measures)
        async for entry in self._ledger.all_entries(org, from_ms=from_ms):
            if from_ms <= entry.admitted_at_ms < to_ms:
                period = period_of(self._calendar, entry.admitted_at_ms, grain)
                sums[period, _owner(entry, axis), entry.model, entry.kind] += measures_of(entry)
        return [Cell(*place, measures) for place, measures in sums.items() if measures != Measures()]

    async def catch_up(self, org: str) -> int:
        """Apply all entries that are not in the cells yet; returns how many this call applied."""
        applied = 0
        while (count := await self.apply_batch(org)) is not None:
            applied += count
        return applied

    async def apply_batch(self, org: str) -> int | None:
        """Apply the next entries; returns how many (0: somebody else did), or None where all are applied."""
        keys = Keys(org)
        with TranslatedFaults():
            checkpoint = cast(bytes, await self._redis.get(keys.checkpoint) or b"0-0")
        entries = await self._ledger.entries(org, after=checkpoint.decode(), count=_BATCH)
        if not entries:
            return None
        deltas = self._deltas(keys, entries)
        args = _project_args(checkpoint, entries[-1].id, deltas)
        reply = await self._scripts.run(self._project, [keys.checkpoint, *deltas], args)
        return len(entries) if reply[0] == b"applied" else 0

    def _deltas(self, keys: Keys, entries: Iterable[Entry]) -> "_Deltas":
        deltas: _Deltas = defaultdict(lambda: defaultdict(int))
        for entry in entries:
            measures = measures_of(entry)
            amounts = [(f.name, getattr(measures, f.name)) for f in fields(measures) if getattr(measures, f.name)]
            for grain, period in _periods_at(self._calendar, entry.admitted_at_ms).items():
                for axis in AXES if grain != "hour" else ("team",):
                    cell = deltas[keys.cells(grain, period, axis)]
                    for name, amount in amounts:
                        cell[f"{_owner(entry, axis)}|{entry.model}|{entry.kind}|{name}"] += amount
        return deltas


_Deltas = dict[str, dict[str, int]]


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
            count: int | None = 0
            while count is not None and not stop.is_set():
                count = await self._reports.apply_batch(org)
        except LedgerUnavailable:
            pass  # logged where it was found; the entries wait
        except Exception:  # an entry that cannot be projected is shown by the report that needs it, and ends no gateway
            log.exception("projecting the ledger of %s failed", org)


def period_of(calendar: Calendar, instant_ms: int, grain: str) -> str:
    """The name of the day or month (local to the organisation) or hour (UTC) an instant belongs to."""
    return _periods_at(calendar, instant_ms)[grain]


def _periods_at(calendar: Calendar, instant_ms: int) -> dict[str, str]:
    day = calendar.date_at(instant_ms).isoformat()
    return {"day": day, "month": day[:7], "hour": _hour_name(instant_ms)}


def periods_within(calendar: Calendar, from_ms: int, to_ms: int, grain: str) -> tuple[str, list[str]] | None:
    """The cells that make up an interval exactly: their grain, no coarser than the one asked for, and their names.

    None: its borders are within hours (grain hour) or days, so no cells do.
    """
    if grain == "hour":
        whole_hours = from_ms % HOUR_MS == to_ms % HOUR_MS == 0
        return ("hour", [_hour_name(at_ms) for at_ms in range(from_ms, to_ms, HOUR_MS)]) if whole_hours else None
    first, after = calendar.date_at(from_ms), calendar.date_at(to_ms - 1) + timedelta(days=1)
    if calendar.midnight_ms(first) != from_ms or calendar.midnight_ms(after) != to_ms:
        return None
    days = days_between(first, after - timedelta(days=1))
    if grain != "day" and first.day == after.day == 1:
        return "month", list(dict.fromkeys(day[:7] for day in days))
    return "day", days


def days_between(first: date, last: date) -> list[str]:
    """Names of all days from first to last, both included."""
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


def _hour_name(instant_ms: int) -> str:
    return datetime.fromtimestamp(instant_ms // 1000, UTC).strftime("%Y-%m-%dT%HZ")


def _by_month(cell: Cell) -> Cell:
    return replace(cell, period=cell.period[:7])


def measures_of(entry: Entry) -> Measures:
    """What one entry adds to its cells: of a late capture, the difference to what it replaces.

    A request counts once, where its hold ends with a charge.
    """
    charged = entry.type in RESOLUTIONS and entry.type != "release"
    counted = charged or entry.type == "late_capture"
    before = entry.replaces.usage if entry.replaces else Usage()
    return Measures(
        requests=int(charged),
        prompt_tokens=entry.prompt_tokens - before.prompt_tokens if counted else 0,
        completion_tokens=entry.completion_tokens - before.completion_tokens if counted else 0,
        images=_images(entry) - (before.units if entry.kind == "image" else 0),
        cost_nano_usd=entry.cost_nano_usd,
        estimated_nano_usd=entry.estimated_nano_usd,
        flagged=int(bool(entry.flags)),
    )


def _images(entry: Entry) -> int:
    if entry.kind != "image" or entry.type == "release":
        return 0
    return -entry.units if entry.type == "refund" else entry.units


def _owner(entry: Entry, axis: str) -> str:
    """Whose cell an entry adds to; "" for a call whose key belongs to no user."""
    owner = {"team": entry.team, "user": entry.user, "key": entry.key}[axis]
    return owner or ""


def _project_args(checkpoint: bytes, last: str, deltas: _Deltas) -> list[Argument]:
    args: list[Argument] = [checkpoint, last]
    for key, cell in deltas.items():
        ttl_ms = _HOURS_KEPT_MS if ":cells:hour:" in key else 0
        args += [len(cell), ttl_ms]
        for name, amount in cell.items():
            args += [name, amount]
    return args


def _cells(period: str, values: dict[bytes, bytes]) -> list[Cell]:
    sums: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    for name, amount in values.items():
        owner, model, kind, measure = name.decode().split("|")
        sums[owner, model, kind][measure] = int(amount)
    return [Cell(period, *place, Measures(**measures)) for place, measures in sums.items()]
