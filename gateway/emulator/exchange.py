"""One HTTP exchange on raw ASGI: read the body, write an answer, notice that the client left, break off.

Raw ASGI instead of Starlette's responses, because the emulator must know how many bytes went out, when its
client left, and must be able to break the connection in the middle of a body. The server offers the latter
as the ASGI extension `CONNECTION` (see `server`).
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import Receive, Scope, Send

from gateway.emulator.shapes import Reply

CONNECTION = "gateway.emulator.connection"
"""ASGI extension: `close` ends the connection after what was written, `reset` at once, by RST."""


class ClientLeft(Exception):
    """The client went away before its request was complete."""


class BodyTooLarge(Exception):
    """The request body is longer than the emulator accepts."""


class Exchange:
    """One request and its answer.

    `left` is set when the client goes away before the answer is complete. `sent_bytes` counts the body
    bytes handed to the connection.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        self.left = asyncio.Event()
        self.sent_bytes = 0
        self._scope = scope
        self._receive = receive
        self._send = send
        self._watcher: asyncio.Task[None] | None = None
        self._broken = False

    def header(self, name: bytes) -> str | None:
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == name), None)

    async def read_body(self, bytes_max: int) -> bytes:
        """The whole request body; from then on `left` is watched. Raises BodyTooLarge, ClientLeft."""
        body = bytearray()
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > bytes_max:
                raise BodyTooLarge
        self._watcher = asyncio.create_task(self._watch())
        return bytes(body)

    async def respond(self, reply: Reply) -> None:
        """Send a whole answer."""
        self._stop_watching()
        headers = [(b"content-type", reply.content_type), *reply.headers]
        if reply.status not in (204, 304):
            headers.append((b"content-length", str(len(reply.body)).encode()))
        await self.start(reply.status, headers)
        self.sent_bytes += len(reply.body)
        await self._send({"type": "http.response.body", "body": reply.body, "more_body": False})

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the status line and headers now."""
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """Send a piece of the body; waits while the client does not read."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self.sent_bytes += len(data)

    async def finish(self) -> None:
        """End the body properly."""
        self._stop_watching()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def break_off(self, reset: bool = False) -> None:
        """End the connection without ending the body."""
        self._broken = True
        self._scope["extensions"][CONNECTION]["reset" if reset else "close"]()

    async def close(self) -> None:
        """To be awaited last. After `break_off` it waits until the connection is gone, since the server
        would answer 500 for an application that returns before."""
        if self._broken and self._watcher is not None:
            await self._watcher
        self._stop_watching()

    async def pause(self, seconds: float) -> None:
        """Wait, but not for a client that left."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.left.wait()

    async def until(self, event: asyncio.Event) -> None:
        """Wait for `event` or for the client to leave."""
        waits = [asyncio.create_task(event.wait()), asyncio.create_task(self.left.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _stop_watching(self) -> None:
        # From here on the end of the connection is nothing to be noticed.
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left.set()
