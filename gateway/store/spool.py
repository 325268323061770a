"""The spool: postings that Redis has not answered yet, on this machine's disk, so that a crash does not lose them.

One file a process, in a folder of the data directory. A record is its length and CRC (two little-endian 32-bit
numbers), then JSON; it is written and synced before anyone relies on it. A record that a crash cut short ends the file:
nobody was told that it was kept. A posting may be sent to Redis any number of times, so whatever is still in a file
when its process ends is simply posted again, by whoever locks that file next.
"""

import asyncio
import contextlib
import fcntl
import itertools
import json
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from gateway.billing.ledger import Posting
from gateway.billing.usage import Usage
from gateway.store.admission import HoldRequest
from gateway.store.jobs import Job
from gateway.store.records import hold_facts, hold_of

log = logging.getLogger("gateway.spool")

T = TypeVar("T")

_HEAD = struct.Struct("<II")
_SUFFIX = ".spool"
_REWRITTEN_ABOVE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Owed:
    """One posting to be made; `job`, due at `first_poll_ms`, is the image job it pays for.

    `answer` is to be kept for who asks again under the call's Idempotency-Key. It is never written to the disk.
    """

    hold: HoldRequest
    posting: Posting
    job: Job | None = None
    first_poll_ms: int = 0
    answer: bytes = b""


class Spool:
    """This process's file, and those that others have left behind. Files are touched in one thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.fault = ""
        """Why the last write failed; empty while it did not. A gateway that cannot spool is not ready."""
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._numbers = itertools.count(1)
        self._kept: dict[int, bytes] = {}
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        """Postings in this process's file that are not confirmed yet."""
        return len(self._kept)

    def open(self) -> None:
        """Make this process's file. Raises OSError: the folder cannot be written."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        while self._file is None:
            path = self._folder / f"{os.getpid()}-{os.urandom(4).hex()}{_SUFFIX}"
            file = path.open("x+b", buffering=0)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists():  # between the two lines someone may have taken it for one left behind
                self._file = file
        _sync_folder(self._folder)

    async def keep(self, owed: Owed) -> int:
        """Write and sync one posting; returns the number to `drop` it by. Raises OSError, and says so in `fault`."""
        record, number = _record(owed), next(self._numbers)
        self._kept[number] = record  # before it is written: nothing that runs meanwhile may empty the file
        try:
            await self._in_thread(lambda: self._append(record))
        except OSError:
            del self._kept[number]
            raise
        return number

    async def drop(self, number: int) -> None:
        """That posting is confirmed: it need not be kept. Where the disk fails now, it is posted again some day."""
        self._kept.pop(number, None)
        with contextlib.suppress(OSError):
            await self._in_thread(self._shrink)

    async def check(self) -> bool:
        """Whether a posting could be kept now: writes and syncs an empty one."""
        with contextlib.suppress(OSError):
            await self._in_thread(lambda: self._append(_framed(b"")))
        return not self.fault

    async def left_behind(self) -> "list[LeftBehind]":
        """Files of processes that are gone, each locked from now on: `forget` each once its postings are made."""
        return await self._in_thread(lambda: list(_left_behind(self._folder, self._file)))

    async def close(self) -> None:
        """Give the file back; it is removed where nothing is left in it."""
        await self._in_thread(self._close)
        self._thread.shutdown()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except OSError as error:
            if not self.fault:
                log.error("the spool in %s cannot be written: %s", self._folder, error.strerror)
            self.fault = str(error.strerror or error)
            raise
        self.fault = ""
        return result

    def _append(self, record: bytes) -> None:
        file = self._opened()
        end = file.seek(0, os.SEEK_END)
        try:
            written = file.write(record)
            if written != len(record):
                raise OSError(28, "No space left on device")
            os.fsync(file.fileno())
        except OSError:
            # Half a record would hide those written behind it.
            file.truncate(end)
            raise
        if not self._kept and len(record) == _HEAD.size:
            file.truncate(0)

    def _shrink(self) -> None:
        """Once all is confirmed the file is empty again; in a long outage of short answers it is rewritten."""
        file = self._opened()
        if not self._kept:
            file.truncate(0)
            return
        kept_bytes = sum(map(len, self._kept.values()))
        if file.seek(0, os.SEEK_END) > max(_REWRITTEN_ABOVE_BYTES, 4 * kept_bytes):
            self._rewrite()

    def _rewrite(self) -> None:
        """The records that count, in a new file; the old one goes only when that is safe on the disk."""
        old, old_path = self._opened(), Path(self._opened().name)
        self._file = None
        try:
            self.open()
            for record in list(self._kept.values()):
                self._append(record)
        except OSError:
            self._file = old
            raise
        old_path.unlink()
        old.close()

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise OSError(9, "the spool is not open")
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            if not self._kept:
                Path(self._file.name).unlink(missing_ok=True)
            self._file.close()
            self._file = None


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """The file of a process that is gone."""

    file: IO[bytes]
    owed: tuple[Owed, ...]

    def forget(self) -> None:
        """Its postings are made."""
        Path(self.file.name).unlink(missing_ok=True)
        self.file.close()

    def give_back(self) -> None:
        """Not now: whoever looks next may try."""
        self.file.close()


def _left_behind(folder: Path, own: IO[bytes] | None) -> Iterator[LeftBehind]:
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        if own is not None and path == Path(own.name):
            continue
        with contextlib.suppress(OSError):  # locked by the process it belongs to, or gone meanwhile
            file = path.open("r+b", buffering=0)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                raise
            yield LeftBehind(file, tuple(read_spool(file.read(), path.name)))


def read_spool(content: bytes, name: str) -> Iterator[Owed]:
    """All whole records of a file; the first that is not whole ends it."""
    at = 0
    while at + _HEAD.size <= len(content):
        length, crc = _HEAD.unpack_from(content, at)
        payload = content[at + _HEAD.size : at + _HEAD.size + length]
        if len(payload) < length or zlib.crc32(payload) != crc:
            log.warning("%s: what follows byte %d is not whole and was never relied on", name, at)
            return
        at += _HEAD.size + length
        if payload:
            yield _owed(payload)


def _record(owed: Owed) -> bytes:
    facts: dict[str, object] = {
        "hold": hold_facts(owed.hold),
        "type": owed.posting.type,
        "cost": owed.posting.cost_nano_usd,
        "usage": [
            owed.posting.usage.prompt_tokens,
            owed.posting.usage.completion_tokens,
            owed.posting.usage.cached_tokens,
            owed.posting.usage.units,
        ],
        "usage_source": owed.posting.usage_source,
        "flags": owed.posting.flags,
    }
    if owed.job is not None:
        facts["job"] = [owed.job.jobid, owed.job.signature, owed.job.submitted_at_ms, owed.first_poll_ms]
    return _framed(json.dumps(facts, separators=(",", ":")).encode())


def _framed(payload: bytes) -> bytes:
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def _owed(payload: bytes) -> Owed:
    facts = json.loads(payload)
    hold = hold_of(facts["hold"])
    usage = Usage(*facts["usage"])
    posting = Posting(facts["type"], facts["cost"], usage, facts["usage_source"], tuple(facts["flags"]))
    if "job" not in facts:
        return Owed(hold, posting)
    jobid, signature, submitted_at_ms, first_poll_ms = facts["job"]
    return Owed(hold, posting, Job(jobid, signature, hold, submitted_at_ms), first_poll_ms)


def _sync_folder(folder: Path) -> None:
    """A new file is safe once the folder that names it is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
