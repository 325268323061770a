"""Reports: each entry counts exactly once, whoever projects it, and in the period of its admission."""

import asyncio
from collections import defaultdict
from dataclasses import replace
from datetime import date, datetime
from typing import cast
from zoneinfo import ZoneInfo

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.billing.budget import Calendar
from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import RELEASE, Posting, violations
from gateway.billing.usage import Usage
from gateway.store.cells import AXES, AXES_OF, Cell, Measures, deltas_of
from gateway.store.periods import Grain, days_between, period_of, periods_within
from gateway.store.reports import Projector, Reports
from tests.store.bench import BY_DESK, BY_NOTEBOOK, BY_ROBOT, DAY_MS, ORG, Bench, capture


def a_mixed_day(bench: Bench) -> None:
    """Three captures, one of them an estimate, a release and a refunded image."""
    for request, posting in (
        (bench.call(100, BY_NOTEBOOK), capture(30)),
        (bench.call(100, BY_NOTEBOOK, model="gpt-4o"), capture(40, "estimated")),
        (bench.call(100, BY_ROBOT), RELEASE),
        (bench.call(100, BY_DESK), capture(7)),
    ):
        bench.admit(request)
        bench.settle(request, posting)
    bench.refund(bench.submitted_job(1_500_000, BY_NOTEBOOK))


def cells(bench: Bench, axis: str, grain: Grain = "day") -> list[Cell]:
    period = period_of(bench.calendar, bench.now_ms(), grain)
    return bench.listed(bench.reports.cells(ORG, axis, grain, [period]))


def test_cells_add_up_by_owner_and_model(bench: Bench) -> None:
    """A release counts nothing; a refund takes its image and its money back, but the request was made."""
    a_mixed_day(bench)
    period = period_of(bench.calendar, bench.now_ms(), "day")
    assert {
        Cell(period, "red", "gpt-4o-mini", "chat", Measures(1, 10, 5, 0, 30, 0)),
        Cell(period, "red", "gpt-4o", "chat", Measures(1, 10, 5, 0, 40, 40, flagged=1)),
        Cell(period, "red", "realvision", "image", Measures(1, 0, 0, 0, 0, 0)),
        Cell(period, "blue", "gpt-4o-mini", "chat", Measures(1, 10, 5, 0, 7, 0)),
    } == set(cells(bench, "team"))


@pytest.mark.parametrize(("grain", "axis"), [(grain, axis) for grain, axes in AXES_OF.items() for axis in axes])
def test_every_axis_has_the_same_sum(bench: Bench, axis: str, grain: Grain) -> None:
    """What the organisation spent does not depend on how it is looked at."""
    a_mixed_day(bench)
    assert 77 == sum(cell.measures.cost_nano_usd for cell in cells(bench, axis, grain))
    assert 77 == sum(entry.cost_nano_usd for entry in bench.entries())


def test_a_call_without_a_user_stands_under_no_name(bench: Bench) -> None:
    """The team's own key: it is in the report, so that the report adds up."""
    request = bench.call(100, BY_ROBOT)
    bench.admit(request)
    bench.settle(request, capture(5))
    assert [("", 5)] == [(cell.id, cell.measures.cost_nano_usd) for cell in cells(bench, "user")]


