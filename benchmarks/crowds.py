"""The benches of many keys and teams, and of several workers: what a call costs must not depend on them."""

import statistics

from benchmarks.beside import SMALL
from benchmarks.calls import body_of, requests_of
from benchmarks.compare import Case, Effort, compared
from benchmarks.load import run_load
from benchmarks.processes import cpu_s_of
from benchmarks.report import Figure, Outcome, Row
from benchmarks.stack import Side, Stack

_KEYS, _TEAMS = 100_000, 10_000
_REPORTS = (
    "Both columns hold what reports cost: calls of one key are summed before they are written, those of many are not."
)


async def keys(stack: Stack, effort: Effort) -> Outcome:
    """One key; very many keys; very many teams. Each call comes with the next key, so that no cache knows it yet."""
    case = Case(SMALL, 16)
    key_count, team_count = effort.scaled(_KEYS), effort.scaled(_TEAMS)
    one = await stack.gateway("1 key")
    many_keys = await stack.gateway(f"{key_count:,} keys", keys=key_count)
    many_teams = await stack.gateway(f"{team_count:,} teams", keys=team_count, teams=team_count)
    sides = [one, many_keys, many_teams]
    found = await compared(sides, [case], effort)

    def cpu_us(side: Side) -> float:
        return 1e6 * found.median(side.name, case, lambda sample: sample.cpu_s)

    def redis_us(side: Side) -> float:
        return 1e6 * found.median(side.name, case, lambda sample: sample.redis_cpu_s)

    rows: list[Row] = [
        {"side": side.name, "CPU µs/call": cpu_us(side), "Redis µs/call": redis_us(side)} for side in sides
    ]
    figures = [
        Figure(f"{side.name}: CPU per call, grown by %", 100 * (cpu_us(side) / cpu_us(one) - 1), 5.0)
        for side in (many_keys, many_teams)
    ]
    return Outcome(rows, figures, [_REPORTS])


async def workers(stack: Stack, effort: Effort) -> Outcome:
    """Two workers beside one, over 64 connections: how much more they can serve.

    They share their CPUs with the load where there are no others, so it is reckoned: what they could serve on CPUs of
    their own until the busier of the two has used up its own.
    """
    case = Case(SMALL, 64)
    cpus = stack.all_cpus
    sides = [await stack.gateway(f"{count} workers", workers=str(count), cpus=cpus) for count in (1, 2)]
    turns: dict[str, list[tuple[float, float, float]]] = {side.name: [] for side in sides}
    for _ in range(effort.rounds):
        for side in sides:
            turns[side.name].append(await _turn(side, case, effort.seconds))
    rows: list[Row] = []
    for side in sides:
        per_second, cpu_s, busiest_cpu_s = (statistics.median(column) for column in zip(*turns[side.name], strict=True))
        rows.append(
            {
                "side": side.name,
                "calls/s": per_second,
                "CPU µs/call": 1e6 * cpu_s,
                "busiest worker µs/call": 1e6 * busiest_cpu_s,
                "calls/s, load aside": 1 / busiest_cpu_s,
            }
        )
    alone, both = (float(row["calls/s, load aside"]) for row in rows)
    return Outcome(rows, [Figure("2 workers by 1, load aside", both / alone, 1.7, at_least=True)])


async def _turn(side: Side, case: Case, seconds: float) -> tuple[float, float, float]:
    """Calls a second, CPU seconds of all processes by call, and of the busiest one."""
    before = {pid: cpu_s_of(pid) for pid in side.process.tree()}
    load = await run_load(side.port, requests_of(side.port, side.keys, body_of(case.shape)), case.connections, seconds)
    used = [cpu_s_of(pid) - cpu_s for pid, cpu_s in before.items()]
    return load.per_second, sum(used) / load.answers, max(used) / load.answers
