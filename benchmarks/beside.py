"""The benches that hold the gateway against nginx and against no gateway at all: calls, paced, burst, growth.

And `folded`, which holds OpenAI's face against MiniToolAI's own.
"""

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.calls import Way
from benchmarks.compare import Case, Comparison, Effort, Sample, compared
from benchmarks.report import Figure, Outcome, Row
from benchmarks.stack import NGINX_IS_MISSING, Side, Stack
from benchmarks.upstream import Shape

SMALL = Shape(events=3)
PACED = Shape(events=50, gap_ms=10)
LONG = Shape(events=100)

_OPENAI = "/v1/chat/completions"
_STREAM = Way(_OPENAI, {"stream": True})
_OBJECT = Way(_OPENAI, {"stream": False}, end=b"}")


async def calls(stack: Stack, effort: Effort) -> Outcome:
    """Short answers over 1, 16 and 64 connections: what a call costs, and how much later its first byte comes."""
    alone, few, many = (Case(SMALL, connections) for connections in (1, 16, 64))
    outcome, found = await _beside(stack, (alone, few, many), effort)
    outcome.figures += _cpu_ratios(found, outcome, {few: 4.0, many: 4.0})
    first, whole = found.added_ms("gateway", alone, _first_byte_p50), found.median("gateway", alone, _whole_p50)
    outcome.figures += [
        Figure("added time to first byte, 1 connection, p50, ms", first, 0.8),
        Figure("whole call, 1 connection, p50, ms", 1e3 * whole, 1.0),
    ]
    return outcome


async def paced(stack: Stack, effort: Effort) -> Outcome:
    """64 streams of 50 events 10 ms apart: what an event costs that comes by itself."""
    case = Case(PACED, effort.scaled(64))
    outcome, found = await _beside(stack, (case,), effort)
    outcome.figures += _cpu_ratios(found, outcome, {case: 2.5})
    for share, of, target_ms in (("p50", _first_byte_p50, 4.0), ("p99", _first_byte_p99, 20.0)):
        added_ms = found.added_ms("gateway", case, of)
        outcome.figures.append(Figure(f"added time to first byte, {share}, ms", added_ms, target_ms))
    return outcome


async def burst(stack: Stack, effort: Effort) -> Outcome:
    """100 events at once over 16 connections: what bytes cost, a call's own work being spread over many."""
    case = Case(LONG, 16)
    outcome, found = await _beside(stack, (case,), effort)
    outcome.figures += _cpu_ratios(found, outcome, {case: 1.2})
    return outcome


async def growth(stack: Stack, effort: Effort) -> Outcome:
    """Short answers over 16 and 256 connections: what a call costs must not depend on how many others there are."""
    few, many = Case(SMALL, 16), Case(SMALL, effort.scaled(256))
    outcome, found = await _beside(stack, (few, many), effort)
    grown = found.median("gateway", many, _cpu) / found.median("gateway", few, _cpu) - 1
    outcome.figures.append(Figure(f"CPU per call, 16 → {many.connections} connections, grown by %", 100 * grown, 15.0))
    return outcome


async def folded(stack: Stack, effort: Effort) -> Outcome:
    """One object on OpenAI's path, and a stream there, beside MiniToolAI's stream: what it costs to make one."""
    few, many, long = Case(SMALL, 16), Case(SMALL, 64), Case(LONG, 16)
    own = await stack.gateway("MiniToolAI's stream")
    sides = [own, replace(own, name="OpenAI's stream", way=_STREAM), replace(own, name="one object", way=_OBJECT)]
    found = await compared(sides, (few, many, long), effort)
    rows = [_row(found, side, case) for case in (few, many, long) for side in sides]
    figures = [
        Figure(
            f"one object's CPU by the stream's, {case.connections} connections",
            found.ratio("one object", own.name, case, _cpu),
            1.5,
        )
        for case in (few, many)
    ]
    return Outcome(rows, figures)


async def _beside(stack: Stack, cases: Sequence[Case], effort: Effort) -> tuple[Outcome, Comparison]:
    nginx = stack.nginx()
    sides = [stack.direct(), *([nginx] if nginx else []), await stack.gateway()]
    found = await compared(sides, cases, effort)
    rows = [_row(found, side, case) for case in cases for side in sides]
    return Outcome(rows, notes=[] if nginx else [NGINX_IS_MISSING]), found


def _cpu_ratios(found: Comparison, outcome: Outcome, targets: dict[Case, float]) -> list[Figure]:
    """The gateway's CPU by nginx's; nothing where there is no nginx."""
    if NGINX_IS_MISSING in outcome.notes:
        return []
    return [
        Figure(f"CPU by nginx's, {case.connections} connections", found.ratio("gateway", "nginx", case, _cpu), target)
        for case, target in targets.items()
    ]


def _row(found: Comparison, side: Side, case: Case) -> Row:
    def median(of: str, scale: float) -> float:
        return scale * found.median(side.name, case, lambda sample: getattr(sample, of))

    return {
        "side": side.name,
        "connections": case.connections,
        "events": case.shape.events,
        "calls/s": median("per_second", 1),
        "CPU µs/call": median("cpu_s", 1e6),
        "CPU µs/event": median("cpu_s", 1e6) / case.shape.events,
        "Redis µs/call": median("redis_cpu_s", 1e6),
        "first byte p50 ms": median("first_byte_p50_s", 1e3),
        "p99": median("first_byte_p99_s", 1e3),
        "whole p50 ms": median("whole_p50_s", 1e3),
        "whole p99": median("whole_p99_s", 1e3),
    }


def _cpu(sample: Sample) -> float:
    return sample.cpu_s


def _first_byte_p50(sample: Sample) -> float:
    return sample.first_byte_p50_s


def _first_byte_p99(sample: Sample) -> float:
    return sample.first_byte_p99_s


def _whole_p50(sample: Sample) -> float:
    return sample.whole_p50_s
