"""The order of things in `gateway demo`."""

import argparse
import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from gateway.cli.control_plane import ControlPlane
from gateway.cli.demo.books import check_books
from gateway.cli.demo.organisation import found
from gateway.cli.demo.stage import Stage, demo_folder
from gateway.cli.demo.summary import print_summary, print_what_to_try
from gateway.cli.demo.tally import Tally
from gateway.cli.demo.traffic import play

DEFAULT_FOLDER = ".gateway/demo"
INTERRUPTED = 130
_STOPPERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str]) -> int:
    """Run the demo. Returns 0, or 1 when the ledger differs from the bill, or 130 when stopped before that is known."""
    arguments = _parser().parse_args(argv)
    # Everything stays on this machine: a proxy that the environment names must not stand in between.
    os.environ["no_proxy"] = "127.0.0.1"
    with demo_folder(arguments.data_dir) as folder:
        try:
            return asyncio.run(_run(arguments, folder))
        except asyncio.CancelledError:
            print("\ndemo: stopped before its summary")
            return INTERRUPTED


async def _run(arguments: argparse.Namespace, folder: Path) -> int:
    demo = cast(asyncio.Task[int], asyncio.current_task())
    for number in _STOPPERS:
        asyncio.get_running_loop().add_signal_handler(number, demo.cancel)
    print("Starting an embedded Valkey, MiniToolAI's emulator and the gateway …", flush=True)
    async with Stage(folder, arguments.port) as stage:
        with ControlPlane(stage.gateway_url, stage.admin_key) as control_plane:
            secrets = await asyncio.to_thread(found, control_plane)
            print(
                f"Gateway {stage.gateway_url}   emulator {stage.emulator_url}   log {stage.gateway_log}\n", flush=True
            )
            tally = Tally()
            await play(stage, control_plane, secrets, tally, arguments.seconds)
            books = await check_books(control_plane, stage.emulator_url)
            await asyncio.to_thread(print_summary, control_plane, tally, books, arguments.seconds)
        code = 0 if books.agree else 1
        if arguments.exit:
            return code
        print_what_to_try(stage, secrets)
        with contextlib.suppress(asyncio.CancelledError):
            await stage.serve()
    print(f"\ndemo: stopped; logs and books stay in {folder} until the next demo")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway demo",
        description="Run the gateway with an embedded Valkey, an emulated MiniToolAI, a sample organisation and live "
        "traffic; show who spent what; then keep serving until Ctrl-C. Each demo begins with empty books.",
    )
    parser.add_argument("--seconds", type=_seconds, default=30, help="how long traffic runs (default: %(default)s)")
    parser.add_argument("--port", type=int, help="the gateway's port; 0 takes a free one (default: 8080 if it is free)")
    parser.add_argument("--exit", action="store_true", help="end after the summary instead of serving on")
    parser.add_argument(
        "--data-dir", type=Path, default=Path(DEFAULT_FOLDER), help="emptied at the start (default: %(default)s)"
    )
    return parser


def _seconds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 3600:
        raise argparse.ArgumentTypeError("must be a whole number from 1 to 3600")
    return int(text)
