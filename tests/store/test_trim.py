"""Entries are taken out on a real Valkey: while somebody else does the same, and where Redis is full."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.store.archive import Archive, Archiver, read_archive
from gateway.store.bookkeeping import Bookkeeping, NotTrimmed, Trimmed
from tests.store.bench import ORGANISATION, Bench, capture

FAR_AHEAD_MS = 10**14
FULL_BYTES = 1
"""As `maxmemory`: whatever Redis has is more."""
COMMANDS = 8
"""More than a trim sends by itself, beside its scripts."""


class Interrupted:
    """A client of Redis in front of whose command number `number` something else happens, all of it."""

    def __init__(self, redis: Redis, number: int, between: Callable[[], Awaitable[object]]) -> None:
        self._redis = redis
        self._left = number
        self._between = between

    def __getattr__(self, name: str) -> Any:
        command = getattr(self._redis, name)

        async def run(*words: Any, **options: Any) -> Any:
            await self._count()
            return await command(*words, **options)

        return self.pipeline if name == "pipeline" else run

    def pipeline(self, transaction: bool) -> Any:
        pipeline = self._redis.pipeline(transaction=transaction)
        execute = pipeline.execute

        async def counted() -> Any:
            await self._count()
            return await execute()

        pipeline.execute = counted  # type: ignore[method-assign,assignment]
        return pipeline

    async def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            await self._between()


def archived(bench: Bench, path: Path) -> Archive:
    async def write() -> None:
        with path.open("wb") as file:
            async for line in Archiver(bench.redis, bench.org).lines():
                file.write(line)

    bench.run(write())
    return read_archive(path)


def calls(bench: Bench, count: int) -> int:
    """So many calls; an instant behind all of them, and before whatever comes next."""
    for _ in range(count):
        request = bench.call(10)
        bench.admit(request)
        bench.settle(request, capture(7))
    newest_ms = bench.entries()[-1].at_ms
    while bench.now_ms() <= newest_ms + 1:
        pass
    return newest_ms + 1


def trimming(bench: Bench, redis: Any, before_ms: int, archive: Archive) -> Awaitable[Trimmed]:
    return Bookkeeping(redis, bench.scripts, bench.reports, bench.org).trim(before_ms, archive)


@pytest.mark.parametrize("number", range(1, COMMANDS))
def test_a_trim_in_the_middle_of_another_loses_nothing(bench: Bench, tmp_path: Path, number: int) -> None:
    """Whichever command it comes in front of: what the one carries stands in the other, or the later one gives up."""
    middle_ms = calls(bench, 3)
    end_ms = calls(bench, 2)
    archive = archived(bench, tmp_path / "books")

    async def both() -> list[object]:
        done: list[object] = []

        async def other() -> None:
            done.append(await trimming(bench, bench.redis, middle_ms, archive))

        try:
            done.append(await trimming(bench, Interrupted(bench.redis, number, other), end_ms, archive))
        except NotTrimmed as refused:
            done.append(refused)
        return done

    bench.run(both())
    assert [] == bench.run(bench.audit.run()).differences
    assert 35 == bench.books().spent[ORGANISATION]


def full(bench: Bench, *, on: bool) -> None:
    bench.run(bench.redis.config_set("maxmemory", FULL_BYTES if on else 0))


def test_a_full_redis_can_be_trimmed(bench: Bench, tmp_path: Path) -> None:
    """It is what frees it: the audit before it and the trim itself write nothing that grows before something went."""
    calls(bench, 3)
    archive = archived(bench, tmp_path / "books")
    bench.run(bench.reports.catch_up(bench.org))
    full(bench, on=True)
    try:
        assert [] == bench.run(bench.audit.run()).differences
        assert 3 == bench.run(trimming(bench, bench.redis, FAR_AHEAD_MS, archive)).count
    finally:
        full(bench, on=False)
    assert [] == bench.run(bench.audit.run()).differences


def test_a_full_redis_whose_reports_are_behind_is_told(bench: Bench, tmp_path: Path) -> None:
    """Taking out what no report has counted would lose it there; the audit checks what the reports have."""
    calls(bench, 3)
    archive = archived(bench, tmp_path / "books")
    full(bench, on=True)
    try:
        assert [] == bench.run(bench.audit.run()).differences
        before = bench.everything()
        with pytest.raises(NotTrimmed, match="is it full"):
            bench.run(trimming(bench, bench.redis, FAR_AHEAD_MS, archive))
        assert before == bench.everything()
    finally:
        full(bench, on=False)
    assert 3 == bench.run(trimming(bench, bench.redis, FAR_AHEAD_MS, archive)).count
