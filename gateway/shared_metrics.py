"""What several workers of one gateway count together: one scrape, through any of them, shows the sum.

Each worker writes what it counted into memory-mapped files of its own, once a second; whoever is scraped reads those of
all. The files are those of prometheus-client's multiprocess mode, which also adds them up (ADR 0017, ADR 0025).

Laws:
- A worker's number names its files, not its process id. Who takes a dead worker's place counts on in its files: no
  counter goes back, and there are never more files than workers.
- Gauges of a dead worker are emptied: what it had in flight is gone with it.
- A name that got series of its own is written down once for all workers, those to come included.
- The folder is the user's alone, and no two gateways share one. What a killed gateway left is removed by the next.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

FileKind = Literal["counter", "histogram", "gauge_livesum"]
"""What stands in a file: its name tells prometheus-client how to add it up. Gauges are those of workers that live."""
_COUNTED: tuple[FileKind, ...] = ("counter", "histogram")
_LIVE_GAUGES: FileKind = "gauge_livesum"
# Written out, not left sparse: a page that a full disk refuses later would end the worker (SIGBUS). Room for some
# thousand series; past that the files grow.
_FILE_BYTES = 1 << 20
_NOTHING_USED = bytes(8)
"""The head of a file: how many of its bytes are used."""


class MetricsFolder:
    """The files of one gateway's workers. `open_in` makes one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @contextlib.contextmanager
    def open_in(cls, data_dir: Path) -> Iterator["MetricsFolder"]:
        """A folder of this gateway's own for as long as the block runs. Raises OSError: it cannot be made."""
        parent = data_dir.absolute() / "metrics"
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _opened(parent) as descriptor, _locked(descriptor):
            _remove_abandoned(parent)
            path = Path(tempfile.mkdtemp(dir=parent))  # readable by its owner alone
            in_use = _lock(path)
        try:
            yield cls(path)
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(in_use)

    def prepare(self, worker: int) -> None:
        """Make a worker's files before it starts, and once more when it has ended: then its gauges are emptied.

        Raises OSError: a file cannot be made. Emptying takes no room on the disk.
        """
        share = self.share(worker)
        for kind in (*_COUNTED, _LIVE_GAUGES):
            if not (path := share.path_of(kind)).exists():
                _put_empty(path)
        with share.path_of(_LIVE_GAUGES).open("r+b") as gauges:
            gauges.write(_NOTHING_USED)

    def share(self, worker: int) -> "Share":
        """What the process of this worker is to count with."""
        return Share(self.path, worker)


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's share in the files of its gateway."""

    folder: Path
    worker: int

    def path_of(self, kind: FileKind) -> Path:
        return self.folder / f"{kind}_{self.worker}.db"

    def open(self) -> "SharedNumbers":
        """What this worker counted so far, and counts on. To be opened once, by the process that is this worker."""
        return SharedNumbers({kind: self.path_of(kind) for kind in (*_COUNTED, _LIVE_GAUGES)})

    def all_workers(self) -> Collector:
        """Collects what all workers have counted."""
        return _AllWorkers(self.folder)

    def names(self, what: str, most: int) -> "SharedNames":
        return SharedNames(self.folder / what, most)


class SharedNumbers:
    """The numbers of one worker, in its files. Only one thread may use them."""

    def __init__(self, paths: Mapping[FileKind, Path]) -> None:
        self._files = {
            kind: MmapedDict(str(path))  # type: ignore[no-untyped-call]  # it comes without types
            for kind, path in paths.items()
        }

    def number(
        self, kind: FileKind, metric: str, name: str, labels: Sequence[tuple[str, str]], text: str
    ) -> "SharedNumber":
        """The sample `name` of a metric with these labels; it begins at what stands in its file, or at zero."""
        key = mmap_key(metric, name, [label for label, _ in labels], [value for _, value in labels], text)
        return SharedNumber(self._files[kind], key)


class SharedNumber:
    """One number of a file, and what was last written of it."""

    __slots__ = ("_file", "_key", "value")

    def __init__(self, file: MmapedDict, key: str) -> None:
        self._file = file
        self._key = key
        self.value: float = file.read_value(key)[0]  # type: ignore[no-untyped-call]  # as above

    def write(self, value: float) -> None:
        """Let the other workers see it. Most numbers have not changed since the last time; those cost a comparison."""
        if value != self.value:
            self._file.write_value(self._key, value, 0.0)  # type: ignore[no-untyped-call]  # as above
            self.value = value


class SharedNames:
    """The first `most` names that any worker met. The file only ever grows, so what was read of it stays right."""

    def __init__(self, path: Path, most: int) -> None:
        self._most = most
        self._known: set[str] = set()
        # Kept open: where the folder is gone (the last calls of a killed gateway) there are names all the same.
        self._file = path.open("a+b", buffering=0)

    def has(self, name: str) -> bool:
        """Whether a name is among them; it becomes one where there is room (and the disk takes it)."""
        if name not in self._known and len(self._known) < self._most:
            with _locked(self._file):
                self._look_up(name)
        return name in self._known

    def close(self) -> None:
        self._file.close()

    def _look_up(self, name: str) -> None:
        self._file.seek(0)
        self._known = set(self._file.read().decode("ascii").split())
        if name in self._known or len(self._known) >= self._most:
            return
        with contextlib.suppress(OSError):  # a full disk must fail no call
            self._file.write(f"{name}\n".encode("ascii"))
            self._known.add(name)


class _AllWorkers(Collector):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        files = [str(path) for path in self._folder.glob("*.db")]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]  # as above
        return merged


def _put_empty(path: Path) -> None:
    """A scrape that reads meanwhile finds no file or this one; zeros are a file that has no series yet."""
    empty = path.with_suffix(".empty")
    empty.write_bytes(bytes(_FILE_BYTES))
    empty.replace(path)


def _remove_abandoned(parent: Path) -> None:
    """A gateway that lives holds the lock of its folder; the kernel drops it with the process."""
    for path in parent.iterdir():
        try:
            unused = _lock(path)
        except BlockingIOError:
            continue
        shutil.rmtree(path, ignore_errors=True)
        os.close(unused)


@contextlib.contextmanager
def _locked(file: IO[bytes] | int) -> Iterator[None]:
    """Nobody else has it meanwhile."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    """An open descriptor that holds the lock. Raises BlockingIOError: somebody else holds it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor
