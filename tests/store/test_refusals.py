"""Counts of refused calls: cheap to write, summed over all gateways, and not lost by a short absence of Redis."""

import asyncio
from zoneinfo import ZoneInfo

from gateway.billing.budget import Calendar
from gateway.billing.principal import Principal
from gateway.store.connection import open_redis
from gateway.store.embedded import EmbeddedRedis
from gateway.store.keys import Keys
from gateway.store.refusals import KEPT_DAYS, RefusalCount, Refusals

CALENDAR = Calendar(ZoneInfo("Asia/Ho_Chi_Minh"))
AN, TEAMS_OWN = Principal("acme", "red", "an", "notebook"), Principal("acme", "red", None, "script")
LATE_ON_THE_20TH_MS = 1_795_193_999_000  # 2026-11-20T23:59:59 in Vietnam
DAYS = ["2026-11-20", "2026-11-21"]


def test_counts_are_by_local_day_key_and_code(redis_url: str) -> None:
    """Two gateways count into the same sums; a team's own key has no user."""

    async def scenario() -> list[RefusalCount]:
        redis = open_redis(redis_url, 2)
        gateways = [Refusals(redis, CALENDAR) for _ in range(2)]
        for refusals in gateways:
            refusals.count(AN, "budget_exceeded", LATE_ON_THE_20TH_MS)
            refusals.count(AN, "budget_exceeded", LATE_ON_THE_20TH_MS + 1000)
            refusals.count(TEAMS_OWN, "budget_held", LATE_ON_THE_20TH_MS + 1000)
        for refusals in gateways:
            await refusals.flush()
            await refusals.flush()
        counts = await gateways[0].over("acme", DAYS)
        left_s = await redis.ttl(Keys("acme").refusals(DAYS[0]))
        assert KEPT_DAYS * 86_400 - 60 < left_s <= KEPT_DAYS * 86_400
        await redis.aclose()
        return counts

    assert {
        RefusalCount(DAYS[0], "red", "an", "notebook", "budget_exceeded", 2),
        RefusalCount(DAYS[1], "red", "an", "notebook", "budget_exceeded", 2),
        RefusalCount(DAYS[1], "red", "", "script", "budget_held", 2),
    } == set(asyncio.run(scenario()))


def test_the_background_task_writes_its_last_second_too(redis_url: str) -> None:
    """A gateway that is stopped in order loses none."""

    async def scenario() -> list[RefusalCount]:
        redis = open_redis(redis_url, 2)
        refusals, stop = Refusals(redis, CALENDAR, interval_s=60), asyncio.Event()
        task = asyncio.create_task(refusals.run(stop))
        refusals.count(AN, "budget_held", LATE_ON_THE_20TH_MS)
        stop.set()
        await task
        counts = await refusals.over("acme", DAYS)
        await redis.aclose()
        return counts

    assert [1] == [count.calls for count in asyncio.run(scenario())]


def test_what_redis_does_not_take_waits(valkey: EmbeddedRedis, redis_url: str) -> None:
    """Its absence is no reason to forget, nor to fail."""

    async def scenario() -> list[RefusalCount]:
        redis = open_redis(redis_url, 2)
        refusals = Refusals(open_redis("unix:///nowhere/at-all", 2), CALENDAR)
        refusals.count(AN, "budget_held", LATE_ON_THE_20TH_MS)
        await refusals.flush()
        refusals.count(AN, "budget_held", LATE_ON_THE_20TH_MS)
        refusals._redis = redis
        await refusals.flush()
        counts = await refusals.over("acme", DAYS)
        await redis.aclose()
        return counts

    assert [2] == [count.calls for count in asyncio.run(scenario())]
