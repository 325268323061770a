"""`./run bench [BENCH …]`: measure, print, and write down what was found."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import attacks, beside, crowds, large, memory
from benchmarks.compare import Effort
from benchmarks.load import WrongAnswer
from benchmarks.machine import machine
from benchmarks.processes import ROOT, DidNotStart, busy_s, cpu_s_of
from benchmarks.report import Outcome, text_of, write
from benchmarks.stack import Stack, running_stack
from gateway.store.embedded import server_program

Bench = Callable[[Stack, Effort], Coroutine[Any, Any, Outcome]]

BENCHES: dict[str, Bench] = {
    "calls": beside.calls,
    "paced": beside.paced,
    "burst": beside.burst,
    "growth": beside.growth,
    "folded": beside.folded,
    "streams": memory.streams,
    "stalled": memory.stalled,
    "large": large.large,
    "keys": crowds.keys,
    "workers": crowds.workers,
    "attacks": attacks.attacks,
}
REDIS = "redis"
"""The scripts' own time in Redis: `redis_time` measures and prints it by itself, without a stack."""
_DISTURBED_PERCENT = 10.0


def main(argv: Sequence[str]) -> int:
    """Run the benches that are named. Returns the exit code: 0, also where a target was missed."""
    given = _parser().parse_args(argv)
    effort = Effort(given.rounds, given.seconds)
    for name in given.benches or ["calls"]:
        if name == REDIS:
            subprocess.run([sys.executable, "-m", "benchmarks.redis_time", "--growth"], cwd=ROOT, check=True)
            continue
        try:
            outcome = run(name, effort, given.redis)
        except (DidNotStart, WrongAnswer) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print(text_of(name, outcome))
        print(f"written to {write(given.out, name, outcome, machine(given.redis), effort)}\n", flush=True)
    return 0


def run(name: str, effort: Effort, redis_program: str) -> Outcome:
    """Run one bench on a stack of its own. Raises DidNotStart, WrongAnswer.

    Its outcome says so where the machine was busy with something else meanwhile.
    """
    began_s, busy_before_s, own_before_s = time.monotonic(), busy_s(), cpu_s_of(os.getpid())
    with running_stack(redis_program) as stack:
        outcome = uvloop.run(BENCHES[name](stack, effort))
    others_s = busy_s() - busy_before_s - (cpu_s_of(os.getpid()) - own_before_s)
    others_percent = 100 * others_s / (time.monotonic() - began_s) / len(os.sched_getaffinity(0))
    if others_percent > _DISTURBED_PERCENT:
        outcome.notes.append(
            f"other processes took {others_percent:.0f} % of this machine's CPUs meanwhile: "
            "ratios may still mean something, times do not"
        )
    return outcome


def _parser() -> argparse.ArgumentParser:
    first_lines = "\n".join(f"  {name:8} {(bench.__doc__ or '').splitlines()[0]}" for name, bench in BENCHES.items())
    first_lines += f"\n  {REDIS:8} What both scripts of a call take of Redis, in small and in large books."
    parser = argparse.ArgumentParser(
        prog="./run bench",
        description=f"{__doc__}\n\n{first_lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("benches", nargs="*", metavar="BENCH", type=_bench, help="calls, if none is named")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each side gets (3)")
    parser.add_argument("--seconds", type=float, default=3, help="how long a turn is (3)")
    parser.add_argument("--redis", default=server_program(), help="the server program; the bundled Valkey if not given")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="where results go")
    return parser


def _bench(name: str) -> str:
    if name not in (*BENCHES, REDIS):
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join((*BENCHES, REDIS))}")
    return name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
