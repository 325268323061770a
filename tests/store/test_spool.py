"""The spool: what was kept is read again, whatever a crash did to the end of the file."""

import asyncio
import errno
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.billing.ledger import RELEASE, Posting
from gateway.billing.principal import Principal
from gateway.billing.usage import Usage
from gateway.store.admission import Claim, HoldRequest
from gateway.store.jobs import Job
from gateway.store.spool import Owed, Spool, read_spool

HOLD = HoldRequest("req-1", "req-1", Principal("o", "t", None, "k"), "chat", "gpt-4o", 100, "v")
CLAIMED = HoldRequest("req-2", "req-2", Principal("o", "t", "u", "k"), "image", "m", 7, "v", claim=Claim("n", "r"))
CHARGE = Posting("capture", 42, Usage(1, 2, 1, 0), "estimated", ("estimated", "unanswered"))
OWED = (
    Owed(HOLD, CHARGE),
    Owed(HOLD, RELEASE),
    Owed(CLAIMED, Posting("capture", 7, Usage(units=1)), Job("12", "s", CLAIMED, 5), 99),
)


def with_spool(folder: Path, work: Callable[[Spool], Awaitable[None]]) -> None:
    async def run() -> None:
        spool = Spool(folder)
        spool.open()
        try:
            await work(spool)
        finally:
            await spool.close()

    asyncio.run(run())


def only_file(folder: Path) -> Path:
    (path,) = folder.glob("*.spool")
    return path


def test_what_was_kept_is_read_back_whole(tmp_path: Path) -> None:
    """Every field of a posting, its claim and its image job: it must be posted as it would have been."""

    async def work(spool: Spool) -> None:
        for owed in OWED:
            await spool.keep(owed)

    with_spool(tmp_path, work)
    assert list(OWED) == list(read_spool(only_file(tmp_path).read_bytes(), "file"))


def test_a_file_cut_at_any_byte_gives_its_whole_records(tmp_path: Path) -> None:
    """A crash in the middle of a write leaves half a record, which nobody was told was kept."""

    async def work(spool: Spool) -> None:
        for owed in OWED:
            await spool.keep(owed)

    with_spool(tmp_path, work)
    content = only_file(tmp_path).read_bytes()
    counts = [len(list(read_spool(content[:length], "file"))) for length in range(len(content) + 1)]
    assert sorted(counts) == counts
    assert (0, 3) == (counts[0], counts[-1])
    assert {0, 1, 2, 3} == set(counts)


@pytest.mark.parametrize("at", [0, 5, 9, 40])
def test_a_damaged_record_is_never_posted(tmp_path: Path, at: int) -> None:
    """A flipped byte could change an amount: the checksum ends the file there."""

    async def work(spool: Spool) -> None:
        await spool.keep(OWED[0])

    with_spool(tmp_path, work)
    content = bytearray(only_file(tmp_path).read_bytes())
    content[at] ^= 0x55
    assert [] == list(read_spool(bytes(content), "file"))


def test_a_confirmed_posting_leaves_the_file(tmp_path: Path) -> None:
    """Once all are confirmed there is nothing to post again, and no file is left at the end."""

    async def work(spool: Spool) -> None:
        numbers = [await spool.keep(owed) for owed in OWED]
        for number in numbers:
            assert only_file(tmp_path).stat().st_size > 0
            await spool.drop(number)
        assert 0 == only_file(tmp_path).stat().st_size == len(spool)

    with_spool(tmp_path, work)
    assert [] == list(tmp_path.iterdir())


def test_a_file_is_taken_only_from_who_is_gone(tmp_path: Path) -> None:
    """Two that post the same would be harmless; one that deletes a living process's file would not."""

    async def scenario() -> None:
        living, other, third = Spool(tmp_path), Spool(tmp_path), Spool(tmp_path)
        for spool in (living, other, third):
            spool.open()
        await living.keep(OWED[0])
        assert [] == await other.left_behind()
        await living.close()
        (left,) = await other.left_behind()
        assert (OWED[0],) == left.owed
        assert [] == await third.left_behind()
        left.give_back()
        (left,) = await third.left_behind()
        left.forget()
        assert [] == await other.left_behind()
        await other.close()
        await third.close()

    asyncio.run(scenario())


def test_a_disk_that_takes_no_more_is_a_fault_until_it_does(tmp_path: Path) -> None:
    """Such a gateway is not ready; what it had kept before stays whole."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def work(spool: Spool) -> None:
        await spool.keep(OWED[0])
        room = only_file(tmp_path).stat().st_size + 20
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            with pytest.raises(OSError, match=r"."):
                await spool.keep(OWED[1])
            assert spool.fault
            assert 1 == len(spool)
            assert [OWED[0]] == list(read_spool(only_file(tmp_path).read_bytes(), "file"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert await spool.check()
        await spool.keep(OWED[1])
        assert not spool.fault
        assert list(OWED[:2]) == list(read_spool(only_file(tmp_path).read_bytes(), "file"))

    with_spool(tmp_path, work)


def test_a_long_outage_does_not_grow_the_file_without_bound(tmp_path: Path) -> None:
    """Where there is always one that is not confirmed, those that are must go all the same."""
    long_flags = Owed(HOLD, Posting("capture", 1, flags=("x" * 200_000,)))

    async def work(spool: Spool) -> None:
        last = await spool.keep(OWED[0])
        for _ in range(100):
            before, last = last, await spool.keep(long_flags)
            await spool.drop(before)
        assert only_file(tmp_path).stat().st_size < 10_000_000
        assert [long_flags] == list(read_spool(only_file(tmp_path).read_bytes(), "file"))[-1:]

    with_spool(tmp_path, work)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """It stops the start with a clear line, before any call is served."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r".") as raised:
        Spool(tmp_path / "file" / "spool").open()
    assert errno.ENOTDIR == raised.value.errno
