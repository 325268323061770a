"""The whole stack as processes: an emulator and gateways on free ports, their Redis, and what tests ask of them."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx

ADMIN_KEY = "sk-admin-for-tests"
UPSTREAM_KEY = "sk-upstream-for-tests"
ROOT = Path(__file__).resolve().parent.parent
_READY_S = 30

P = TypeVar("P", bound="Process")


class Process:
    """One command of ours. `url` is where it says it listens; `output` is what it has printed so far."""

    def __init__(self, command: str, *args: str, env: Mapping[str, str] | None = None) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "MINITOOLAI_", "REDIS_"))}
        self.output = ""
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli.main", command, *args],
            cwd=ROOT,
            env={**inherited, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._listening = threading.Event()
        self._match: re.Match[str] | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def url(self) -> str:
        """Waits until the process listens."""
        if not self._listening.wait(_READY_S) or self._match is None:
            raise AssertionError(f"the process does not listen:\n{self.output}")
        return self._match[1]

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait(self, timeout_s: float = 30) -> int:
        """The exit code, once all output is read."""
        code = self._popen.wait(timeout_s)
        self._reader.join(timeout_s)
        return code

    def stop(self) -> int:
        """End it cleanly, or by force where it does not end."""
        if self._popen.poll() is None:
            self._popen.terminate()
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self.wait()

    def _told(self) -> None:
        """It has said that it listens, and is read on when this returns."""

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self.output += line
            if match := re.search(r"listening on (http://\S+)", line):
                self._match = match
                self._listening.set()
                self._told()
        self._popen.stdout.close()
        self._listening.set()


class Admin:
    """The control plane of a gateway, as its administrator."""

    def __init__(self, url: str) -> None:
        # No connection is kept, so that nobody has to close one.
        self.http = httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {ADMIN_KEY}"},
            limits=httpx.Limits(max_keepalive_connections=0),
            timeout=30,
        )

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._done(self.http.post(f"/admin/v1{path}", json=body or {}))

    def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._done(self.http.patch(f"/admin/v1{path}", json=body))

    def get(self, path: str, **params: str) -> dict[str, Any]:
        return self._done(self.http.get(f"/admin/v1{path}", params=params))

    def key(self, team: str, user: str | None = None, **settings: Any) -> dict[str, Any]:
        """A new sub-key; its secret is under "key". Team and user are created where they are missing."""
        self.http.post("/admin/v1/teams", json={"id": team})
        if user:
            self.http.post("/admin/v1/users", json={"id": user, "team": team})
        return self.post("/keys", {"team": team, "user": user, **settings})

    def ledger(self, **params: str) -> list[dict[str, Any]]:
        """All entries, page by page."""
        entries: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.get("/ledger", limit="1000", **({"cursor": cursor} if cursor else {}), **params)
            entries += page["data"]
            if page["next_cursor"] is None:
                return entries
            cursor = page["next_cursor"]

    def _done(self, response: httpx.Response) -> dict[str, Any]:
        assert response.is_success, response.text
        answer: dict[str, Any] = response.json()
        return answer


class Stack:
    """An emulator and one or more gateways on one Redis."""

    def __init__(self, redis_url: str, emulator: str, processes: contextlib.ExitStack) -> None:
        self.redis_url = redis_url
        self.data_dir = Path(processes.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        self.emulator = httpx.Client(base_url=emulator, timeout=30)
        self.emulator_url = emulator
        self._processes = processes

    def gateway(self, redis_url: str | None = None, **settings: str) -> Process:
        """Start a gateway; settings as environment variables without their prefix, in lower case.

        `redis_url`: another way to the same Redis, such as a proxy; "" where the gateway is to run one itself.
        """
        return self.gateway_of(Process, redis_url, settings)

    def gateway_of(self, kind: type[P], redis_url: str | None, settings: Mapping[str, str]) -> P:
        """The same, looked after by a `kind` of process."""
        env = {
            "MINITOOLAI_API_KEY": UPSTREAM_KEY,
            "MINITOOLAI_BASE_URL": self.emulator_url,
            "REDIS_URL": self.redis_url if redis_url is None else redis_url,
            "GATEWAY_ADMIN_KEY": ADMIN_KEY,
            "GATEWAY_PORT": "0",
            "GATEWAY_DATA_DIR": str(self.data_dir),
            **{f"GATEWAY_{name.upper()}": value for name, value in settings.items()},
        }
        process = kind("serve", env=env)
        self._processes.callback(process.stop)
        assert process.url
        return process

    def bill(self) -> dict[str, Any]:
        """The emulator's bill, once no call is running there any more."""
        bill: dict[str, Any] = self.emulator.get("/__bill", params={"at_rest": "1"}).json()
        return bill


@contextlib.contextmanager
def running_stack(redis_url: str, *, balance_usd: str = "1000") -> Iterator[Stack]:
    """An emulator of its own, and whatever gateways the test starts; all end with the block."""
    with contextlib.ExitStack() as processes:
        emulator = Process("emulator", "--port", "0", "--key", UPSTREAM_KEY, "--balance-usd", balance_usd)
        processes.callback(emulator.stop)
        stack = Stack(redis_url, emulator.url, processes)
        processes.callback(stack.emulator.close)
        yield stack


def chat(text: str = "Hello", model: str = "gpt-4o-mini", **fields: Any) -> dict[str, Any]:
    """A chat request; `[[fault:…]]` in the text asks the emulator for a fault."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def listens(url: str) -> bool:
    """Whether somebody accepts connections there."""
    host, port = url.removeprefix("http://").split(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5):
        return True
    return False
