"""Processes beside the load: started on CPUs of their own, asked what they used, ended with the bench."""

import contextlib
import os
import re
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gateway.store.embedded import die_with_parent

ROOT = Path(__file__).resolve().parent.parent

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
TICK_S = 1 / _TICKS_PER_S
"""The least that can be seen of a process's CPU time."""
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 15.0
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


class DidNotStart(RuntimeError):
    """A process of the bench ended, or did not listen in time; the text ends in its last words."""


class Process:
    """A command that listens on a port of 127.0.0.1, with all its children: the tree that is measured."""

    def __init__(
        self, command: Sequence[str], port: int, cpus: set[int], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.port = port
        self._log = log
        with log.open("ab") as output, pinned_to(cpus):
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env={**_inherited(), **(env or {})},
                preexec_fn=die_with_parent,  # noqa: PLW1509  # this process has no other thread
            )

    def wait_until_listening(self) -> None:
        """Raises DidNotStart."""
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not _accepts(self.port):
            if self._popen.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                raise DidNotStart(f"{self._log.stem} did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.02)

    def cpu_s(self) -> float:
        """User and system seconds of the whole tree, children that have ended included."""
        return sum(cpu_s_of(pid) for pid in self.tree())

    def memory_bytes(self) -> int:
        """The tree's proportional set size: a page that several share counts once."""
        return sum(_pss_bytes(pid) for pid in self.tree())

    def tree(self) -> list[int]:
        """This process first, then all below it."""
        children = defaultdict(list)
        for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
            if fields := _stat(pid):
                children[int(fields[1])].append(pid)
        found = [self._popen.pid]
        for pid in found:  # grows while it is gone through
            found += children[pid]
        return found

    def stop(self) -> None:
        """End it; by force where it does not end."""
        if self._popen.poll() is None:
            self._popen.terminate()
        try:
            self._popen.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def cpu_s_of(pid: int) -> float:
    """User and system seconds of one process and of its children that have ended; 0 where it is gone."""
    return sum(int(ticks) for ticks in _stat(pid)[11:15]) / _TICKS_PER_S


def busy_s() -> float:
    """Seconds that all CPUs of this machine were busy since it started, whoever kept them so."""
    user, nice, system, _idle, _waiting, *interrupts = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(map(int, (user, nice, system, *interrupts))) / _TICKS_PER_S


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def gateway_and_other_cpus() -> tuple[set[int], set[int]]:
    """One CPU for what is measured, the rest for the load and all else; where there is one only, both are it."""
    first, *rest = sorted(os.sched_getaffinity(0))
    return {first}, set(rest) or {first}


@contextlib.contextmanager
def pinned_to(cpus: set[int]) -> Iterator[None]:
    """What is started within the block runs on these CPUs from its first instruction on."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _inherited() -> dict[str, str]:
    """This process's environment without what would set the gateway up, or send its calls through a proxy."""
    ours = ("gateway_", "minitoolai_", "redis_")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.lower().startswith(ours) and not name.lower().endswith("_proxy")
    }


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name; empty where the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _pss_bytes(pid: int) -> int:
    try:
        found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) * 1024 if found else 0


def _accepts(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex(("127.0.0.1", port)) == 0
