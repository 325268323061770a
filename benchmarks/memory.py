"""The benches of memory: many open streams, and readers that stop reading."""

import asyncio
from typing import Any

from benchmarks.beside import SMALL
from benchmarks.calls import body_of, request_of, requests_of
from benchmarks.compare import Case, Effort, measured
from benchmarks.load import Exchange, connect, run_load
from benchmarks.processes import Process
from benchmarks.report import Figure, Outcome, Row
from benchmarks.stack import Side, Stack
from benchmarks.upstream import Shape

_MIB = 1024 * 1024
_GAP_MS = 300
_LARGE_ANSWER = Shape(events=56_000)
_STALLED_READERS = 8
_LOOK_S = 0.25


async def streams(stack: Stack, effort: Effort) -> Outcome:
    """512 open streams, before and after the encoding of tiktoken is loaded (at the first count of tokens)."""
    count = effort.scaled(512)
    # A lease that is renewed counts tokens, and so loads tiktoken: here none is.
    side = await stack.gateway(lease_s="3600")
    outcome = Outcome()
    await _add_streams(outcome, "tiktoken not loaded", side, count, effort, target_mib=60.0)
    await _count_tokens(side)
    await _add_streams(outcome, "tiktoken loaded", side, count, effort, target_mib=150.0)
    return outcome


async def stalled(stack: Stack, effort: Effort) -> Outcome:
    """8 readers that read the first piece of 17 MB and then nothing: the rest must stay where it comes from."""
    side = await stack.gateway()
    await measured(side, Case(SMALL, 16), effort.seconds)
    before_bytes = side.process.memory_bytes()
    most_bytes = await _most_bytes_until(asyncio.ensure_future(_stall(side, effort.seconds)), side.process)
    grown_mib = (most_bytes - before_bytes) / _MIB
    rows: list[Row] = [{"readers": _STALLED_READERS, "before MiB": before_bytes / _MIB, "most MiB": most_bytes / _MIB}]
    return Outcome(rows, [Figure(f"MiB grown by {_STALLED_READERS} stalled readers", grown_mib, 8.0)])


async def _add_streams(
    outcome: Outcome, name: str, side: Side, count: int, effort: Effort, *, target_mib: float
) -> None:
    """Streams last three turns and all begin within half of one, so that they are open at once."""
    idle_bytes = side.process.memory_bytes()
    shape = Shape(events=round(3 * effort.seconds * 1000 / _GAP_MS), gap_ms=_GAP_MS)
    requests = requests_of(side.port, side.keys, body_of(shape))
    reading = asyncio.ensure_future(run_load(side.port, requests, count, seconds=0, spread_s=effort.seconds / 2))
    most_mib = await _most_bytes_until(reading, side.process) / _MIB
    open_at_once = (await reading).most_open
    outcome.rows.append({"gateway": name, "idle MiB": idle_bytes / _MIB, "open": open_at_once, "most MiB": most_mib})
    outcome.figures.append(Figure(f"MiB with {open_at_once} open streams, {name}", most_mib, target_mib))


async def _stall(side: Side, seconds: float) -> None:
    readers = [_Stalling() for _ in range(_STALLED_READERS)]
    for reader in readers:
        await connect(reader, side.port)
        reader.send(request_of(side.port, side.keys[0], body_of(_LARGE_ANSWER)))
    await asyncio.gather(*(reader.stalled for reader in readers))
    await asyncio.sleep(seconds)  # as long as is looked on
    for reader in readers:
        reader.end()


class _Stalling(Exchange):
    """Reads the first piece of an answer and nothing more."""

    def __init__(self) -> None:
        super().__init__()
        self.stalled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_body(self, body: bytes) -> None:
        self.transport.pause_reading()
        if not self.stalled.done():
            self.stalled.set_result(None)


async def _count_tokens(side: Side) -> None:
    """A call that fits its own maximum by tiktoken's count only, and so makes the gateway load it."""
    text = "many words " * 2_000
    one = Exchange()
    await connect(one, side.port)
    one.send(request_of(side.port, side.keys[0], body_of(SMALL, text), "x-gateway-max-cost-usd: 0.001"))
    await one.ended


async def _most_bytes_until(done: asyncio.Future[Any], process: Process) -> int:
    """The most memory the process had until then."""
    most_bytes = 0
    while not done.done():
        most_bytes = max(most_bytes, process.memory_bytes())
        await asyncio.wait([done], timeout=_LOOK_S)
    await done
    return most_bytes
