"""The emulator as a server: uvicorn, with the one thing added that it lacks, breaking a connection.

An ASGI application cannot end its connection in the middle of a body: uvicorn would end the body properly or
log an error. So its protocol class is given an ASGI extension with two methods on the transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.emulator.app import create_app
from gateway.emulator.exchange import CONNECTION
from gateway.emulator.options import EmulatorOptions
from gateway.emulator.tokens import load_encoding

LINGER_NOT = struct.pack("ii", 1, 0)
START_S_MAX = 60.0
BACKLOG = 2_048


def serve(options: EmulatorOptions, host: str = "127.0.0.1", port: int = 0) -> None:
    """Serve until SIGINT or SIGTERM. Prints one line when it listens; port 0 takes a free one."""

    def announce(url: str) -> None:
        print(f"emulator listening on {url}", flush=True)  # noqa: T201 - what the command is asked to say

    listener = socket.create_server((host, port), backlog=BACKLOG)
    _Server(options, listener, announce).run(sockets=[listener])


@contextlib.contextmanager
def running(options: EmulatorOptions | None = None) -> Iterator[str]:
    """An emulator in a thread of this process, on a free port; yields its base URL. For tests."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    ready = threading.Event()
    urls: list[str] = []

    def announce(url: str) -> None:
        urls.append(url)
        ready.set()

    server = _Server(options or EmulatorOptions(), listener, announce)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="emulator", daemon=True)
    thread.start()
    try:
        if not ready.wait(START_S_MAX):
            raise RuntimeError("the emulator did not start")
        yield urls[0]
    finally:
        server.should_exit = True
        thread.join()


class _Server(uvicorn.Server):
    """uvicorn that announces when it listens and, when it stops, drops what is still open."""

    def __init__(self, options: EmulatorOptions, listener: socket.socket, announce: Callable[[str], None]) -> None:
        config = uvicorn.Config(
            create_app(options),
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=60,
        )
        super().__init__(config)
        host, port = listener.getsockname()[:2]
        self._url = f"http://{host}:{port}"
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Reading the ranks takes a second or two, which the first call must not pay.
        load_encoding()
        await super().startup(sockets)
        self._announce(self._url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A withheld or endless answer never ends by itself.
        for connection in list(self.server_state.connections):
            if isinstance(connection, _Protocol):
                connection.transport.abort()
        await super().shutdown(sockets)


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, offering the extension `CONNECTION` to the application."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        reset = functools.partial(_reset, self.transport)
        self.scope["extensions"] = {CONNECTION: {"close": self.transport.close, "reset": reset}}


def _reset(transport: asyncio.Transport) -> None:
    # With a linger time of zero the kernel sends RST instead of FIN.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    transport.abort()
