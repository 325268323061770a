"""The spool: what was kept is read again, whatever a crash did to the end of the file."""

import asyncio
import errno
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.billing.ledger import RELEASE, Posting
from gateway.billing.principal import Principal
from gateway.billing.usage import Usage
from gateway.store.admission import Claim, HoldRequest
from gateway.store.jobs import Job
from gateway.store.spool import Spool
from gateway.store.spool_file import Owed, SpoolContent, framed, read_spool, record_of

HOLD = HoldRequest("req-1", "req-1", Principal("o", "t", None, "k"), "chat", "gpt-4o", 100, "v")
CLAIMED = HoldRequest("req-2", "req-2", Principal("o", "t", "u", "k"), "image", "m", 7, "v", claim=Claim("n", "r"))
CHARGE = Posting("capture", 42, Usage(1, 2, 1, 0), "estimated", ("estimated", "unanswered"))
OWED = (
    Owed(HOLD, CHARGE),
    Owed(HOLD, RELEASE),
    Owed(CLAIMED, Posting("capture", 7, Usage(units=1)), (Job("12", "s", CLAIMED, 5),), 99),
    Owed(CLAIMED, CHARGE, tuple(Job(str(n), "s", CLAIMED, 5, share_nano_usd=3, number=n) for n in range(2)), 99),
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
    assert list(OWED) == list(read_spool(only_file(tmp_path).read_bytes()).owed)


def test_a_file_cut_at_any_byte_gives_its_whole_records() -> None:
    """A crash in the middle of a write leaves half a record, which nobody was told was kept: that is no damage."""
    ends = [0]
    for owed in OWED:
        ends.append(ends[-1] + len(record_of(owed)))
    content = b"".join(map(record_of, OWED))
    for length in range(len(content) + 1):
        whole = max(number for number, end in enumerate(ends) if end <= length)
        expected = SpoolContent(OWED[:whole], torn_bytes=length - ends[whole])
        assert expected == read_spool(content[:length])


def test_damage_at_any_byte_costs_the_record_it_is_in_and_no_other() -> None:
    """Those behind it were kept too; a flipped byte could change an amount, so the checksum decides."""
    records = list(map(record_of, OWED))
    for number, record in enumerate(records):
        for at in range(len(record)):
            damaged = bytearray(record)
            damaged[at] ^= 0x55
            content = b"".join([*records[:number], bytes(damaged), *records[number + 1 :]])
            expected = SpoolContent((*OWED[:number], *OWED[number + 1 :]), damaged=1)
            assert expected == read_spool(content), (number, at)


@pytest.mark.parametrize(
    "payload",
    [b'{"hold":{}}', b"null", b"[1]", b"\xff", b'{"hold":1}', b'{"hold":{"hold":"x"},"type":"capture"}'],
)
def test_a_record_of_another_version_costs_no_other(payload: bytes) -> None:
    """It is whole, so someone relied on it: it is told apart from damage, and a gateway that knows it can post it."""
    content = record_of(OWED[0]) + framed(payload) + record_of(OWED[1])
    assert SpoolContent(OWED[:2], unreadable=1) == read_spool(content)


@pytest.mark.parametrize("cost", [-1, 2**53, 1.5, True, "7", None])
def test_an_amount_that_redis_would_refuse_is_not_tried_for_ever(cost: Any) -> None:
    """A refusal looks like an outage, and all files behind this one would wait for its end."""
    posting = Posting("capture", cost, Usage(1, 2, 1, 0))
    assert SpoolContent((), unreadable=1) == read_spool(record_of(Owed(HOLD, posting)))


def test_a_file_that_cannot_be_opened_keeps_no_other_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is told once, not at each look."""
    (tmp_path / "0-folder.spool").mkdir()
    (tmp_path / "1-whole.spool").write_bytes(record_of(OWED[0]))

    async def work(spool: Spool) -> None:
        for _ in range(2):
            (left,) = await spool.left_behind()
            assert OWED[:1] == left.content.owed
            left.give_back()

    with_spool(tmp_path, work)
    (record,) = caplog.records
    assert "0-folder.spool cannot be read" in record.message


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
        assert (OWED[0],) == left.content.owed
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
            assert [OWED[0]] == list(read_spool(only_file(tmp_path).read_bytes()).owed)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert await spool.check()
        await spool.keep(OWED[1])
        assert not spool.fault
        assert list(OWED[:2]) == list(read_spool(only_file(tmp_path).read_bytes()).owed)

    with_spool(tmp_path, work)


def test_a_disk_without_room_for_a_record_is_found_before_one_comes(tmp_path: Path) -> None:
    """There may be room for eight bytes: a gateway must not be sent calls whose charges it could not keep."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def work(spool: Spool) -> None:
        await spool.keep(OWED[0])
        kept_bytes = only_file(tmp_path).stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (kept_bytes + len(record_of(OWED[1])) - 1, limits[1]))
        try:
            assert not await spool.check()
            assert [] == await spool.left_behind()
            assert spool.fault, "what is read says nothing about what can be written"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert await spool.check()
        assert kept_bytes == only_file(tmp_path).stat().st_size

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
        assert [long_flags] == list(read_spool(only_file(tmp_path).read_bytes()).owed)[-1:]

    with_spool(tmp_path, work)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """It stops the start with a clear line, before any call is served."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r".") as raised:
        Spool(tmp_path / "file" / "spool").open()
    assert errno.ENOTDIR == raised.value.errno
