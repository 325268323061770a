"""Sides measured in turns, round by round, and the medians of what was seen."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.calls import body_of, requests_of
from benchmarks.load import Load, percentile, run_load
from benchmarks.processes import TICK_S
from benchmarks.stack import Side
from benchmarks.upstream import Shape

_WARM_UP_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Effort:
    """How long it is measured: rounds of so many seconds. `scale` shortens lists and crowds, for a quick look."""

    rounds: int = 3
    seconds: float = 3.0
    scale: float = 1.0

    def scaled(self, count: int) -> int:
        return max(2, round(count * self.scale))


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load."""

    shape: Shape
    connections: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn of one side: times in seconds, CPU by answer."""

    per_second: float
    cpu_s: float
    redis_cpu_s: float
    first_byte_p50_s: float
    first_byte_p99_s: float
    whole_p50_s: float
    whole_p99_s: float


class Comparison:
    """Samples by side and case."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, Case], list[Sample]] = defaultdict(list)

    def add(self, side: Side, case: Case, sample: Sample) -> None:
        self._samples[side.name, case].append(sample)

    def median(self, side: str, case: Case, of: Callable[[Sample], float]) -> float:
        return statistics.median(of(sample) for sample in self._samples[side, case])

    def ratio(self, side: str, other: str, case: Case, of: Callable[[Sample], float]) -> float:
        """Of the medians."""
        return self.median(side, case, of) / self.median(other, case, of)

    def added_ms(self, side: str, case: Case, of: Callable[[Sample], float]) -> float:
        """Over no gateway at all."""
        return 1e3 * (self.median(side, case, of) - self.median("direct", case, of))


async def compared(sides: Sequence[Side], cases: Sequence[Case], effort: Effort) -> Comparison:
    """Every side in every case, in turns; each is warmed up first. Raises WrongAnswer."""
    for side in sides:
        await measured(side, Case(Shape(3), _WARM_UP_CONNECTIONS), min(1.0, effort.seconds))
    comparison = Comparison()
    for _ in range(effort.rounds):
        for case in cases:
            for side in sides:
                comparison.add(side, case, await measured(side, case, effort.seconds))
    return comparison


async def measured(side: Side, case: Case, seconds: float) -> Sample:
    """One turn. Raises WrongAnswer."""
    requests = requests_of(side.port, side.keys, body_of(case.shape, way=side.way), side.way)
    cpu_s, redis_cpu_s = side.process.cpu_s(), _cpu_s_of_redis(side)
    spread_s = case.shape.gap_ms / 1000
    load = await run_load(side.port, requests, case.connections, seconds, spread_s, side.way.end)
    # Of a turn of a few calls a server may have used less than can be seen, which is not nothing.
    return _sample(load, max(side.process.cpu_s() - cpu_s, TICK_S), _cpu_s_of_redis(side) - redis_cpu_s)


def _sample(load: Load, cpu_s: float, redis_cpu_s: float) -> Sample:
    return Sample(
        per_second=load.per_second,
        cpu_s=cpu_s / load.answers,
        redis_cpu_s=redis_cpu_s / load.answers,
        first_byte_p50_s=percentile(load.first_byte_s, 0.5),
        first_byte_p99_s=percentile(load.first_byte_s, 0.99),
        whole_p50_s=percentile(load.whole_s, 0.5),
        whole_p99_s=percentile(load.whole_s, 0.99),
    )


def _cpu_s_of_redis(side: Side) -> float:
    return side.redis.cpu_s() if side.redis else 0.0
