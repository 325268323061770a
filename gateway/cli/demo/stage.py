"""The demo's folder and its child processes.

Each child is its own session, so that Ctrl-C reaches the demo alone, which then ends them in order: the gateway
first, for it still has calls to settle, then the emulator. Should the demo be killed, the kernel ends its children.
"""

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.cli.errors import CommandError
from gateway.store.embedded import die_with_parent

EMULATOR_KEY = "sk-demo-upstream"
DEFAULT_PORT = 8080
_LOCK = "demo.lock"
_START_S_MAX = 60.0
_STOP_S_MAX = 30.0
_POLL_S = 0.05
_CHECK_S = 0.5
_LISTENING = re.compile(r"listening on (http://\S+)")
_SETTING_PREFIXES = ("GATEWAY_", "MINITOOLAI_", "REDIS_")


@contextlib.contextmanager
def demo_folder(folder: Path) -> Iterator[Path]:
    """The folder, empty but for its lock, which is held meanwhile.

    Raises CommandError: another demo runs there, or it holds something that no demo has made.
    """
    lock = folder / _LOCK
    if folder.exists() and not lock.exists() and any(folder.iterdir()):
        raise CommandError(f"{folder} holds something else than a demo; give the demo a folder of its own: --data-dir")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with lock.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CommandError(f"another demo is running in {folder}; end it, or give this one --data-dir") from None
        for left in folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left != lock:
                left.unlink()
        yield folder


class Stage:
    """Emulator and gateway, running for the time of an `async with` block."""

    def __init__(self, folder: Path, port: int | None) -> None:
        self._folder = folder
        self._port = _free_port() if port is None else port
        self._children: list[Child] = []
        self.gateway_log = folder / "gateway.log"
        self.emulator_url = ""
        self.gateway_url = ""

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def admin_key(self) -> str:
        return (self._folder / "admin-key").read_text(encoding="ascii").strip()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    async def serve(self) -> None:
        """Wait until cancelled. Raises CommandError: a child ended by itself."""
        while True:
            for child in self._children:
                child.check()
            await asyncio.sleep(_CHECK_S)

    async def _start(self) -> None:
        # The demo has settings of its own: those of a real gateway, with its Redis and its key, stay out of it.
        config = self._folder / "gateway.toml"
        config.write_text("# The demo's settings are given in the environment of its processes.\n")
        environment = {
            "GATEWAY_CONFIG": str(config),
            "GATEWAY_DATA_DIR": str(self._folder),
            "GATEWAY_PRICES_FILE": "config/prices.toml",
            "GATEWAY_GRACE_S": "3",
            "MINITOOLAI_API_KEY": EMULATOR_KEY,
        }
        # A pause between two events makes answers stream as they do from MiniToolAI.
        pace = ("--token-gap-s", "0.01", "--job-pending-s", "0.5")
        emulator = self._child("emulator", ["--port", "0", "--key", EMULATOR_KEY, *pace], environment)
        self.emulator_url = await emulator.url()
        environment["MINITOOLAI_BASE_URL"] = self.emulator_url
        gateway = self._child("serve", ["--port", str(self._port)], environment, self.gateway_log)
        self.gateway_url = await gateway.url()

    def _child(
        self, command: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path | None = None
    ) -> "Child":
        child = Child([command, *arguments], environment, log or self._folder / f"{command}.log")
        self._children.append(child)
        return child

    def _stop(self) -> None:
        while self._children:
            self._children.pop().stop()


class Child:
    """One command of ours as a process whose output goes to a file."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._name = command[0]
        self._log = log
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_SETTING_PREFIXES)}
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603  # our own commands
                [sys.executable, "-m", "gateway.cli.main", *command],
                env={**inherited, "PYTHONUNBUFFERED": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  # started from the main thread
            )

    async def url(self) -> str:
        """Where it listens, once it does. Raises CommandError."""
        give_up_at = time.monotonic() + _START_S_MAX
        while time.monotonic() < give_up_at:
            if match := _LISTENING.search(self._log.read_text(errors="replace")):
                return match[1]
            self.check()
            await asyncio.sleep(_POLL_S)
        raise CommandError(f"`{self._name}` does not listen after {_START_S_MAX:g} s; its output is in {self._log}")

    def check(self) -> None:
        """Raises CommandError: it has ended, with its last words."""
        if self._process.poll() is not None:
            lines = self._log.read_text(errors="replace").strip().splitlines()
            last_words = lines[-1][:300] if lines else "it said nothing"
            raise CommandError(f"`{self._name}` ended by itself: {last_words} (all of it is in {self._log})")

    def stop(self) -> None:
        """End it cleanly, or by force where it does not end."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _free_port() -> int:
    """The usual port, or 0 (any) where something listens on it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_PORT))
        except OSError:
            return 0
    return DEFAULT_PORT
