"""The bench of large calls: how late the chunks of other streams come while one is read, checked, priced and sent."""

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.beside import SMALL
from benchmarks.calls import body_of, request_of
from benchmarks.compare import Effort
from benchmarks.load import Exchange, clock_s, connect, percentile
from benchmarks.report import Figure, Outcome, Row
from benchmarks.stack import Side, Stack
from benchmarks.upstream import Shape

_STREAMS = 16
_GAP_MS = 10
_BYTES = 1024 * 1024
_MODEL = "gpt-4.1-nano"
"""Its context takes a million tokens, so that a large prompt is counted to its end."""
_COUNTED = "x-gateway-max-cost-usd: 0.05"
"""Below what a million bytes could cost and above what their tokens do, so that tiktoken has to count them."""
_COUNTED_SOON = "x-gateway-max-cost-usd: 0.005"
"""The same for a hundred thousand bytes."""


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    content: object
    headers: tuple[str, ...] = ()
    once: bool = False
    """Sent once; else one after the other, as long as a turn lasts."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """How long each large call took, and how late each chunk of the streams came meanwhile."""

    took_ms: list[float]
    late_ms: list[float]


async def large(stack: Stack, effort: Effort) -> Outcome:
    """16 streams of an event each 10 ms, and beside them one caller who sends one large call after the other."""
    gateway = await stack.gateway()
    prose, tabs = "many words " * (_BYTES // 11), "\t" * _BYTES
    kinds = (
        _Kind("nothing", None),
        _Kind("1 MB of prose", prose),
        _Kind("1 MB of tabs", tabs),
        _Kind("20 images of 50 kB", _images(20, 50_000)),
        _Kind("the first count (loads tiktoken)", "many words " * 10_000, (_COUNTED_SOON,), once=True),
        _Kind("1 MB of prose, counted", prose, (_COUNTED,)),
        _Kind("1 MB of tabs, counted", tabs, (_COUNTED,)),
    )
    outcome = Outcome()
    for side, some in ((stack.direct(), kinds[:4]), (gateway, kinds)):
        for kind in some:
            rounds = 1 if kind.once else effort.rounds
            turns = [await _turn(side, kind, effort.seconds) for _ in range(rounds)]
            outcome.rows.append(row := _row(side, kind, turns))
            if side is gateway and kind.content:
                late_ms = float(row["late max ms"])
                outcome.figures.append(Figure(f"{kind.name}: other chunks late by at most, ms", late_ms, 20.0))
    return outcome


def _row(side: Side, kind: _Kind, turns: Sequence[_Turn]) -> Row:
    """Whatever else the machine does makes a chunk late now and then; what the gateway does, in every round.

    So the latest of each round is looked at, and the median of those is what counts.
    """

    def median(of: Callable[[_Turn], float]) -> float:
        return statistics.median(map(of, turns))

    return {
        "side": side.name,
        "beside 16 streams": kind.name,
        "sent": sum(len(turn.took_ms) for turn in turns),
        "took p50 ms": median(lambda turn: percentile(turn.took_ms, 0.5)) if kind.content else 0.0,
        "late p50 ms": median(lambda turn: percentile(turn.late_ms, 0.5)),
        "late p99 ms": median(lambda turn: percentile(turn.late_ms, 0.99)),
        "late max ms": median(lambda turn: max(turn.late_ms)),
    }


async def _turn(side: Side, kind: _Kind, seconds: float) -> _Turn:
    """Streams begin; once all have, the large calls go out while they run."""
    shape = Shape(events=round(2 * seconds * 1000 / _GAP_MS), gap_ms=_GAP_MS)
    streams = [_Watched() for _ in range(_STREAMS)]
    request = request_of(side.port, side.keys[0], body_of(shape))
    for number, stream in enumerate(streams):
        await connect(stream, side.port)
        asyncio.get_running_loop().call_later(number * _GAP_MS / 1000 / _STREAMS, stream.send, request)
    await asyncio.gather(*(stream.running for stream in streams))
    began_s = clock_s()
    took_ms = await _send(side, kind, seconds)
    ended_s = clock_s()
    await asyncio.gather(*(stream.ended for stream in streams))
    late_ms = [1e3 * late_s for stream in streams for late_s in stream.late_within(began_s, ended_s)]
    return _Turn(took_ms, late_ms)


async def _send(side: Side, kind: _Kind, seconds: float) -> list[float]:
    """How long each call took, in milliseconds."""
    if kind.content is None:
        await asyncio.sleep(seconds)
        return []
    request = request_of(side.port, side.keys[0], body_of(SMALL, kind.content, _MODEL), *kind.headers)
    took_ms: list[float] = []
    until_s = clock_s() + seconds
    while clock_s() < until_s and not (kind.once and took_ms):
        one = Exchange()
        await connect(one, side.port)
        one.send(request)
        await one.ended
        took_ms.append(1e3 * (clock_s() - one.sent_s))
    return took_ms


def _images(count: int, data_bytes: int) -> Sequence[object]:
    data = "A" * data_bytes
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}", "detail": "high"}}
    return [{"type": "text", "text": "What do these show?"}, *[part] * count]


class _Watched(Exchange):
    """A paced stream that notes when each piece arrived. `running` is done once the first has."""

    def __init__(self) -> None:
        super().__init__(self._note)
        self.running: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrived_s: list[float] = []

    def late_within(self, began_s: float, ended_s: float) -> list[float]:
        """Of the pieces that arrived in that time, in seconds; negative where one came early, behind a late one."""
        pairs = zip(self._arrived_s, self._arrived_s[1:], strict=False)
        return [now_s - last_s - _GAP_MS / 1000 for last_s, now_s in pairs if began_s <= now_s <= ended_s]

    def _note(self, _piece: bytes) -> None:
        self._arrived_s.append(clock_s())
        if not self.running.done():
            self.running.set_result(None)
