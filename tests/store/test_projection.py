"""The projection, which is written to be fast, against the plain sum of the same entries, whatever they are."""

import asyncio
import json
import random
from collections.abc import Awaitable
from datetime import datetime
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from gateway.billing.budget import Calendar
from gateway.billing.ledger import RELEASE, Entry, EntryType, Posting
from gateway.billing.usage import Usage
from gateway.store.cells import Measures, deltas_of, measures_of
from gateway.store.keys import Keys
from gateway.store.periods import HOUR_MS, Timetable
from gateway.store.projection import Batch
from gateway.store.records import UnreadableEntry, entry_of
from gateway.store.reports import Projector, Reports
from gateway.store.scripts import load
from tests.store.bench import BY_DESK, BY_NOTEBOOK, BY_ROBOT, ORG, RED, Bench, capture

Fields = dict[bytes, bytes]
TYPES: tuple[EntryType, ...] = ("capture", "release", "expire", "late_capture", "refund", "credit", "adjustment")
NEW_YEAR_MS = round(datetime.fromisoformat("2027-01-01T00:00+05:45").timestamp() * 1000)


def fields_of(entry_type: str = "capture", at_ms: int = NEW_YEAR_MS, **changes: object) -> Fields:
    """One entry as a script writes it."""
    facts = {
        "request_id": "r",
        "org": ORG,
        "team": "red",
        "user": "an",
        "key": "notebook",
        "kind": "chat",
        "model": "gpt-4o",
        "price_version": "v1",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "units": 0,
        "usage_source": "upstream",
        "flags": [],
        **changes,
    }
    numbers = {"type": entry_type, "hold": "h", "cost": 30, "at": at_ms, "admitted": at_ms, "from_credit": 0}
    texts = {name: str(value) for name, value in numbers.items()} | {"entry": json.dumps(facts)}
    return {name.encode(): value.encode() for name, value in texts.items()}


def any_entry(chance: random.Random) -> Fields:
    """Any of what may stand in a ledger, around the turn of a year, some of it posted when its month was closed."""
    posted_ms = NEW_YEAR_MS + chance.choice((0, 1, 40, 90)) * 24 * HOUR_MS + chance.randrange(-2 * HOUR_MS, 2 * HOUR_MS)
    entry = fields_of(
        chance.choice(TYPES),
        posted_ms,
        team=chance.choice(("red", "blue", "")),
        user=chance.choice(("an", "binh", "", None)),
        key=chance.choice(("notebook", "robot", "")),
        kind=chance.choice(("chat", "image", "")),
        model=chance.choice(("gpt-4o", "realvision")),
        prompt_tokens=chance.randrange(3),
        units=chance.randrange(3),
        flags=chance.choice(([], [], ["estimated"], ["overrun"])),
        **chance.choice(({}, {}, {"tags": ["env=prod"]}, {"tags": ["env=prod", "project=fox"]})),
    )
    entry[b"admitted"] = str(posted_ms - chance.choice((0, HOUR_MS, 60 * 24 * HOUR_MS))).encode()
    entry[b"cost"] = str(chance.choice((-7, 0, 7, 2**52))).encode()
    return entry | ({b"replaces": b"3 1 2 1"} if entry[b"type"] == b"late_capture" else {})


def write(bench: Bench, entries: list[Fields]) -> None:
    async def written() -> None:
        pipeline = bench.redis.pipeline(transaction=False)
        for fields in entries:
            pipeline.xadd(bench.keys.ledger, cast(Any, fields))
        await pipeline.execute()

    bench.run(written())


@pytest.mark.parametrize("sums_max", [1, 3, 200])
def test_cells_are_the_plain_sum_of_whatever_entries(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, sums_max: int
) -> None:
    """In one batch or many, whose borders fall anywhere; in a zone whose days begin at a quarter of an hour."""
    monkeypatch.setattr("gateway.store.projection._SUMS_MAX", sums_max)
    monkeypatch.setattr("gateway.store.reports._BATCH", 70)
    calendar = Calendar(ZoneInfo("Asia/Kathmandu"))
    chance = random.Random(20261122)  # noqa: S311  # a ledger that repeats, no secret
    write(bench, [any_entry(chance) for _ in range(300)])
    reports = Reports(bench.redis, bench.scripts, bench.ledger, calendar)
    assert 300 == bench.run(reports.catch_up(ORG))
    assert_stored(bench, calendar, bench.entries())


