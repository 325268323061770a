"""Counts of refused calls: cheap to write and to read, summed over all gateways, and not lost by a short absence of
Redis."""

import asyncio
from zoneinfo import ZoneInfo

import pytest
from redis.asyncio import Redis

from gateway.billing.budget import Calendar
from gateway.billing.principal import Principal, Scope
from gateway.store.connection import open_redis
from gateway.store.embedded import EmbeddedRedis
from gateway.store.keys import Keys
from gateway.store.refusals import KEPT_DAYS, Refusals

CALENDAR = Calendar(ZoneInfo("Asia/Ho_Chi_Minh"))
AN, TEAMS_OWN = Principal("acme", "red", "an", "notebook"), Principal("acme", "red", None, "script")
LATE_ON_THE_20TH_MS = 1_795_193_999_000  # 2026-11-20T23:59:59 in Vietnam
DAYS = ["2026-11-20", "2026-11-21"]
NOTEBOOK = Scope("key", "notebook")


def test_counts_are_by_scope_day_and_code(redis_url: str) -> None:
    """Two gateways count into the same sums; a team's own key has no user."""

    async def scenario() -> dict[Scope, list[dict[str, int]]]:
        redis = open_redis(redis_url, 2)
        gateways = [Refusals(redis, CALENDAR) for _ in range(2)]
        for refusals in gateways:
            refusals.count(AN, "budget_exceeded", LATE_ON_THE_20TH_MS)
            refusals.count(AN, "budget_exceeded", LATE_ON_THE_20TH_MS + 1000)
            refusals.count(TEAMS_OWN, "budget_held", LATE_ON_THE_20TH_MS + 1000)
        for refusals in gateways:
            await refusals.flush()
            await refusals.flush()
        scopes = {*AN.scopes(), *TEAMS_OWN.scopes()}
        counts = {scope: [await gateways[0].over("acme", scope, [day]) for day in DAYS] for scope in scopes}
        left_s = await redis.ttl(Keys("acme").refusals("2026-11", NOTEBOOK))
        assert KEPT_DAYS * 86_400 < left_s
        await redis.aclose()
        return counts

    everyones = [{"budget_exceeded": 2}, {"budget_exceeded": 2, "budget_held": 2}]
    assert {
        Scope("organisation", "acme"): everyones,
        Scope("team", "red"): everyones,
        Scope("user", "an"): [{"budget_exceeded": 2}, {"budget_exceeded": 2}],
        NOTEBOOK: [{"budget_exceeded": 2}, {"budget_exceeded": 2}],
        Scope("key", "script"): [{}, {"budget_held": 2}],
    } == asyncio.run(scenario())


def test_more_kinds_than_are_written_at_once_are_all_written(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline of ten thousand would hold up the calls on this loop."""
    monkeypatch.setattr("gateway.store.refusals._WRITTEN_AT_ONCE", 3)

    async def scenario() -> dict[str, int]:
        redis = open_redis(redis_url, 2)
        refusals = Refusals(redis, CALENDAR)
        for number in range(10):
            for _ in range(number + 1):
                refusals.count(AN, f"code_{number}", LATE_ON_THE_20TH_MS)
        await refusals.flush()
        counts = await refusals.over("acme", NOTEBOOK, DAYS)
        await redis.aclose()
        return counts

    assert {f"code_{number}": number + 1 for number in range(10)} == asyncio.run(scenario())


def test_the_background_task_writes_its_last_second_too(redis_url: str) -> None:
    """A gateway that is stopped in order loses none."""

    async def scenario() -> dict[str, int]:
        redis = open_redis(redis_url, 2)
        refusals, stop = Refusals(redis, CALENDAR, interval_s=60), asyncio.Event()
        task = asyncio.create_task(refusals.run(stop))
        refusals.count(AN, "budget_held", LATE_ON_THE_20TH_MS)
        stop.set()
        await task
        counts = await refusals.over("acme", NOTEBOOK, DAYS)
        await redis.aclose()
        return counts

    assert {"budget_held": 1} == asyncio.run(scenario())


def test_what_redis_does_not_take_waits(valkey: EmbeddedRedis, redis_url: str) -> None:
    """Its absence is no reason to forget, nor to fail."""

    async def scenario() -> dict[str, int]:
        redis = open_redis(redis_url, 2)
        refusals = Refusals(open_redis("unix:///nowhere/at-all", 2), CALENDAR)
        refusals.count(AN, "budget_held", LATE_ON_THE_20TH_MS)
        await refusals.flush()
        refusals.count(AN, "budget_held", LATE_ON_THE_20TH_MS)
        refusals._redis = redis
        await refusals.flush()
        counts = await refusals.over("acme", NOTEBOOK, DAYS)
        await redis.aclose()
        return counts

    assert {"budget_held": 2} == asyncio.run(scenario())


def test_one_keys_counts_cost_what_that_key_has(redis_url: str) -> None:
    """Whoever is refused most must not make the pages of all others slow."""

    async def bytes_read(refusals: Refusals, redis: Redis) -> int:
        begun = (await redis.info("stats"))["total_net_output_bytes"]
        assert {"budget_held": 1} == await refusals.over("acme", NOTEBOOK, DAYS)
        return int((await redis.info("stats"))["total_net_output_bytes"] - begun)

    async def scenario() -> tuple[int, int]:
        redis = open_redis(redis_url, 2)
        refusals = Refusals(redis, CALENDAR)
        refusals.count(AN, "budget_held", LATE_ON_THE_20TH_MS)
        await refusals.flush()
        await bytes_read(refusals, redis)
        alone = await bytes_read(refusals, redis)
        for number in range(200):
            refusals.count(Principal("acme", "red", "an", f"key-{number}"), "budget_held", LATE_ON_THE_20TH_MS)
        await refusals.flush()
        among_many = await bytes_read(refusals, redis)
        await redis.aclose()
        return alone, among_many

    alone, among_many = asyncio.run(scenario())
    assert among_many < alone + 100
