"""What is read from /proc: a wrong meter would make every figure wrong."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.processes import DidNotStart, Process, busy_s, cpu_s_of, free_port

SPIN = "import time\nwhile time.process_time() < {seconds}: pass"
LISTEN = """
import socket, sys
one = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    one.accept()
"""
SPIN_BELOW = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {SPIN.format(seconds=0.3)!r}])
{LISTEN}
"""
HOLD_BELOW = f"""
import subprocess, sys
below = subprocess.Popen([sys.executable, "-c", "held = bytearray(50_000_000); print(1, flush=True); input()"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
below.stdout.readline()
{LISTEN}
"""


def test_cpu_of_children_counts_also_once_they_have_ended(tmp_path: Path) -> None:
    """nginx and workers do their work in children."""
    with running(SPIN_BELOW, tmp_path) as process:
        assert 0.3 <= process.cpu_s() < 3


def test_memory_of_children_counts(tmp_path: Path) -> None:
    """The same for what they hold."""
    with running(HOLD_BELOW, tmp_path) as process:
        assert 2 == len(process.tree())
        assert 50_000_000 <= process.memory_bytes() < 100_000_000


def test_a_process_that_does_not_start_says_why(tmp_path: Path) -> None:
    """Its last words are in a log that is gone with the bench."""
    with pytest.raises(DidNotStart, match="no such thing"), running("raise SystemExit('no such thing')", tmp_path):
        pass


def test_a_process_runs_on_its_cpus_alone(tmp_path: Path) -> None:
    """And this one where it ran before."""
    before = os.sched_getaffinity(0)
    with running(LISTEN, tmp_path) as process:
        assert {min(before)} == os.sched_getaffinity(process.tree()[0])
    assert before == os.sched_getaffinity(0)


def test_the_machine_was_busy_at_least_as_long_as_this_process() -> None:
    """What is left when a bench takes away its own time is what others took."""
    assert 0 < cpu_s_of(os.getpid()) <= busy_s()


@contextmanager
def running(source: str, folder: Path) -> Iterator[Process]:
    """A Python program that listens on the port it is given, on the first CPU."""
    port = free_port()
    cpus = {min(os.sched_getaffinity(0))}
    process = Process([sys.executable, "-c", source, str(port)], port, cpus, folder / "program.log")
    try:
        process.wait_until_listening()
        yield process
    finally:
        process.stop()