def test_projectors_that_race_count_each_entry_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty gateways are asked for a report at once, over more entries than one batch holds."""
    monkeypatch.setattr("gateway.store.reports._BATCH", 7)
    requests = [bench.call(100) for _ in range(60)]
    bench.together([bench.ledger.admit(request) for request in requests])
    bench.together([bench.ledger.settle(request, capture(3)) for request in requests])
    projectors = [Reports(bench.redis, bench.scripts, bench.ledger, bench.calendar) for _ in range(20)]
    applied = bench.together([projector.catch_up(ORG) for projector in projectors])
    assert 60 == sum(applied)
    assert 180 == sum(cell.measures.cost_nano_usd for cell in cells(bench, "team"))
    assert [] == violations(bench.books())


def test_a_report_is_exact_while_calls_go_on(bench: Bench) -> None:
    """Whoever asks sees every entry that was written before."""
    for total in (3, 6, 9):
        request = bench.call(100)
        bench.admit(request)
        bench.settle(request, capture(3))
        assert total == sum(cell.measures.cost_nano_usd for cell in cells(bench, "key"))
    assert 0 == bench.run(bench.reports.catch_up(ORG))


def test_cells_are_what_the_entries_say(bench: Bench) -> None:
    """The projection against a plain sum over the ledger, by the same names."""
    a_mixed_day(bench)
    now_ms = bench.now_ms()
    for axis in AXES:
        summed = bench.listed(bench.reports.cells_between(ORG, axis, now_ms - DAY_MS // 4, now_ms + 1, "day"))
        assert set(cells(bench, axis)) == set(summed)


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("begins", "ends", "grain", "cells"),
    [
        ("2026-11-01T00:00+07:00", "2027-01-01T00:00+07:00", "", ("month", ["2026-11", "2026-12"])),
        ("2026-11-01T00:00+07:00", "2027-01-01T00:00+07:00", "month", ("month", ["2026-11", "2026-12"])),
        ("2026-11-30T00:00+07:00", "2026-12-01T00:00+07:00", "day", ("day", ["2026-11-30"])),
        ("2026-11-30T00:00+07:00", "2026-12-02T00:00+07:00", "month", ("day", ["2026-11-30", "2026-12-01"])),
        ("2026-11-01T00:00Z", "2026-12-01T00:00Z", "", None),
        ("2026-11-01T00:00+07:00", "2026-11-30T23:59+07:00", "", None),
        (
            "2026-11-21T22:00Z",
            "2026-11-22T01:00Z",
            "hour",
            ("hour", [f"2026-11-2{n}Z" for n in ("1T22", "1T23", "2T00")]),
        ),
        ("2026-11-21T22:30Z", "2026-11-22T01:00Z", "hour", None),
    ],
)
def test_a_report_reads_the_coarsest_cells_that_fit(
    begins: str, ends: str, grain: str, cells: tuple[str, list[str]] | None
) -> None:
    """Months are the organisation's, hours are UTC's; what fits none is read from the entries."""
    assert cells == periods_within(Calendar(ZoneInfo("Asia/Ho_Chi_Minh")), ms(begins), ms(ends), grain)


@pytest.mark.parametrize("grain", ["", "month", "day", "hour"])
@pytest.mark.parametrize("axis", AXES)
def test_every_way_to_a_report_has_the_same_sums(bench: Bench, axis: str, grain: str) -> None:
    """By months, days, hours or entries, over the month and over an hour that is cut in two."""
    a_mixed_day(bench)
    month = bench.calendar.spans_at(bench.now_ms()).month
    assert month.end_ms is not None
    by_cells = bench.listed(bench.reports.over(ORG, axis, month.start_ms, month.end_ms, grain))
    cut_ms = bench.entries()[1].admitted_at_ms
    cut = [
        *bench.listed(bench.reports.over(ORG, axis, month.start_ms, cut_ms, grain)),
        *bench.listed(bench.reports.over(ORG, axis, cut_ms, month.end_ms, grain)),
    ]
    assert summed(by_cells, grain) == summed(cut, grain)
    assert 77 == sum(cell.measures.cost_nano_usd for cell in by_cells)


def summed(cells: list[Cell], grain: str) -> dict[tuple[str, ...], Measures]:
    """By everything that names a cell; without a grain its period means nothing."""
    sums: dict[tuple[str, ...], Measures] = defaultdict(Measures)
    for cell in cells:
        sums[cell.period if grain else "", cell.id, cell.model, cell.kind] += cell.measures
    return {place: measures for place, measures in sums.items() if measures != Measures()}


def test_entries_are_projected_while_nobody_asks(bench: Bench) -> None:
    """So that the first report after a year does not replay the year."""
    a_mixed_day(bench)
    last = bench.entries()[-1].id

    async def projected() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(Projector(bench.reports, [ORG], interval_s=0.01).run(stop))
        async with asyncio.timeout(20):
            while await bench.redis.get(bench.keys.checkpoint) != last.encode():  # noqa: ASYNC110  # the event is in Redis
                await asyncio.sleep(0.01)
        stop.set()
        await running

    bench.run(projected())
    assert 0 == bench.run(bench.reports.catch_up(ORG))


def test_a_failing_projection_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """Neither an outage nor an entry it cannot read ends it; the second is logged."""

    class Failing:
        def __init__(self) -> None:
            self.failures: list[Exception] = [ValueError("an entry of tomorrow"), LedgerUnavailable("away")]

        async def apply_batch(self, _org: str) -> int | None:
            if self.failures:
                raise self.failures.pop()
            stop.set()
            return None

    stop = asyncio.Event()
    asyncio.run(Projector(cast(Reports, Failing()), [ORG], interval_s=0).run(stop))
    assert ["projecting the ledger of acme failed"] == [record.message for record in caplog.records]


def test_an_interval_is_half_open(bench: Bench) -> None:
    """An entry at its end is not in it; reports that meet count nothing twice."""
    request = bench.call(100)
    bench.admit(request)
    bench.settle(request, capture(3))
    (entry,) = bench.entries()
    at_ms = entry.admitted_at_ms

    def sums(from_ms: int, to_ms: int) -> int:
        found = bench.listed(bench.reports.cells_between(ORG, "team", from_ms, to_ms, "day"))
        return sum(cell.measures.cost_nano_usd for cell in found)

    assert [0, 3, 0] == [sums(at_ms - 10, at_ms), sums(at_ms, at_ms + 1), sums(at_ms + 1, at_ms + 10)]


def test_a_posting_counts_in_the_period_of_its_admission(bench: Bench) -> None:
    """A call of yesterday that ends today is yesterday's; its hold carries the time."""
    request = bench.call(100)
    bench.admit(request)
    bench.settle(request, capture(3))
    (entry,) = bench.entries()
    yesterday = replace(entry, admitted_at_ms=entry.admitted_at_ms - DAY_MS)
    day = period_of(bench.calendar, yesterday.admitted_at_ms, "day")
    sheets = deltas_of(bench.keys, bench.calendar, [yesterday]).sheets
    owners = {"org": ORG, "team": "red", "user": "an", "key": "notebook"}
    names = [bench.keys.sheet("day", day[:7], axis, owner) for axis, owner in owners.items()]
    assert [{day}] * len(AXES) == [{field.partition("|")[0] for field in sheets[name]} for name in names]