def test_cells_are_the_plain_sum_of_what_calls_leave(bench: Bench) -> None:
    """Entries that the scripts themselves wrote: ended in every way, expired and late, refunded, made by hand."""
    for who, posting in (
        (BY_NOTEBOOK, capture(30)),
        (BY_ROBOT, capture(40, "estimated")),
        (BY_DESK, RELEASE),
        (BY_DESK, Posting("capture", 9, Usage(prompt_tokens=3, units=1), flags=("overrun",))),
    ):
        request = bench.call(100, who)
        bench.admit(request)
        bench.settle(request, posting)
    late = bench.call(100)
    bench.admit(late)
    bench.lapse(late)
    (hold,) = bench.run(bench.ledger.open_holds(ORG))
    bench.run(bench.leases.expire(hold))
    bench.settle(late, capture(60))
    bench.refund(bench.submitted_job(90))
    bench.adjust(RED, 70)
    bench.prepaid(RED, 500)
    entries = bench.entries()
    assert {"capture", "release", "expire", "late_capture", "refund", "adjustment", "credit"} == {
        entry.type for entry in entries
    }
    assert len(entries) == bench.run(bench.reports.catch_up(ORG))
    assert_stored(bench, bench.calendar, entries)


def assert_stored(bench: Bench, calendar: Calendar, entries: list[Entry]) -> None:
    """Redis has the sheets and owners of these entries and none else; amounts that came to nothing may be left out."""
    expected = deltas_of(bench.keys, calendar, entries)

    async def stored() -> tuple[dict[str, dict[str, int]], dict[str, set[str]]]:
        sheets, owners = {}, {}
        async for name in bench.redis.scan_iter(match=f"{bench.keys.sheets}*"):
            values = await cast(Awaitable[dict[bytes, bytes]], bench.redis.hgetall(name))
            sheets[name.decode()] = {field.decode(): int(amount) for field, amount in values.items()}
        async for name in bench.redis.scan_iter(match=f"{bench.keys.whole('owners:')}*"):
            members = await cast(Awaitable[set[bytes]], bench.redis.smembers(name))
            owners[name.decode()] = {member.decode() for member in members}
        return sheets, owners

    sheets, owners = bench.run(stored())
    assert without_zeros(expected.sheets) == without_zeros(sheets)
    assert expected.owners == owners


