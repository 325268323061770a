"""What is going on, while it goes on: one line that is rewritten on a terminal, a line now and then elsewhere."""

import asyncio
import contextlib
import sys
import time

from gateway.cli.control_plane import ControlPlane
from gateway.cli.demo.amounts import usd
from gateway.cli.demo.tally import Tally

_BAR_CHARS = 24
_LINES_ELSEWHERE = 3


class Progress:
    def __init__(self, control_plane: ControlPlane, tally: Tally, seconds: int) -> None:
        self._control_plane = control_plane
        self._tally = tally
        self._seconds = seconds

    async def show(self, ended: asyncio.Event) -> None:
        """Tell once a second (on a terminal), or three times in all, until the end."""
        terminal = sys.stdout.isatty()
        interval_s = 1.0 if terminal else self._seconds / _LINES_ELSEWHERE
        began_at = time.monotonic()
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), interval_s)
            line = await asyncio.to_thread(self._line, min(time.monotonic() - began_at, self._seconds))
            print(f"\r\033[K{line}" if terminal else line, end="" if terminal else "\n", flush=True)
        if terminal:
            print()

    def _line(self, elapsed_s: float) -> str:
        spent = self._control_plane.get("usage", group_by="team")["total"]["cost_nano_usd"]
        holds = len(self._control_plane.get("holds")["data"])
        full = round(_BAR_CHARS * elapsed_s / self._seconds)
        bar = "#" * full + "." * (_BAR_CHARS - full)
        return (
            f"[{bar}] {elapsed_s:3.0f} s   {self._tally.calls} calls, {self._tally.refused} refused   "
            f"{holds} holds open   spent {usd(spent)}"
        )
