"""The bench of attacks: what a paced stream and `/livez` feel of each, what memory it takes, what reaches upstream."""

import asyncio
import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.attackers import ATTACKS
from benchmarks.calls import body_of, request_of
from benchmarks.compare import Effort
from benchmarks.load import Exchange, clock_s, connect, percentile
from benchmarks.processes import ROOT, Process
from benchmarks.report import Figure, Outcome, Row
from benchmarks.stack import Side, Stack
from benchmarks.upstream import Shape

_GAP_S = 0.01
_STREAM = Shape(events=50, gap_ms=10)
_ALIVE = b'"alive"}'
_NOTHING = "nothing"
_MIB = 1024 * 1024
_LOOK_S = 0.25
_LATE_P99_MS = 50.0
_GROWN_MAX_MIB = 320.0
"""Two bodies at their bound, each as it arrived, joined, as text, read, and written anew."""


@dataclass(frozen=True, slots=True)
class _Turn:
    answers: Counter[str]
    late_ms: list[float]
    livez_ms: list[float]
    grown_bytes: int
    reached: int


async def attacks(stack: Stack, effort: Effort) -> Outcome:
    """A stream of an event each 10 ms and `/livez` each 10 ms, and beside them one attack after the other."""
    side = await stack.gateway()
    await _turn(stack, side, _NOTHING, effort)  # whatever is done once is done
    outcome = Outcome()
    for name in (_NOTHING, *ATTACKS):
        turns = [await _turn(stack, side, name, effort) for _ in range(effort.rounds)]
        outcome.rows.append(_row(name, turns))
        outcome.figures += _figures(name, turns) if name != _NOTHING else []
    return outcome


def _row(name: str, turns: Sequence[_Turn]) -> Row:
    answers = sum((turn.answers for turn in turns), Counter[str]())
    return {
        "attack": name,
        "answers": ", ".join(f"{count:,} × {status}" for status, count in sorted(answers.items())) or "none",
        "stream late p99 ms": _median(turns, lambda turn: percentile(turn.late_ms, 0.99)),
        "stream late max ms": _median(turns, lambda turn: max(turn.late_ms)),
        "livez p99 ms": _median(turns, lambda turn: percentile(turn.livez_ms, 0.99)),
        "livez max ms": _median(turns, lambda turn: max(turn.livez_ms)),
        "MiB grown": max(turn.grown_bytes for turn in turns) / _MIB,
        "reached upstream": sum(turn.reached for turn in turns),
    }


def _figures(name: str, turns: Sequence[_Turn]) -> list[Figure]:
    late_ms = _median(turns, lambda turn: max(percentile(turn.late_ms, 0.99), percentile(turn.livez_ms, 0.99)))
    return [
        Figure(f"{name}: others late, p99 ms", late_ms, _LATE_P99_MS),
        Figure(f"{name}: MiB grown", max(turn.grown_bytes for turn in turns) / _MIB, _GROWN_MAX_MIB),
        Figure(f"{name}: calls that reached the upstream", float(sum(turn.reached for turn in turns)), 0.0),
    ]


def _median(turns: Sequence[_Turn], of: Callable[[_Turn], float]) -> float:
    return statistics.median(map(of, turns))


async def _turn(stack: Stack, side: Side, name: str, effort: Effort) -> _Turn:
    """Watch while the attackers are at it, from their start to their end."""
    before_bytes, before_calls = side.process.memory_bytes(), await _calls_seen(stack.upstream.port)
    stream, livez = _Streams(side), _Livez(side)
    for watcher in (stream, livez):
        await connect(watcher, side.port)
        watcher.ask()
    memory = asyncio.ensure_future(_most_bytes(side.process))
    answers = await _attacked(side, name, effort)
    for watcher in (stream, livez):
        watcher.is_last = True
        await watcher.ended
    memory.cancel()
    most_bytes = await memory
    reached = await _calls_seen(stack.upstream.port) - before_calls - stream.count
    late_ms, livez_ms = ([1e3 * late_s for late_s in watcher.late_s] for watcher in (stream, livez))
    return _Turn(answers, late_ms, livez_ms, most_bytes - before_bytes, reached)


async def _attacked(side: Side, name: str, effort: Effort) -> Counter[str]:
    """What the attackers were answered."""
    if name == _NOTHING:
        await asyncio.sleep(effort.seconds)  # as long as is looked on
        return Counter()
    arguments = (name, str(side.port), side.keys[0], str(effort.seconds), str(effort.scale))
    command = (sys.executable, "-m", "benchmarks.attackers", *arguments)
    attackers = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    told, _ = await attackers.communicate()
    return Counter(json.loads(told))


async def _most_bytes(process: Process) -> int:
    """The most memory the process had until this is cancelled. Read aside, for it takes milliseconds."""
    most_bytes = 0
    try:
        while True:
            most_bytes = max(most_bytes, await asyncio.to_thread(process.memory_bytes))
            await asyncio.sleep(_LOOK_S)
    except asyncio.CancelledError:
        return max(most_bytes, process.memory_bytes())


async def _calls_seen(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: upstream\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    count = int(await reader.readexactly(int(head.split()[-1])))
    writer.close()
    return count


class _Watcher(Exchange):
    """Asks again and again, and notes in `late_s` by how much each piece was late; `is_last`: this answer ends it."""

    def __init__(self, request: bytes, answer_end: bytes) -> None:
        super().__init__(self.note, answer_end)
        self._request = request
        self.late_s: list[float] = []
        self.is_last = False
        self.count = 0

    def ask(self) -> None:
        """Send the request once more."""
        self.count += 1
        self.send(self._request)

    def note(self, _piece: bytes) -> None:
        """A piece of the answer has come."""
        raise NotImplementedError

    def answered(self) -> None:
        if self.is_last:
            self.end()
        else:
            self.ask_again()

    def ask_again(self) -> None:
        """The answer was right and another is wanted."""
        self.ask()


class _Streams(_Watcher):
    """One paced stream after the other; a chunk is late by what it came more than a gap behind the one before."""

    def __init__(self, side: Side) -> None:
        super().__init__(request_of(side.port, side.keys[0], body_of(_STREAM)), b"data: [DONE]\n\n")
        self._last_s = 0.0

    def ask(self) -> None:
        self._last_s = 0.0
        super().ask()

    def note(self, _piece: bytes) -> None:
        now_s = clock_s()
        if self._last_s:
            self.late_s.append(now_s - self._last_s - _GAP_S)
        self._last_s = now_s


class _Livez(_Watcher):
    """`/livez` each 10 ms, or as soon as the answer before is there; it is late by all the time it takes."""

    def __init__(self, side: Side) -> None:
        request = f"GET /livez HTTP/1.1\r\nHost: 127.0.0.1:{side.port}\r\n\r\n".encode()
        super().__init__(request, _ALIVE)

    def note(self, _piece: bytes) -> None:
        self.late_s.append(clock_s() - self.sent_s)

    def ask_again(self) -> None:
        asyncio.get_running_loop().call_later(max(0.0, self.sent_s + _GAP_S - clock_s()), self.ask)