def without_zeros(sheets: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    left = {name: {field: amount for field, amount in cells.items() if amount} for name, cells in sheets.items()}
    return {name: cells for name, cells in left.items() if cells}


def test_what_is_kept_by_the_hour_is_forgotten(bench: Bench) -> None:
    """After 36 days, sheets and owners; days and months stay for ever."""
    request = bench.call(100)
    bench.admit(request)
    bench.settle(request, capture(30))
    bench.run(bench.reports.catch_up(ORG))

    async def kept_ms() -> dict[bool, set[int]]:
        found: dict[bool, set[int]] = {True: set(), False: set()}
        for part in ("cells", "owners"):
            async for name in bench.redis.scan_iter(match=f"{bench.keys.whole(part)}:*"):
                found[b":hour:" in name].add(await bench.redis.pttl(name) // (24 * HOUR_MS))
        return found

    assert {True: {35}, False: {-1}} == bench.run(kept_ms())


def test_a_sum_of_nothing_is_no_row(bench: Bench) -> None:
    """Two corrections that cancel out: the report is the same whether they came in one batch or in two."""
    day = bench.calendar.date_at(bench.now_ms()).isoformat()

    def rows() -> list[object]:
        return bench.listed(bench.reports.cells(ORG, "team", "day", [day]))

    bench.adjust(RED, 70)
    bench.adjust(RED, -70)
    assert [] == rows()
    bench.adjust(RED, 70)
    assert [70] == [
        cell.measures.cost_nano_usd for cell in bench.listed(bench.reports.cells(ORG, "team", "day", [day]))
    ]
    bench.adjust(RED, -70)
    assert [] == rows()


@pytest.mark.parametrize(
    "broken",
    [
        {b"entry": b"{}"},
        {b"entry": b'{"org": '},
        {b"entry": b'{"team": "\xff"}'},
        {b"cost": b"many"},
        {b"admitted": b""},
        {b"type": b"\xff"},
    ],
)
def test_an_entry_that_cannot_be_read_is_named_and_counted_nowhere(broken: Fields) -> None:
    """No report without it: one that leaves out what it does not understand would be wrong without saying so."""
    batch = batch_of([])
    with pytest.raises(UnreadableEntry, match="entry 7-0 of the ledger cannot be read"):
        batch.add(b"7-0", fields_of() | broken)
    assert 0 == batch.count


def batch_of(entries: list[Fields]) -> Batch:
    calendar = Calendar(ZoneInfo("Asia/Ho_Chi_Minh"))
    batch = Batch(Keys(ORG), calendar, Timetable(calendar))
    for number, fields in enumerate(entries, 1):
        batch.add(f"{number}-0".encode(), fields)
    return batch


@pytest.mark.parametrize("kind", ["chat", "image"])
def test_an_ordinary_charge_counts_as_the_rule_says(kind: str) -> None:
    """It takes the short way, past `measures_of`, and must say the same."""
    fields = fields_of(kind=kind, units=2)
    _, args = batch_of([fields]).command(b"0-0")
    measures = measures_of(entry_of("1-0", fields))
    amounts = [getattr(measures, name) for name in Measures.__dataclass_fields__]
    first = args.index(f"|gpt-4o|{kind}|") + 1
    assert amounts == args[first : first + len(amounts)]


def test_the_script_names_measures_in_the_order_of_the_amounts() -> None:
    """Else prompt tokens would be counted as requests."""
    line = next(line for line in load("project").source.splitlines() if line.startswith("local MEASURES"))
    assert list(Measures.__dataclass_fields__) == [word for number, word in enumerate(line.split("'")) if number % 2]


def test_entries_alike_are_one_sum() -> None:
    """What a batch sends to Redis does not grow with its entries, only with whom, what and when they are of."""
    one, hundred, others = (batch_of(entries) for entries in ([fields_of()], [fields_of()] * 100, [fields_of(key="x")]))
    assert [len(part) for part in one.command(b"0-0")] == [len(part) for part in hundred.command(b"0-0")]
    both = batch_of([fields_of(), fields_of(key="x")])
    assert len(both.command(b"0-0")[0]) > len(others.command(b"0-0")[0])


def test_a_batch_is_full_by_its_sums() -> None:
    """Each adds to Redis's work; a hundred thousand entries of one key do not."""
    assert not batch_of([fields_of()] * 1000).is_full
    assert not batch_of([fields_of(key=f"k{number}") for number in range(199)]).is_full
    assert batch_of([fields_of(key=f"k{number}") for number in range(200)]).is_full


def test_a_projector_leaves_the_ledger_to_another_that_is_at_it() -> None:
    """Else two gateways would sum the same entries side by side, and one of them always for nothing."""
    asked = asyncio.Event()

    class Others:
        calls = 0

        async def apply_batch(self, _org: str) -> int | None:
            self.calls += 1
            asked.set()
            return 0

    async def run() -> int:
        stop, others = asyncio.Event(), Others()
        running = asyncio.create_task(Projector(cast(Reports, others), [ORG], interval_s=1000).run(stop))
        await asked.wait()
        stop.set()
        await running
        return others.calls

    assert 1 == asyncio.run(run())


def test_projecting_many_entries_lets_the_calls_go_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two batches somebody else has a turn."""
    summed, add = [0], Batch.add

    def counted(batch: Batch, entry_id: bytes, fields: Fields) -> None:
        summed[-1] += 1
        add(batch, entry_id, fields)

    async def catch_up_beside_others() -> None:
        catching_up = asyncio.create_task(bench.reports.catch_up(ORG))
        while not catching_up.done():
            summed.append(0)
            await asyncio.sleep(0)
        await catching_up

    monkeypatch.setattr(Batch, "add", counted)
    write(bench, [fields_of()] * 2000)
    bench.run(catch_up_beside_others())
    assert (2000, 600) == (sum(summed), max(summed))
