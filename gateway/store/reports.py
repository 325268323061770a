"""Reports: a projection of the ledger into cells by day, month and hour.

A cell is a field of a hash: `<id>|<model>|<kind>|<measure>` in the hash of one period and one axis (team, user
or key). Entries are read behind a checkpoint, summed here, and applied by one script together with the new
checkpoint, so each entry counts exactly once however many gateways project at the same time. Whoever asks for a
report brings the projection up to the ledger's end first: an answer is always exact.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.billing.budget import Calendar
from gateway.billing.ledger import RESOLUTIONS, Entry
from gateway.store.keys import Keys
from gateway.store.ledger import Ledger
from gateway.store.scripts import Argument, ScriptRunner, load, unavailable

AXES = ("team", "user", "key")
HOURS_KEPT_MS = 36 * 24 * 3600 * 1000
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Measures:
    """What a row of a report adds up. Costs are nano-USD."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    images: int = 0
    cost_nano_usd: int = 0
    estimated_nano_usd: int = 0

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

    async def cells(self, org: str, axis: str, grain: str, periods: Sequence[str]) -> list[Cell]:
        """All cells of the periods, exact up to the last entry written before the call."""
        await self.catch_up(org)
        keys = Keys(org)
        try:
            pipeline = self._redis.pipeline(transaction=False)
            for period in periods:
                pipeline.hgetall(keys.cells(grain, period, axis))
            hashes = await pipeline.execute()
        except RedisError as error:
            raise unavailable(error) from error
        return [cell for period, values in zip(periods, hashes, strict=True) for cell in _cells(period, values)]

    async def cells_between(self, org: str, axis: str, from_ms: int, to_ms: int, grain: str) -> list[Cell]:
        """The same for a half-open interval that is not made of whole days: read from the ledger's entries.

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
        keys, applied = Keys(org), 0
        try:
            checkpoint = cast(bytes, await self._redis.get(keys.checkpoint) or b"0-0")
        except RedisError as error:
            raise unavailable(error) from error
        while entries := await self._ledger.entries(org, after=checkpoint.decode(), count=_BATCH):
            deltas = self._deltas(keys, entries)
            last = entries[-1].id
            reply = await self._scripts.run(
                self._project, [keys.checkpoint, *deltas], _project_args(checkpoint, last, deltas)
            )
            if reply[0] == b"applied":
                applied += len(entries)
                checkpoint = last.encode()
            else:
                checkpoint = cast(bytes, reply[1])
        return applied

    def _deltas(self, keys: Keys, entries: Iterable[Entry]) -> "_Deltas":
        deltas: _Deltas = defaultdict(lambda: defaultdict(int))
        for entry in entries:
            measures = measures_of(entry)
            for axis in AXES:
                owner = _owner(entry, axis)
                for grain in ("day", "month", "hour") if axis == "team" else ("day", "month"):
                    period = period_of(self._calendar, entry.admitted_at_ms, grain)
                    cell = deltas[keys.cells(grain, period, axis)]
                    for measure in fields(measures):
                        amount = getattr(measures, measure.name)
                        if amount:
                            cell[f"{owner}|{entry.model}|{entry.kind}|{measure.name}"] += amount
        return deltas


_Deltas = dict[str, dict[str, int]]


def period_of(calendar: Calendar, instant_ms: int, grain: str) -> str:
    """The name of the day or month (local to the organisation) or hour (UTC) an instant belongs to."""
    if grain == "hour":
        return datetime.fromtimestamp(instant_ms / 1000, UTC).strftime("%Y-%m-%dT%HZ")
    day = calendar.date_at(instant_ms)
    return day.isoformat() if grain == "day" else day.strftime("%Y-%m")


def days_between(first: date, last: date) -> list[str]:
    """Names of all days from first to last, both included."""
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


def measures_of(entry: Entry) -> Measures:
    """What one entry adds to its cells. A request counts once, where its hold ends with a charge."""
    charged = entry.type in RESOLUTIONS and entry.type != "release"
    return Measures(
        requests=int(charged),
        prompt_tokens=entry.prompt_tokens if charged else 0,
        completion_tokens=entry.completion_tokens if charged else 0,
        images=_images(entry),
        cost_nano_usd=entry.cost_nano_usd,
        estimated_nano_usd=entry.estimated_nano_usd,
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
        ttl_ms = HOURS_KEPT_MS if ":cells:hour:" in key else 0
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
