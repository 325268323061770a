"""Log lines of several processes on one output, and of one whose output nobody takes."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

BEGINS = """
import asyncio, logging, select, sys
from pathlib import Path
from gateway.cli.logs import configure_logging
turn = Path(sys.argv[1])
log = logging.getLogger("gateway.call")  # whose records are lines already
"""

TWO_KINDS = """
async def main():
    write_soon = configure_logging(turn).of_caller
    for _ in range(200):
        log.info(sys.argv[2] * 20_000)
        write_soon(sys.argv[2] * 3_000)
        await asyncio.sleep(0)
asyncio.run(main())
"""

IN_TURN = """
async def main():
    write_soon = configure_logging(turn if sys.argv[2] == "shared" else None).of_caller
    for number in range(0, 1000, 2):
        write_soon(str(number))
        log.info(number + 1)
    write_soon("the last")
asyncio.run(main())
"""

NOBODY_READS = """
async def main():
    write_soon = configure_logging(turn if sys.argv[2] == "shared" else None).of_caller
    output = select.poll()
    output.register(sys.stdout.fileno(), select.POLLOUT)
    for number in range(1000):
        write_soon(f"{number:0500}")
    while output.poll(0):
        await asyncio.sleep(0)
    for number in range(1000, 1500):
        write_soon(f"{number:0500}")
    for _ in range(3):
        await asyncio.sleep(0.01)  # a timer that ends after that of the lines
    print("the loop goes on", file=sys.stderr, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for number in range(1500, 5000):
        write_soon(f"{number:0500}")
asyncio.run(main())
"""

STOPPED = """
import json
from collections import Counter
from gateway.call_log import log_refused

async def main():
    lines = configure_logging(turn if sys.argv[2] == "shared" else None)
    dropped = Counter()
    lines.on_dropped = lambda whose: dropped.update([whose])
    for number in range(5_000):
        log_refused("req-1", 400, "invalid_request", "192.0.2.1")
        lines.of_stranger('{"event":"request"}')
        await asyncio.sleep(0)
    for number in range(25_000):
        lines.of_caller('{"event":"call","number":%d}' % number)
    log.info("x" * 1_000_000)
    await asyncio.to_thread(logging.getLogger("a thread").warning, "y" * 1_000_000)
    for _ in range(3):
        await asyncio.sleep(0.01)  # a timer that ends after that of the lines
    print(json.dumps(dropped), file=sys.stderr, flush=True)
    await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""

REMARKS = """
async def main():
    configure_logging()
    server = logging.getLogger("uvicorn.error")
    server.error("first\\nsecond\\x1b[31m\\x7f\\u2028")
    try:
        raise ValueError("a\\nb")
    except ValueError:
        server.exception("Exception in ASGI application\\n")
asyncio.run(main())
"""

CLOSED = """
async def main():
    write_soon = configure_logging().of_caller
    sys.stdin.read()
    for _ in range(3):
        write_soon("nobody will read this")
        await asyncio.sleep(0.01)
    print("the loop goes on", file=sys.stderr, flush=True)
asyncio.run(main())
"""


def test_lines_of_two_processes_are_never_mixed(tmp_path: Path, repository: Path) -> None:
    """Longer than what a pipe keeps together, records and calls' lines, and both processes at once."""
    read, write = os.pipe()
    command = [sys.executable, "-c", BEGINS + TWO_KINDS, str(tmp_path / "turn")]
    writers = [subprocess.Popen([*command, letter], stdout=write, cwd=repository) for letter in "ab"]
    os.close(write)
    with os.fdopen(read) as output:
        lines = output.read().splitlines()
    assert [0, 0] == [writer.wait() for writer in writers]
    expected = [letter * length for letter in "ab" for length in (3_000, 20_000) for _ in range(200)]
    assert expected == sorted(lines)


def test_a_record_is_one_line(tmp_path: Path, repository: Path) -> None:
    """The server's own, with its traceback; whoever sent what it quotes begins no line and commands no terminal."""
    with started(REMARKS, tmp_path, "alone", repository) as writer:
        text, _ = writer.communicate(timeout=60)
    assert text.isascii()
    remark, fault = map(json.loads, text.splitlines())
    assert ("log", "error", "uvicorn.error") == (remark["event"], remark["level"], remark["logger"])
    assert "first\nsecond\x1b[31m\x7f\u2028" == remark["message"]
    assert fault["traceback"].endswith("ValueError: a\nb")


@pytest.mark.parametrize("output", ["shared", "alone"])
def test_calls_and_records_stand_in_the_order_they_came(tmp_path: Path, repository: Path, output: str) -> None:
    """What a call's error was is told above its line; the very last line is written though the process ends at once."""
    with started(IN_TURN, tmp_path, output, repository) as writer:
        text, _ = writer.communicate(timeout=60)
    assert [*map(str, range(1000)), "the last"] == text.splitlines()


@pytest.mark.parametrize("output", ["shared", "alone"])
def test_while_nobody_reads_the_loop_goes_on_and_no_line_is_lost(tmp_path: Path, repository: Path, output: str) -> None:
    """A collector of logs that hangs for a while must not stop calls, nor cost them their lines."""
    with started(NOBODY_READS, tmp_path, output, repository) as writer:
        assert "the loop goes on\n" == told_by(writer)
        text, _ = writer.communicate(timeout=60)
    assert [f"{number:0500}" for number in range(5000)] == text.splitlines()


@pytest.mark.parametrize("output", ["shared", "alone"])
def test_of_a_reader_that_has_stopped_only_lines_are_lost(tmp_path: Path, repository: Path, output: str) -> None:
    """The loop goes on, whatever is told. Strangers' lines take no room from calls'; each that is lost is counted, and
    the log itself says how many."""
    with started(STOPPED, tmp_path, output, repository) as writer:
        dropped = json.loads(told_by(writer))
        text, _ = writer.communicate(timeout=60)
    *lines, last = map(json.loads, text.splitlines())
    calls = [line["number"] for line in lines if line["event"] == "call"]
    strangers = [line for line in lines if line["event"] != "call"]
    assert list(range(len(calls))) == calls
    assert len(calls) >= 20_000
    assert (25_000 + 2 - len(calls), 10_000 - len(strangers)) == (dropped["caller"], dropped["stranger"])
    assert f"{sum(dropped.values())} lines are left out" in last["message"]


def test_the_end_does_not_wait_for_a_reader_that_has_stopped(tmp_path: Path, repository: Path) -> None:
    """A gateway that is told to end must end."""
    with started(STOPPED, tmp_path, "alone", repository) as writer:
        assert told_by(writer)
        assert writer.stdin is not None
        writer.stdin.close()
        assert 0 == writer.wait(timeout=60)


def test_where_nobody_will_read_any_more_the_loop_goes_on(tmp_path: Path, repository: Path) -> None:
    """`gateway serve | head` must serve on."""
    with started(CLOSED, tmp_path, "alone", repository) as writer:
        assert writer.stdout is not None
        writer.stdout.close()
        assert writer.stdin is not None
        writer.stdin.close()
        assert "the loop goes on\n" == told_by(writer)


def started(script: str, folder: Path, argument: str, repository: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BEGINS + script, str(folder / "turn"), argument]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=repository, text=True)


def told_by(writer: subprocess.Popen[str]) -> str:
    """Its next line on standard error; "" where it tells nothing in a minute: then it is ended."""
    assert writer.stderr is not None
    if not select.select([writer.stderr], [], [], 60)[0]:
        writer.kill()
        return ""
    return writer.stderr.readline()
