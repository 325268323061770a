"""Checks the report cells while they are written: each sheet, as of one entry, against the sum of the entries."""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import cast

from redis.asyncio import Redis

from gateway.billing.audit import Difference
from gateway.billing.budget import Calendar
from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import OTHER_TAGS
from gateway.store.carried import trimmed_through
from gateway.store.cells import TAG, deltas_of
from gateway.store.keys import Keys
from gateway.store.ledger import Ledger
from gateway.store.periods import period_of
from gateway.store.reports import HOURS_REPORTED_MS, Reports
from gateway.store.scripts import TranslatedFaults
from gateway.store.topology import one_master

_PAGE = 1000


class CellAudit:
    """Checks one organisation's cells. Periods that trimmed entries belong to, and hours too old, are left out."""

    def __init__(self, redis: Redis, ledger: Ledger, reports: Reports, calendar: Calendar, org: str) -> None:
        self._redis = redis
        self._ledger = ledger
        self._reports = reports
        self._calendar = calendar
        self._org = org
        self._keys = Keys(org)
        self._expected: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._until = "0-0"

    async def differences(self, now_ms: int) -> AsyncIterator[Difference]:
        """Every amount of every cell that is not the sum of its entries. Raises LedgerUnavailable."""
        await self._catch_up()
        through_ms = await trimmed_through(self._redis, self._keys)
        newest_left_out = {
            "day": period_of(self._calendar, through_ms, "day"),
            "month": period_of(self._calendar, through_ms, "month"),
            "hour": period_of(self._calendar, max(through_ms, now_ms - HOURS_REPORTED_MS), "hour"),
        }
        await self._count_until(await self._checkpoint())
        names = {*self._expected, *[name async for name in self._stored_sheets()]}
        names |= {_beside(name, OTHER_TAGS) for name in names if _place_of(name)[2] == TAG}
        for name in sorted(names):
            checkpoint, stored, own_tags = await self._sheet(name)
            await self._count_until(checkpoint)
            left_out = newest_left_out[_place_of(name)[0]]
            for found in _compared(name, stored, self._expected_in(name, own_tags)):
                if found.what.split("|")[0] > left_out:
                    yield found

    async def _catch_up(self) -> None:
        """Count as much as there is. A full Redis takes no more cells: those it has are checked all the same."""
        try:
            await self._reports.catch_up(self._org)
        except LedgerUnavailable as error:
            if error.maybe_applied:
                raise

    async def _checkpoint(self) -> str:
        with TranslatedFaults():
            return cast(bytes, await self._redis.get(self._keys.checkpoint) or b"0-0").decode()

    async def _stored_sheets(self) -> AsyncIterator[str]:
        with TranslatedFaults():
            async with one_master(self._redis, self._keys.nothing):
                async for name in self._redis.scan_iter(match=f"{self._keys.sheets}*", count=_PAGE):
                    yield name.decode()

    async def _sheet(self, name: str) -> tuple[str, dict[str, int], set[str]]:
        """The entry up to which a sheet has been written; the sheet; and where it is a tag's, which tags have one of
        their own: this one if it has, or for the sheet of all others every one that has. As of one instant.
        """
        grain, sheet, axis, owner = _place_of(name)
        tags = self._keys.owners(grain, sheet, axis)
        with TranslatedFaults():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.get(self._keys.checkpoint)
            pipeline.hgetall(name)
            if owner == OTHER_TAGS and axis == TAG:
                pipeline.smembers(tags)
            else:
                pipeline.sismember(tags, owner)
            checkpoint, values, found = await pipeline.execute()
        amounts = {field.decode(): int(amount) for field, amount in values.items()}
        own_tags = {tag.decode() for tag in found} if isinstance(found, set) else {owner} if found else set()
        return (checkpoint or b"0-0").decode(), amounts, own_tags

    def _expected_in(self, name: str, own_tags: AbstractSet[str]) -> Mapping[str, int]:
        """What a sheet should have; of tags that have none of their own nothing, for that of all others has it."""
        _, _, axis, owner = _place_of(name)
        if axis != TAG or (owner != OTHER_TAGS and owner in own_tags):
            return self._expected.get(name, {})
        sums: dict[str, int] = defaultdict(int)
        if owner == OTHER_TAGS:
            beside = _beside(name, "")
            tags = {each.removeprefix(beside) for each in self._expected if each.startswith(beside)}
            for tag in tags - own_tags:
                for field, amount in self._expected[beside + tag].items():
                    sums[field] += amount
        return sums

    async def _count_until(self, checkpoint: str) -> None:
        """Bring what is expected up to an entry. Checkpoints only move on."""
        while self._until != checkpoint:
            page = await self._ledger.entries(self._org, after=self._until, count=_PAGE)
            end = next((number for number, entry in enumerate(page, 1) if entry.id == checkpoint), len(page))
            for name, cells in deltas_of(self._keys, self._calendar, page[:end]).sheets.items():
                for field, amount in cells.items():
                    self._expected[name][field] += amount
            self._until = page[end - 1].id if page else checkpoint


def _place_of(name: str) -> tuple[str, str, str, str]:
    """Grain, time, axis and owner of a sheet."""
    grain, sheet, axis, owner = name.split(":cells:")[1].split(":", 3)
    return grain, sheet, axis, owner


def _beside(name: str, owner: str) -> str:
    """The sheet of another owner at the same place."""
    return name.removesuffix(_place_of(name)[3]) + owner


def _compared(name: str, stored: Mapping[str, int], expected: Mapping[str, int]) -> Iterator[Difference]:
    grain, sheet, axis, owner = _place_of(name)
    for field in sorted({*stored, *expected}):
        have, should = stored.get(field, 0), expected.get(field, 0)
        if have != should:
            yield Difference(f"report of {axis} {owner} by {grain}, {sheet}", field, have, should, sheet=name)
