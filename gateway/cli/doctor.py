"""`gateway doctor`: is everything there that the gateway needs, and if not, what to do."""

import argparse
import asyncio
import os
from collections.abc import Sequence

from gateway.cli.checkup import Finding, look
from gateway.cli.output import cell_text, print_json

_MARKS = {"ok": "ok", "warning": "WARNING", "failed": "FAILED"}


def main(argv: Sequence[str]) -> int:
    """Returns 1 where anything failed; warnings alone are no failure."""
    parser = argparse.ArgumentParser(
        prog="gateway doctor",
        description="check settings, prices, keys, disk, Redis, the upstream, clocks and the port, as `gateway serve` "
        "would find them in this environment; nothing is written and nothing is spent",
    )
    parser.add_argument("--json", action="store_true", help="print JSON: ok, and the checks")
    arguments = parser.parse_args(argv)
    findings = asyncio.run(look(os.environ))
    failed = [finding for finding in findings if finding.state == "failed"]
    if arguments.json:
        print_json({"ok": not failed, "checks": [finding._asdict() for finding in findings]})
    else:
        _show(findings)
    return 1 if failed else 0


def _show(findings: Sequence[Finding]) -> None:
    check_width = max(len(finding.check) for finding in findings)
    mark_width = max(len(_MARKS[finding.state]) for finding in findings)
    for finding in findings:
        print(f"{_MARKS[finding.state]:<{mark_width}}  {finding.check:<{check_width}}  {cell_text(finding.found)}")
        if finding.advice:
            print(f"{'':<{mark_width + 2 + check_width}}  → {cell_text(finding.advice)}")
    counts = {state: sum(finding.state == state for finding in findings) for state in _MARKS}
    print(f"\n{_verdict(counts['failed'], counts['warning'])}")


def _verdict(failed: int, warnings: int) -> str:
    if failed:
        return f"The gateway would not work as it should: {failed} to mend, {warnings} to look at."
    if warnings:
        return f"The gateway works; {warnings} to look at."
    return "The gateway has what it needs."
