"""What stands out among many teams: all of them are looked at, a bounded number of them, and nobody waits for it."""

import asyncio
from collections.abc import Iterator

import pytest

from gateway.billing.budget import Budget
from gateway.billing.principal import Principal
from gateway.billing.scope import ScopeSettings
from gateway.dashboard.figures import Figures, Foremost
from gateway.dashboard.tables import Overview, Tables
from gateway.store.refusals import Refusals
from tests.store.bench import ORG, Bench, capture, open_bench

TEAMS = 60
PERCENT = {"team-03": 99, "team-57": 85, "team-58": 40, "team-59": 100}


@pytest.fixture
def crowd(redis_url: str) -> Iterator[Bench]:
    """Sixty teams with a budget of 1,000; what four of them have spent stands in PERCENT. team-00 may spend nothing."""
    with open_bench(redis_url) as (bench,):
        for number in range(TEAMS):
            team = f"team-{number:02}"
            bench.put(
                ScopeSettings("team", team, name=f"Team {number}", budgets=(Budget("month", 1000 * (number > 0)),))
            )
            if team in PERCENT:
                bench.put(ScopeSettings("key", f"key-of-{team}", team=team))
                request = bench.call(PERCENT[team] * 10, Principal(ORG, team, None, f"key-of-{team}"))
                bench.admit(request)
                bench.settle(request, capture(PERCENT[team] * 10))
        yield bench


def figures(bench: Bench) -> Figures:
    return Figures(bench.scopes, bench.ledger, bench.reports, Refusals(bench.redis, bench.calendar), bench.calendar)


def foremost(bench: Bench) -> Foremost:
    return bench.run(figures(bench).foremost(ORG, "team", bench.now_ms(), scopes=3, budgets=4))


def test_the_fullest_budgets_are_found_wherever_they_are(crowd: Bench) -> None:
    """The last team by id is the one to know about; a budget of nothing is full too, and the least of those."""
    found = foremost(crowd)
    assert ["team-59", "team-00", "team-03", "team-57"] == [line.scope.id for line in found.fullest]
    assert [1000, 1000, 990, 850] == [line.used_permille for line in found.fullest]
    assert [("Team 59", 1000, 1000), ("Team 0", 0, 0)] == [
        (line.name, line.limit_nano_usd, line.spent_nano_usd) for line in found.fullest[:2]
    ]
    assert (4, TEAMS + 2, False) == (found.nearly_full, found.count, found.more)


def test_the_dearest_are_those_that_spent_the_most_this_month(crowd: Bench) -> None:
    """Whatever their ids, dearest first."""
    assert ["team-59", "team-03", "team-57"] == [settings.id for settings, _ in foremost(crowd).dearest]


def test_no_more_scopes_are_looked_at_than_the_bound_says(crowd: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is told: what stands out among the rest is not known."""
    monkeypatch.setattr("gateway.dashboard.figures._STATES_AT_ONCE", 5)
    monkeypatch.setattr("gateway.dashboard.figures.SCOPES_LOOKED_AT_MAX", 10)
    found = foremost(crowd)
    assert (10, True) == (found.count, found.more)
    assert {"team-00", "team-03"} < {line.scope.id for line in found.fullest}


def test_the_calls_go_on_while_many_are_looked_at(crowd: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page, each a round trip."""
    monkeypatch.setattr("gateway.dashboard.figures._STATES_AT_ONCE", 1)

    async def turns_of_others() -> int:
        turns = 0
        looking = asyncio.create_task(figures(crowd).foremost(ORG, "team", 0, scopes=3, budgets=4))
        while not looking.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert crowd.run(turns_of_others()) >= TEAMS


def test_the_overview_lists_the_dearest_teams_and_says_that_there_are_more(crowd: Bench) -> None:
    """Fifty of sixty-two, and each with what it spent in the days asked for."""

    async def overview() -> Overview:
        one = figures(crowd)
        return await Tables(one).overview(ORG, await one.last_days(7))

    found = crowd.run(overview())
    spent = [(row.settings.id, row.spent.cost_nano_usd) for row in found.teams.rows]
    assert [("team-59", 1000), ("team-03", 990), ("team-57", 850), ("team-58", 400)] == spent[:4]
    assert (50, True, 0) == (len(spent), found.teams.more, found.looked_at)
