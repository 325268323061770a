"""The spool: postings that Redis has not answered yet, on this machine's disk, so that a crash does not lose them.

One file a process, in a folder of the data directory; `spool_file` is what stands in it. A record is written and synced
before anyone relies on it. A posting may be sent to Redis any number of times, so whatever is still in a file when its
process ends is simply posted again, by whoever locks that file next. A file that could not be read whole is not removed
then, but set aside under another name: people decide what becomes of it.
"""

import asyncio
import contextlib
import fcntl
import itertools
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from gateway.store.spool_file import PROBE, Owed, SpoolContent, framed, read_spool, record_of

log = logging.getLogger("gateway.spool")

T = TypeVar("T")

_SUFFIX = ".spool"
_REWRITTEN_ABOVE_BYTES = 8 * 1024 * 1024


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
        self._closed_to_us: set[Path] = set()

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
        record, number = record_of(owed), next(self._numbers)
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
        """Whether a posting could be kept now: writes and syncs one that says nothing, and takes it out again."""
        with contextlib.suppress(OSError):
            await self._in_thread(self._probe)
        return not self.fault

    async def left_behind(self) -> "list[LeftBehind]":
        """Files of processes that are gone, each locked from now on: `forget` each once its postings are made."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: list(self._left_behind()))

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

    def _probe(self) -> None:
        file = self._opened()
        end = file.seek(0, os.SEEK_END)
        self._append(framed(PROBE))
        file.truncate(end)

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

    def _left_behind(self) -> "Iterator[LeftBehind]":
        own = None if self._file is None else Path(self._file.name)
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            if path == own:
                continue
            try:
                yield _taken(path)
            except (BlockingIOError, FileNotFoundError):
                continue  # locked by the process it belongs to, or gone meanwhile
            except OSError as error:  # the others can be posted all the same
                if path not in self._closed_to_us:
                    log.error("%s cannot be read: %s", path, error.strerror)
                self._closed_to_us.add(path)

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
    content: SpoolContent

    def forget(self) -> Path | None:
        """Its postings are made. Returns where it is now, if some of it could not be read and people must look.

        Raises OSError: the folder cannot be written; it is still there.
        """
        path, fault = Path(self.file.name), self.content.fault
        aside = path.with_suffix(f".{fault}") if fault else None
        if aside is None:
            path.unlink(missing_ok=True)
        else:
            path.rename(aside)
        self.file.close()
        return aside

    def give_back(self) -> None:
        """Not now: whoever looks next may try."""
        self.file.close()


def _taken(path: Path) -> LeftBehind:
    """Locked and read. Raises BlockingIOError: its process lives."""
    file = path.open("r+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return LeftBehind(file, read_spool(file.read()))
    except OSError:
        file.close()
        raise


def _sync_folder(folder: Path) -> None:
    """A new file is safe once the folder that names it is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
