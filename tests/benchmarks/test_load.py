"""The load against servers that answer right, wrong, or not to the end."""

import asyncio
import contextlib
import itertools
import os
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from benchmarks.calls import body_of, request_of, requests_of
from benchmarks.load import Load, WrongAnswer, percentile, run_load
from benchmarks.processes import Process, free_port
from benchmarks.upstream import Shape, pieces_of

Handler = Callable[[asyncio.StreamWriter], Awaitable[None]]

REQUEST = request_of(1, "sk-1", body_of(Shape(3)))
RIGHT = b"".join(pieces_of(Shape(3)))


def test_each_answer_is_counted_and_timed(tmp_path: Path) -> None:
    """From the instant it was sent to the first byte of its body, and to its end."""
    load = loaded_upstream(tmp_path, Shape(events=4, gap_ms=20), connections=3, seconds=0)
    assert (3, 3) == (load.answers, len(load.first_byte_s))
    assert all(0 < first_s < whole_s for first_s, whole_s in zip(load.first_byte_s, load.whole_s, strict=True))


def test_connections_go_on_until_the_seconds_are_over(tmp_path: Path) -> None:
    """Closed loop: one call after the other."""
    load = loaded_upstream(tmp_path, Shape(3), connections=2, seconds=0.1)
    assert load.answers > 2
    assert load.ended_s - load.began_s >= 0.1


def test_answers_that_are_open_at_once_are_counted(tmp_path: Path) -> None:
    """The bench of open streams would else measure streams that came one after the other."""
    load = loaded_upstream(tmp_path, Shape(events=10, gap_ms=30), connections=5, seconds=0)
    assert (5, 0) == (load.most_open, load.open)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (RIGHT.replace(b"200 OK", b"402 Payment Required"), "402"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "200 … {}"),
        (RIGHT[:-40], "closed before its answer had ended"),
    ],
    ids=["a refusal", "no stream", "cut off"],
)
def test_a_wrong_answer_ends_the_load(answer: bytes, told: str) -> None:
    """What was not the whole work must not be measured as if it were."""

    async def answering(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    with pytest.raises(WrongAnswer, match=told):
        asyncio.run(loaded(answering))


def test_the_end_is_found_at_any_split() -> None:
    """`[DONE]` may arrive in two reads."""

    async def answering(writer: asyncio.StreamWriter) -> None:
        for position in range(len(RIGHT)):
            writer.write(RIGHT[position : position + 1])
            await writer.drain()
            await asyncio.sleep(0)

    assert 1 == asyncio.run(loaded(answering)).answers


@pytest.mark.parametrize(("share", "expected"), [(0.5, 51.0), (0.99, 100.0), (1.0, 100.0), (0.0, 1.0)])
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    """In whatever order they come."""
    assert expected == percentile([float(value) for value in range(100, 0, -1)], share)


def test_keys_take_turns_beyond_one_load() -> None:
    """Were each turn to begin with the first keys anew, caches would know them, and many keys look like few."""
    keys = deque(["sk-1", "sk-2", "sk-3"])
    asked = [next(requests_of(1, keys, b"{}")) for _ in range(4)]
    assert [request_of(1, key, b"{}") for key in ("sk-2", "sk-3", "sk-1", "sk-2")] == asked


def loaded_upstream(folder: Path, shape: Shape, *, connections: int, seconds: float) -> Load:
    """The load on the upstream of the benches."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.upstream", str(port)]
    upstream = Process(command, port, os.sched_getaffinity(0), folder / "upstream.log")
    try:
        upstream.wait_until_listening()
        requests = itertools.repeat(request_of(port, "sk-1", body_of(shape)))
        return asyncio.run(run_load(port, requests, connections, seconds))
    finally:
        upstream.stop()


async def loaded(answering: Handler) -> Load:
    """One call to a server of ours."""
    ended = asyncio.Event()

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(REQUEST))
        with contextlib.closing(writer):
            await answering(writer)
        ended.set()

    async with await asyncio.start_server(answered, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        try:
            return await run_load(port, itertools.repeat(REQUEST), connections=1, seconds=0)
        finally:
            await ended.wait()
