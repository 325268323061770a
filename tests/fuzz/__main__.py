"""`./run fuzz NAME --seconds N`: drive one target for longer than CI does.

Hypothesis by default, which keeps what failed in `.hypothesis` and begins with it the next time. `--atheris` lets the
coverage of the code under test lead instead, where atheris is installed (`.venv/bin/pip install atheris`; it has wheels
for Linux alone and is no dependency).
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings

from tests.fuzz.inputs import inputs_of
from tests.fuzz.targets import TARGETS, Target

_EXAMPLES_A_ROUND = 200


def main(argv: Sequence[str]) -> int:
    """Returns the exit code: 0 where every law held. What breaks one is raised, with its input."""
    asked = _parser().parse_args(argv)
    target = TARGETS[asked.name]
    if asked.atheris:
        command = [sys.executable, "-m", "tests.fuzz.coverage", asked.name, f"{asked.seconds:.0f}"]
        os.execv(sys.executable, command)  # noqa: S606  # a program of ours, without a shell
    count = drawn(target, asked.seconds)
    print(f"{asked.name}: {count} inputs, every law held")  # noqa: T201  # what the command is asked to say
    return 0


def drawn(target: Target, seconds: float) -> int:
    """Draw inputs for so long, a round at a time; returns how many there were."""
    count = 0

    @settings(max_examples=_EXAMPLES_A_ROUND, deadline=None, suppress_health_check=list(HealthCheck))
    @given(inputs_of(target))
    def round_of_inputs(data: bytes) -> None:
        nonlocal count
        count += 1
        target.check(data)

    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        round_of_inputs()
    return count


def _parser() -> argparse.ArgumentParser:
    first_lines = "\n".join(f"  {name:12} {(target.check.__doc__ or '').strip()}" for name, target in TARGETS.items())
    parser = argparse.ArgumentParser(
        prog="./run fuzz",
        description=f"{__doc__}\n\n{first_lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60, help="for how long (60)")
    parser.add_argument("--atheris", action="store_true", help="led by coverage")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
