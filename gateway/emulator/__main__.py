"""`python -m gateway.emulator`, and what `gateway emulator` calls."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from gateway.emulator.options import EmulatorOptions
from gateway.emulator.server import serve


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and serve until stopped. Returns the exit status."""
    arguments = _parser().parse_args(argv)
    options = EmulatorOptions(
        keys=tuple(arguments.key or EmulatorOptions().keys),
        balance_nano_usd=arguments.balance_usd,
        token_gap_s=arguments.token_gap_s,
        job_pending_polls=arguments.job_pending_polls,
        job_pending_s=arguments.job_pending_s,
    )
    try:
        serve(options, arguments.host, arguments.port)
    except OSError as error:
        sys.exit(f"emulator: cannot listen on {arguments.host}:{arguments.port}: {error}")
    return 0


def nano_usd(text: str) -> int:
    """Whole nano-USD of a decimal dollar amount. Raises ArgumentTypeError."""
    try:
        amount = Decimal(text) * 1_000_000_000
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0 or amount != amount.to_integral_value():
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount of dollars with at most nine decimals")
    return int(amount)


def _parser() -> argparse.ArgumentParser:
    defaults = EmulatorOptions()
    parser = argparse.ArgumentParser(
        prog="gateway emulator", description="MiniToolAI on this machine: free, offline, faults on request."
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=8081, help="port, 0 for a free one (default: %(default)s)")
    add("--key", action="append", help=f"accepted API key, repeatable (default: {defaults.keys[0]})")
    add("--balance-usd", type=nano_usd, default="100", help="prepaid balance (default: %(default)s)")
    add("--token-gap-s", type=float, default=0.0, help="pause between two events (default: %(default)s)")
    add("--job-pending-polls", type=int, default=defaults.job_pending_polls, help="polls an image job pends")
    add("--job-pending-s", type=float, default=0.0, help="seconds an image job pends at least")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
