"""A long report as an answer: whole, in order, bounded, and made without holding up the calls on this loop."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.billing.errors import InvalidRequest, LedgerUnavailable
from gateway.billing.principal import Scope
from gateway.billing.reach import Reach
from gateway.store.cells import Cell, Measures
from gateway.store.reports import Reports
from gateway.web.searches import Searches
from gateway.web.usage import Row, joined, usage_csv, usage_json
from gateway.web.usage_reports import Asked, UsageReports
from tests.store.bench import BY_NOTEBOOK, BY_ROBOT, ORG, Bench, capture, open_bench

GROUPS = ("key", "model")
EVERYTHING = Reach(ORG, Scope("organisation", ORG), None)
RED_TEAM = Reach(ORG, Scope("team", "red"), BY_NOTEBOOK)


async def everybody_waits() -> None:
    pass


def this_month_by(*groups: str) -> Asked:
    return Asked(groups, "", "", everybody_waits)


def rows(count: int) -> list[Row]:
    return [((f"key-{number}", "gpt-4o"), Measures(1, 2, 3, 0, number, 0)) for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 1000])
def test_every_row_is_there_once_and_in_order(count: int) -> None:
    """However many pieces it is made of."""
    report = json.loads(asyncio.run(joined(usage_json(GROUPS, rows(count)))))
    names = [f"key-{number}" for number in range(count)]
    assert names == [row["key"] for row in report["data"]]
    assert (count, sum(range(count))) == (report["total"]["requests"], report["total"]["cost_nano_usd"])
    table = asyncio.run(joined(usage_csv(GROUPS, rows(count)))).decode()
    assert names == [row["key"] for row in csv.DictReader(io.StringIO(table))]


def test_the_calls_go_on_between_two_pieces() -> None:
    """A report of every key, model and day takes its second; nobody else waits for it."""

    async def turns_of_others() -> int:
        turns = 0
        making = asyncio.create_task(joined(usage_json(GROUPS, rows(10_000))))
        while not making.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert asyncio.run(turns_of_others()) >= 50


def test_a_report_that_is_too_long_says_what_to_do(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused while it is summed; one row less is answered."""
    with open_bench(redis_url) as (bench,):
        for who in (BY_NOTEBOOK, BY_ROBOT):
            request = bench.call(100, who)
            bench.admit(request)
            bench.settle(request, capture(3))
        reports = UsageReports(bench.reports, bench.scopes, bench.calendar, Searches())
        monkeypatch.setattr("gateway.web.usage_reports.ROWS_MAX", 2)
        assert 2 == len(bench.run(reports.rows(EVERYTHING, this_month_by("key"))))
        monkeypatch.setattr("gateway.web.usage_reports.ROWS_MAX", 1)
        with pytest.raises(InvalidRequest) as refused:
            bench.run(reports.rows(EVERYTHING, this_month_by("key")))
        assert "more than 1 rows: move from and to together" in str(refused.value)


class Overtaken(Reports):
    """While it reads a team's cells a call is settled and projected by others, `times` times."""

    def __init__(self, bench: Bench, times: int) -> None:
        super().__init__(bench.redis, bench.scripts, bench.ledger, bench.calendar)
        self._bench, self._left = bench, times

    async def of_team(self, *args: Any) -> AsyncIterator[Cell]:
        cells = [cell async for cell in super().of_team(*args)]
        if self._left:
            self._left -= 1
            request = self._bench.call(100, BY_NOTEBOOK)
            await self._bench.ledger.admit(request)
            await self._bench.ledger.settle(request, capture(3))
            await self.catch_up(ORG)
        for cell in cells:
            yield cell


@pytest.mark.parametrize("times", [0, 1, 4, 5])
def test_a_teams_report_is_of_one_moment(redis_url: str, times: int) -> None:
    """What cells of a team and of its users tell is subtracted, so both are read anew where one of them moved."""
    with open_bench(redis_url) as (bench,):
        request = bench.call(100, BY_NOTEBOOK)
        bench.admit(request)
        bench.settle(request, capture(3))
        reports = UsageReports(Overtaken(bench, times), bench.scopes, bench.calendar, Searches())
        asked = reports.rows(RED_TEAM, this_month_by("user"))
        if times == 5:
            with pytest.raises(LedgerUnavailable):
                bench.run(asked)
        else:
            assert [(("an",), 1 + times)] == [(place, measures.requests) for place, measures in bench.run(asked)]