def test_a_checkpoint_that_moved_applies_nothing(bench: Bench) -> None:
    """The script itself, with a batch that someone else has already applied."""
    a_mixed_day(bench)
    bench.run(bench.reports.catch_up(ORG))
    before = bench.everything()
    sheet, owners = bench.keys.sheet("day", "2026-11", "team", "a"), bench.keys.owners("day", "2026-11", "team")
    args: list[str | bytes | int] = ["0-0", "9-9", 1, 1, 1, 1, "2026-11-21", 0, "|b|c|", 1, 0, 0, 0, 0, 0, 0, "a"]
    reply = bench.run(bench.scripts.run(bench.reports._project, [bench.keys.checkpoint, sheet, owners], args))
    assert b"moved" == reply[0]
    assert before == bench.everything()


def test_no_report_without_redis(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, and not a report of what happened to be read."""

    async def lost(*_args: object) -> None:
        raise RedisConnectionError

    monkeypatch.setattr(bench.redis, "get", lost)
    with pytest.raises(LedgerUnavailable):
        cells(bench, "team")


def test_days_are_named_one_by_one() -> None:
    """Both borders included, over the end of a month."""
    assert ["2028-02-28", "2028-02-29", "2028-03-01"] == days_between(date(2028, 2, 28), date(2028, 3, 1))
    assert ["2026-11-21"] == days_between(date(2026, 11, 21), date(2026, 11, 21))


def test_an_image_that_was_estimated_is_counted(bench: Bench) -> None:
    """The upstream never answered: the image may be billed, so it is in the report as an estimate."""
    request = bench.call(9, kind="image", model="realvision")
    bench.admit(request)
    bench.settle(request, Posting("capture", 9, Usage(units=1), "estimated", ("estimated", "unanswered")))
    (cell,) = cells(bench, "key")
    assert Measures(requests=1, images=1, cost_nano_usd=9, estimated_nano_usd=9, flagged=1) == cell.measures


def test_one_keys_report_costs_what_that_key_has(bench: Bench) -> None:
    """Any member opens their own page as often as they like: what others have must not be read for it."""

    def bytes_read() -> int:
        begun = bench.run(bench.redis.info("stats"))["total_net_output_bytes"]
        found = bench.listed(bench.reports.over(ORG, "key", from_ms, to_ms, "day", ("notebook",)))
        assert [3] == [cell.measures.cost_nano_usd for cell in found]
        return int(bench.run(bench.redis.info("stats"))["total_net_output_bytes"] - begun)

    request = bench.call(100)
    bench.admit(request)
    bench.settle(request, capture(3))
    month = bench.calendar.spans_at(bench.now_ms()).month
    assert month.end_ms is not None
    from_ms, to_ms = month.start_ms, month.end_ms
    bytes_read()  # the first one also projects
    alone = bytes_read()
    others_cells(bench, 200)
    assert 201 == len({cell.id for cell in bench.listed(bench.reports.over(ORG, "key", from_ms, to_ms, "day"))})
    assert bytes_read() < alone + 100


def test_a_report_over_many_lets_the_calls_go_on(bench: Bench) -> None:
    """Between any two sheets this loop does something else."""
    others_cells(bench, 100)
    period = period_of(bench.calendar, bench.now_ms(), "day")

    async def turns_of_others() -> int:
        turns, reading = 0, True

        async def others() -> None:
            nonlocal turns
            while reading:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(others())
        found = [cell async for cell in bench.reports.cells(ORG, "key", "day", [period])]
        reading = False
        await other
        assert 100 == len(found)
        return turns

    assert bench.run(turns_of_others()) >= 100


def others_cells(bench: Bench, count: int) -> None:
    """Cells of so many further keys, as the projection would have made them."""
    day = period_of(bench.calendar, bench.now_ms(), "day")
    owners = [f"other-{number}" for number in range(count)]
    pipeline = bench.redis.pipeline()
    pipeline.sadd(bench.keys.owners("day", day[:7], "key"), *owners)
    for owner in owners:
        pipeline.hset(bench.keys.sheet("day", day[:7], "key", owner), f"{day}|gpt-4o|chat|requests", "1")
    bench.run(pipeline.execute())
