"""Searches through everybody's books: whose turn it is, who waits, who is refused, and who left is not read for."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gateway.billing.budget import instant
from gateway.billing.errors import ConcurrencyLimitExceeded
from gateway.billing.principal import Scope
from gateway.billing.reach import Reach
from gateway.web.exchange import ClientLeft
from gateway.web.searches import WAITING_MAX, Searches
from gateway.web.usage_reports import Asked, UsageReports
from tests.store.bench import BY_NOTEBOOK, ORG, capture, open_bench

AN, BO = Scope("key", "an"), Scope("team", "bo")


class World:
    """Searches of three pieces each, and what was read in which order."""

    def __init__(self) -> None:
        self.searches = Searches()
        self.read: list[str] = []
        self.left: set[str] = set()
        """Whose clients have left."""

    def begin(self, home: Scope, name: str, pieces: int = 3) -> asyncio.Task[None]:
        return asyncio.create_task(self._search(home, name, pieces))

    async def _search(self, home: Scope, name: str, pieces: int) -> None:
        async def check_there() -> None:
            if name in self.left:
                raise ClientLeft

        async with self.searches.by("o", home, check_there) as next_piece:
            for number in range(pieces):
                self.read.append(name)
                await asyncio.sleep(0)
                if number < pieces - 1:
                    await next_piece()


def told(story: Callable[[World], Coroutine[Any, Any, None]]) -> list[str]:
    """What was read, in its order."""
    world = World()
    asyncio.run(asyncio.wait_for(story(world), 20))
    return world.read


def test_homes_take_turns_piece_by_piece() -> None:
    """Who has sent many requests has one search under way, like everybody else."""

    async def story(world: World) -> None:
        await asyncio.gather(world.begin(AN, "an-1"), world.begin(AN, "an-2"), world.begin(BO, "bo"))

    assert ["an-1", "bo"] * 3 + ["an-2"] * 3 == told(story)


def test_one_piece_is_read_at_a_time() -> None:
    """However many homes there are."""

    async def story(world: World) -> None:
        reading = 0

        async def search(home: Scope) -> None:
            nonlocal reading
            async with world.searches.by("o", home, everybody_waits) as next_piece:
                for _ in range(3):
                    reading += 1
                    await asyncio.sleep(0)
                    assert 1 == reading
                    reading -= 1
                    await next_piece()

        await asyncio.gather(*(search(Scope("key", f"key-{number}")) for number in range(20)))

    assert [] == told(story)


def test_a_long_line_grows_no_longer() -> None:
    """Who comes behind it is told to come back, another home is served, and so is the first one afterwards."""

    async def story(world: World) -> None:
        under_way = [world.begin(AN, "an", 1) for _ in range(1 + WAITING_MAX)]
        further = world.begin(AN, "too many", 1)
        with pytest.raises(ConcurrencyLimitExceeded) as refused:
            await further
        assert (429, 1) == (refused.value.status, refused.value.retry_after_s)
        await world.begin(BO, "bo", 1)
        await asyncio.gather(*under_way)
        await world.begin(AN, "an again", 1)

    read = told(story)
    assert ({"an", "bo", "an again"}, 1 + WAITING_MAX) == ({*read}, read.count("an"))


def test_nothing_is_read_for_who_has_left() -> None:
    """Before its turn or between two pieces; the next in line goes on."""

    async def story(world: World) -> None:
        leaves, waits, stays = world.begin(AN, "leaves"), world.begin(AN, "left in line"), world.begin(AN, "stays")
        await asyncio.sleep(0)
        assert ["leaves"] == world.read
        world.left |= {"leaves", "left in line"}
        ends = await asyncio.gather(leaves, waits, stays, return_exceptions=True)
        assert [ClientLeft, ClientLeft, type(None)] == [type(end) for end in ends]

    assert ["leaves", *["stays"] * 3] == told(story)


def test_a_search_that_ends_in_its_turn_or_waiting_for_it_keeps_nobody_waiting() -> None:
    """Wherever it is cancelled."""

    async def story(world: World) -> None:
        for turns in range(12):
            ended = [world.begin(home, "ended", 100) for home in (AN, BO, AN)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in ended:
                task.cancel()
            await asyncio.gather(*ended, return_exceptions=True)
            await asyncio.gather(world.begin(AN, "an", 1), world.begin(BO, "bo", 1))

    read = told(story)
    assert (12, 12) == (read.count("an"), read.count("bo"))


def test_who_reaches_everything_waits_for_nobody() -> None:
    """What they read is what they asked for."""

    async def story(world: World) -> None:
        searching = world.begin(AN, "an", 1000)
        everything = [world.begin(Scope("organisation", "o"), "everything", 1) for _ in range(20)]
        await asyncio.gather(*everything)
        assert not searching.done()
        searching.cancel()

    assert 20 == told(story).count("everything")


async def everybody_waits() -> None:
    pass


@pytest.mark.parametrize("home", [Scope("team", "red"), Scope("key", "notebook")], ids=lambda home: home.kind)
def test_a_report_that_is_searched_for_ends_with_its_client(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, home: Scope
) -> None:
    """Asked before the first page of entries and between two; what cells have is no search, and goes on."""
    monkeypatch.setattr("gateway.store.ledger._PAGE_OF_ALL", 1)
    with open_bench(redis_url) as (bench,):
        for _ in range(3):
            request = bench.call(100, BY_NOTEBOOK)
            bench.admit(request)
            bench.settle(request, capture(3))
        reports = UsageReports(bench.reports, bench.scopes, bench.calendar, Searches())
        searched = instant(bench.now_ms() - 3_600_001), instant(bench.now_ms() + 3_600_001)
        by_cells = "", ""

        def calls_of(period: tuple[str, str], looks: list[bool]) -> int:
            async def check_there() -> None:
                if looks.pop(0):
                    raise ClientLeft

            asked = Asked(("model",), *period, check_there)
            ((_, measures),) = bench.run(reports.rows(Reach(ORG, home, BY_NOTEBOOK), asked))
            return measures.requests

        looks = [False] * 4
        assert (3, []) == (calls_of(searched, looks), looks)
        for pages in range(4):
            looks = [False] * pages + [True]
            with pytest.raises(ClientLeft):
                calls_of(searched, looks)
            assert [] == looks
        assert 3 == calls_of(by_cells, [])
