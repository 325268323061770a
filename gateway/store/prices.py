"""The price schedule in Redis, which all gateways share, and the lists that were ever in force, by their versions.

The schedule is a stream that only grows. Beside it stands which list is in force until when; admission reads that by
Redis's clock, so the instant a price changes is one for all gateways. What a gateway believes is corrected by
`StalePrice`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from gateway.billing.errors import LedgerUnavailable
from gateway.billing.price_schedule import DatedPrice, EnteredPrice, PriceChange, PriceSchedule
from gateway.billing.prices import ModelPrice, PriceList
from gateway.store.keys import Keys
from gateway.store.ledger import TOMBSTONE_MS
from gateway.store.scripts import Argument, Reply, ScriptRunner, TranslatedFaults, load

PRICE_FILE = "price file"
"""Author of what the price file brought."""

_TRIES = 20
_NEVER_MS = 2**53 - 1
_Row = tuple[bytes, dict[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Prices:
    """Everything known of prices, read at `now_ms`, Redis's clock; `entries` are those of `schedule`."""

    entries: Sequence[EnteredPrice]
    schedule: PriceSchedule
    now_ms: int
    lists: bytes | None
    """Which list is in force until when, as it stands in Redis."""


@dataclass(frozen=True, slots=True)
class NotPriced:
    """Why a price was not entered: its instant is `past` (now is `now_ms`), or its id stands for another price."""

    reason: str
    now_ms: int = 0


class PriceBooks:
    """The price schedules of all organisations, and the lists that this process has met."""

    def __init__(self, redis: Redis, scripts: ScriptRunner) -> None:
        self._redis = redis
        self._scripts = scripts
        self._put = load("put_prices")
        self._lists: dict[tuple[str, str], PriceList] = {}
        self._latest: dict[str, PriceList] = {}

    def latest(self, org: str) -> PriceList:
        """The list in force as far as this process was told; admission says if another one is."""
        return self._latest[org]

    async def turn_to(self, org: str, version: str) -> PriceList:
        """Go by another list from now on. Raises LedgerUnavailable: also where there is no such list."""
        prices = await self.list_of(org, version)
        if prices is None:
            raise LedgerUnavailable("The ledger has lost its prices; start a gateway anew: it enters its price file.")
        self._latest[org] = prices
        return prices

    async def list_of(self, org: str, version: str) -> PriceList | None:
        """The list of a version that was ever in force; None where there is none. Raises LedgerUnavailable."""
        known = self._lists.get((org, version))
        if known is None:
            with TranslatedFaults():
                canonical = cast(bytes | None, await self._redis.get(Keys(org).prices(version)))
            if canonical is None:
                return None
            known = self._lists[org, version] = PriceList.of_canonical(canonical.decode())
        return known

    async def read(self, org: str) -> Prices:
        """The whole schedule and Redis's clock at one instant. Raises LedgerUnavailable."""
        keys = Keys(org)
        with TranslatedFaults():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.xrange(keys.price_schedule)
            pipeline.get(keys.price_lists)
            pipeline.time()
            rows, lists, (seconds, micros) = await pipeline.execute()
        entries = [_entry(row) for row in cast(list[_Row], rows)]
        schedule = PriceSchedule(entry.dated for entry in entries)
        return Prices(entries, schedule, int(seconds) * 1000 + int(micros) // 1000, lists)

    async def seed(self, org: str, listed: PriceSchedule) -> None:
        """Enter what the price file adds, and go by the list in force.

        Raises PriceContradiction: the file and the books differ. LedgerUnavailable.
        """
        for _ in range(_TRIES):
            books = await self.read(org)
            added = books.schedule.lacks(listed, books.now_ms)
            if books.lists is not None and not added:
                break
            entries = [(dated, "", PRICE_FILE) for dated in added]
            if (await self._enter(org, books, entries))[0] == b"done":
                break
        else:
            raise _ever_changing()
        books = await self.read(org)
        await self.turn_to(org, books.schedule.at(books.now_ms).version)

    async def enter(self, org: str, change: PriceChange) -> tuple[EnteredPrice, bool] | NotPriced:
        """Enter a price that is to come, once for its id; also whether it was entered before. Or say why not.

        What became of an id is remembered for TOMBSTONE_MS.

        Raises PriceListError: it is no right price. LedgerUnavailable: no answer; send it again with the same id.
        """
        for _ in range(_TRIES):
            books = await self.read(org)
            dated = books.schedule.dated(change)
            reply = await self._enter(org, books, [(dated, change.note, change.author)], change)
            match reply:
                case [b"done" | b"repeated" as outcome, [bytes(entry_id), list(flat)]]:
                    fields = dict(zip(flat[::2], flat[1::2], strict=True))
                    return _entry((entry_id, fields)), outcome == b"repeated"
                case [b"past", int(now_ms)]:
                    return NotPriced("past", now_ms)
                case [b"conflict"]:
                    return NotPriced("conflict")
        raise _ever_changing()

    async def _enter(
        self, org: str, books: Prices, entries: Sequence[tuple[DatedPrice, str, str]], change: PriceChange | None = None
    ) -> Reply:
        keys = Keys(org)
        schedule = PriceSchedule([*books.schedule.entered, *(dated for dated, _, _ in entries)])
        dated_lists = schedule.from_now_on(books.now_ms)
        # What a first start brings along of the past is kept as well: books that were built again name those lists.
        first_ms = min((dated.from_ms for dated, _, _ in entries), default=books.now_ms)
        kept = [*schedule.since(first_ms), *(prices for _, prices in dated_lists)]
        lists = {prices.version: prices.canonical for prices in kept}
        ends = [from_ms for from_ms, _ in dated_lists[1:]] + [_NEVER_MS]
        in_force = "".join(
            f"{end_ms} {prices.version}\n" for end_ms, (_, prices) in zip(ends, dated_lists, strict=True)
        )
        last = books.entries[-1].id if books.entries else ""
        args: list[Argument] = [
            _digest(change) if change else "",
            TOMBSTONE_MS,
            last,
            change.from_ms if change else "",
            in_force,
            *lists.values(),
        ]
        for dated, note, author in entries:
            price = json.dumps(dated.price.fields(), separators=(",", ":")) if dated.price else ""
            args += [dated.model, dated.kind, dated.from_ms, price, note, author]
        receipt = keys.receipt(change.id) if change else keys.price_lists
        names = [receipt, keys.price_schedule, keys.price_lists, *map(keys.prices, lists)]
        return await self._scripts.run(self._put, names, args)


def _digest(change: PriceChange) -> str:
    """Equal for equal wishes."""
    row = None if change.row is None else sorted(change.row.items())
    asked = [change.model, change.kind, change.from_ms, row, change.note]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _entry(row: _Row) -> EnteredPrice:
    entry_id, fields = row[0].decode(), row[1]
    price = json.loads(fields[b"price"]) if fields[b"price"] else None
    dated = DatedPrice(
        model=fields[b"model"].decode(),
        kind=fields[b"kind"].decode(),
        from_ms=int(fields[b"from"]),
        price=ModelPrice(**price) if price else None,
    )
    at_ms = int(entry_id.partition("-")[0])
    return EnteredPrice(entry_id, at_ms, dated, fields[b"note"].decode(), fields[b"author"].decode())


def _ever_changing() -> LedgerUnavailable:
    return LedgerUnavailable("Others are changing prices right now, and were faster each time; try again.")
