"""Archives that are written while gateways work, and books that are built again from them, on a real Valkey."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.billing.principal import Principal, Scope
from gateway.billing.scope import ScopeSettings
from gateway.store.archive import Archive, Archiver, UnfitArchive, read_archive
from gateway.store.bookkeeping import Bookkeeping
from tests.store.bench import RED, Bench, capture

FAR_AHEAD_MS = 10**14
NEWCOMERS = 15


class Newcomers:
    """Teams, each with a user and a key that makes a call."""

    def __init__(self, bench: Bench) -> None:
        self.count = 0
        self._bench = bench

    async def come(self) -> None:
        self.count += 1
        bench, name = self._bench, f"x{self.count:04}"
        await bench.scopes.create(bench.org, ScopeSettings("team", name))
        await bench.scopes.create(bench.org, ScopeSettings("user", name, team=name))
        digest = hashlib.sha256(name.encode()).hexdigest()
        key = ScopeSettings("key", name, team=name, user=name)
        await bench.scopes.create(bench.org, key, secret_digest=digest)
        request = bench.call(10, Principal(bench.org, name, name, name))
        await bench.ledger.admit(request)
        await bench.ledger.settle(request, capture(7))


async def nothing() -> None:
    return None


def archived(bench: Bench, path: Path, *, between: Callable[[], Awaitable[None]] = nothing) -> Archive:
    """An archive; `between` happens in front of each of its lines."""

    async def write() -> None:
        with path.open("wb") as file:
            async for line in Archiver(bench.redis, bench.org).lines():
                await between()
                file.write(line)

    bench.run(write())
    return read_archive(path)


def rebuilt(bench: Bench, archive: Archive) -> None:
    """In an emptied Redis; all adds up there."""
    bench.run(bench.redis.flushall())
    books = Bookkeeping(bench.redis, bench.scripts, bench.reports, bench.org)
    assert len(archive.entries) == bench.run(books.rebuild([archive], bench.scopes))
    assert [] == bench.run(bench.audit.run()).differences


def changed_archive(path: Path, keep: Callable[[dict[str, object]], bool]) -> Archive:
    """The archive without some of its lines, and a checksum that is right again."""
    *lines, foot = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if keep(json.loads(line))]
    checksum = hashlib.sha256(b"".join(kept)).hexdigest()
    foot = json.dumps(json.loads(foot) | {"sha256": checksum}).encode() + b"\n"
    path.write_bytes(b"".join([*kept, foot]))
    return read_archive(path)


def test_an_archive_of_a_working_gateway_is_whole(bench: Bench, tmp_path: Path) -> None:
    """Teams, users, keys and calls come in front of each of its lines: whatever it names it has."""
    newcomers = Newcomers(bench)
    bench.run(newcomers.come())
    archive = archived(bench, tmp_path / "books", between=newcomers.come)
    assert newcomers.count > 10
    rebuilt(bench, archive)


def test_archives_one_after_another_are_whole(bench: Bench, tmp_path: Path) -> None:
    """The same with nobody keeping step: many come at once while archive after archive is written."""
    newcomers = Newcomers(bench)
    paths: list[Path] = []

    async def write_until(coming: asyncio.Future[list[None]]) -> None:
        while not coming.done():
            paths.append(tmp_path / str(len(paths)))
            with paths[-1].open("wb") as file:
                async for line in Archiver(bench.redis, bench.org).lines():
                    file.write(line)

    async def all_at_once() -> None:
        await write_until(asyncio.gather(*(come_often() for _ in range(3))))

    async def come_often() -> None:
        for _ in range(NEWCOMERS):
            await newcomers.come()

    bench.run(all_at_once())
    assert paths
    for path in paths:
        rebuilt(bench, read_archive(path))


def test_an_archive_is_none_where_entries_went_meanwhile(bench: Bench, tmp_path: Path) -> None:
    """What was trimmed before it was read is in none of its lines."""
    bench.run(Newcomers(bench).come())
    whole = archived(bench, tmp_path / "whole")
    bench.run(bench.reports.catch_up(bench.org))
    lines: list[None] = []

    async def trim_once() -> None:
        lines.append(None)
        if len(lines) == 2:  # the head stands in front of all reading
            await Bookkeeping(bench.redis, bench.scripts, bench.reports, bench.org).trim(FAR_AHEAD_MS, whole)

    with pytest.raises(UnfitArchive, match="taken out while"):
        archived(bench, tmp_path / "books", between=trim_once)


@pytest.mark.parametrize("lacks", ["team", "user", "key", "organisation"])
def test_an_archive_that_lacks_a_scope_leaves_redis_empty(bench: Bench, tmp_path: Path, lacks: str) -> None:
    """Checked before the first write: what was half built would have to be emptied by hand."""
    bench.run(Newcomers(bench).come())
    archived(bench, tmp_path / "books")
    archive = changed_archive(tmp_path / "books", lambda record: record.get("scope") != lacks)
    bench.run(bench.redis.flushall())
    with pytest.raises(UnfitArchive, match=f"^{lacks} .* no settings in the archive"):
        bench.run(Bookkeeping(bench.redis, bench.scripts, bench.reports, bench.org).rebuild([archive], bench.scopes))
    assert {} == bench.everything()


def test_scopes_are_built_again_in_whatever_order_they_stand(bench: Bench, tmp_path: Path) -> None:
    """Those around before those inside, though the file says it the other way."""
    bench.run(Newcomers(bench).come())
    archive = archived(bench, tmp_path / "books")
    archive.scopes.reverse()
    rebuilt(bench, archive)
    assert (0, 0) == bench.spent_and_held(RED)
    assert (7, 0) == bench.spent_and_held(Scope("key", "x0001"))
