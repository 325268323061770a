"""One process that serves: uvicorn, with our start, and an end that loses no call."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from gateway.app import Gateway
from gateway.settings import Settings
from gateway.web.protocol import protocol_for

CHECK_S = 0.1
_AFTER_GRACE_S = 5
_OBJECTS_BETWEEN_COLLECTIONS = 5_000


class Server(uvicorn.Server):
    """uvicorn, with a graceful end: on SIGTERM calls in flight finish within the grace time, the rest are ended.

    Listens on the address of the settings, or on the sockets `run_to_end` is given. `on_listening` is called once it
    does; `check` every 0.1 s, on the event loop and hence in this thread, also while calls drain and settle.
    """

    def __init__(
        self,
        gateway: Gateway,
        settings: Settings,
        on_listening: Callable[["Server"], None],
        check: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(_config(gateway, settings))
        self._gateway = gateway
        self._grace_s = settings.grace_s
        self._on_listening = on_listening
        self._check = check

    def run_to_end(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Serve until SIGTERM or SIGINT. Where `started` is False it could not; the gateway's `fault` says why."""
        with contextlib.suppress(SystemExit):  # how uvicorn ends when it cannot start
            self.run(None if sockets is None else list(sockets))

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        checks = asyncio.create_task(self._check_again_and_again())
        try:
            await super().serve(sockets)
        finally:
            checks.cancel()

    async def _check_again_and_again(self) -> None:
        while self._check is not None:
            self._check()
            await asyncio.sleep(CHECK_S)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The server's own handler would raise the signal again once all is closed, and end the process by it: without
        stopping the embedded Redis, and with an exit code that means failure."""
        self._gateway.drain()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, let streams run for the grace time, then ask each to end; uvicorn waits for them."""
        timer = asyncio.get_running_loop().call_later(self._grace_s, self._gateway.services.tasks.hurry)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # What keeps it from starting is told in one line of ours, not in several of uvicorn's.
        uvicorn_log = logging.getLogger("uvicorn")
        uvicorn_log.setLevel(logging.CRITICAL)
        await super().startup(sockets)
        uvicorn_log.setLevel(logging.WARNING)
        if self.started:
            _settle_down()
            self._on_listening(self)


def _settle_down() -> None:
    """What is there by now stays to the end: the collector need not look through it again and again.

    A call leaves no cycles behind, so looking is mostly in vain, and is done seldom. What is refused leaves some, so
    not too seldom either: to look through 70,000 objects at once held everybody up for a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 2, 20)  # what survives is looked through soon, while it is little


def _config(gateway: Gateway, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        gateway,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=protocol_for(gateway.data_plane),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.grace_s) + _AFTER_GRACE_S,
    )
