"""Report cells (ADR 0018): what they add up, where they lie, and reading them.

A sheet is a hash with all cells of one owner for some time: of the grain day it is a month's, of the grain month a
year's, of the grain hour a day's. Its fields are `<period>|<model>|<kind>|<measure>`. Beside the sheets of one time
and axis lies the set of their owners. So what one key spent costs what that key has, however many others there are.

Whoever reads many sheets gives the calls on this loop their turn between any two.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields

from redis.asyncio import Redis

from gateway.billing.budget import Calendar
from gateway.billing.ledger import RESOLUTIONS, Entry
from gateway.billing.usage import Usage
from gateway.store.keys import Keys
from gateway.store.periods import Grain, counts_at_ms, period_of
from gateway.store.scripts import TranslatedFaults
from gateway.store.topology import one_master

AXES = ("org", "team", "user", "key")
AXES_OF: Mapping[Grain, tuple[str, ...]] = {"month": AXES, "day": AXES, "hour": ("org", "team")}
TAG = "tag"
"""An axis apart: an entry has any number of owners on it, and its sheets bound how many of them there are."""
TAG_GRAINS: tuple[Grain, ...] = ("month", "day")
SHEET_CHARS: Mapping[Grain, int] = {"month": len("2026"), "day": len("2026-11"), "hour": len("2026-11-21")}
_SHEETS_AT_ONCE = 16


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
        # Written out: a report adds tens of thousands, and by the names of the fields each takes five times as long.
        return Measures(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.images + other.images,
            self.cost_nano_usd + other.cost_nano_usd,
            self.estimated_nano_usd + other.estimated_nano_usd,
            self.flagged + other.flagged,
        )

    def __sub__(self, other: "Measures") -> "Measures":
        return self + Measures(*(-getattr(other, each.name) for each in fields(other)))


@dataclass(frozen=True, slots=True)
class Cell:
    """One summed cell. `period` is like 2026-11-21, 2026-11 or 2026-11-21T20Z; `id` is on the axis asked for."""

    period: str
    id: str
    model: str
    kind: str
    measures: Measures


@dataclass(frozen=True, slots=True)
class Deltas:
    """What a batch of entries adds, by Redis key: amounts to the fields of sheets, names to the sets of owners."""

    sheets: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    owners: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def deltas_of(keys: Keys, calendar: Calendar, entries: Iterable[Entry]) -> Deltas:
    """Sum entries into the cells of the periods they count in (ADR 0020): the rule, one entry at a time.

    `store.projection` is the same for many entries at a time. Each tag has sheets of its own here, however many.
    """
    deltas = Deltas()
    for entry in entries:
        measures = measures_of(entry)
        amounts = [(f.name, getattr(measures, f.name)) for f in fields(measures) if getattr(measures, f.name)]
        at_ms = counts_at_ms(calendar, entry)
        for grain, axes in AXES_OF.items() if amounts else ():
            period = period_of(calendar, at_ms, grain)
            sheet = period[: SHEET_CHARS[grain]]
            places = [(axis, owner_of(entry, axis)) for axis in axes]
            places += [(TAG, tag) for tag in entry.tags if grain in TAG_GRAINS]
            for axis, owner in places:
                deltas.owners[keys.owners(grain, sheet, axis)].add(owner)
                cells = deltas.sheets[keys.sheet(grain, sheet, axis, owner)]
                for name, amount in amounts:
                    cells[f"{period}|{entry.model}|{entry.kind}|{name}"] += amount
    return deltas


async def read_cells(
    redis: Redis, keys: Keys, axis: str, grain: Grain, periods: Sequence[str], ids: Collection[str] | None
) -> AsyncIterator[Cell]:
    """The cells of some periods, of the owners named or (None) of all there are, sheet by sheet."""
    wanted = frozenset(periods)
    for sheet in dict.fromkeys(period[: SHEET_CHARS[grain]] for period in periods):
        owners = sorted(await _owners(redis, keys, keys.owners(grain, sheet, axis)) if ids is None else ids)
        for begin in range(0, len(owners), _SHEETS_AT_ONCE):
            piece = owners[begin : begin + _SHEETS_AT_ONCE]
            with TranslatedFaults():
                pipeline = redis.pipeline(transaction=False)
                for owner in piece:
                    pipeline.hgetall(keys.sheet(grain, sheet, axis, owner))
                hashes = await pipeline.execute()
            for owner, values in zip(piece, hashes, strict=True):
                for cell in _cells(owner, values, wanted):
                    yield cell
                await asyncio.sleep(0)


async def _owners(redis: Redis, keys: Keys, name: str) -> set[str]:
    with TranslatedFaults():
        async with one_master(redis, keys.nothing):
            return {member.decode() async for member in redis.sscan_iter(name, count=1000)}


def _cells(owner: str, values: Mapping[bytes, bytes], periods: Collection[str]) -> Iterator[Cell]:
    sums: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    for name, amount in values.items():
        period, model, kind, measure = name.decode().split("|")
        if period in periods:
            sums[period, model, kind][measure] = int(amount)
    for (period, model, kind), measures in sums.items():
        # What came to nothing is not always written: not if the entries that cancel out came in one batch.
        if any(measures.values()):
            yield Cell(period, owner, model, kind, Measures(**measures))


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


def has_cells(axis: str, grain: Grain) -> bool:
    """Whether there are cells of that grain on an axis."""
    return grain in TAG_GRAINS if axis == TAG else axis in AXES_OF[grain]


def owners_of(entry: Entry, axis: str) -> tuple[str, ...]:
    """Everybody whose cells an entry adds to: one on each axis, but for tags."""
    return entry.tags if axis == TAG else (owner_of(entry, axis),)


def owner_of(entry: Entry, axis: str) -> str:
    """Whose cell an entry adds to; "" for a call whose key belongs to no user."""
    owner = {"org": entry.org, "team": entry.team, "user": entry.user, "key": entry.key}[axis]
    return owner or ""


def _images(entry: Entry) -> int:
    if entry.kind != "image" or entry.type == "release":
        return 0
    return -entry.units if entry.type == "refund" else entry.units
