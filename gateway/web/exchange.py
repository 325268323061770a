"""One HTTP exchange of the data plane on raw ASGI: read the request bounded, write the answer, notice who leaves.

Starlette's Request and StreamingResponse cost more than the whole rest of a call, and StreamingResponse cancels its
generator when the client leaves, which loses the settlement behind it (ADR 0005).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from gateway.billing.errors import GatewayError, RequestTimeout, RequestTooLarge, UnsupportedMediaType
from gateway.billing.money import format_usd
from gateway.web.errors import Header, error_answer

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


_HASTY_WRITE_S = 1.0
_UNREAD_BYTES_KEPT = 65_536
"""An error answered before a body of at most this size was read keeps the connection."""


class ClientLeft(Exception):
    """The client closed the connection before its request was whole: there is nobody to answer."""


class Exchange:
    """`gone` turns True when the client has left; writing then does nothing, so a stream can be read on."""

    def __init__(self, scope: Message, receive: Receive, send: Send, request_id: str, write_timeout_s: float) -> None:
        self._receive = receive
        self._send = send
        self._write_timeout_s = write_timeout_s
        self._headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        self._watch: asyncio.Task[None] | None = None
        self._on_gone: Callable[[], None] | None = None
        self.method: str = scope["method"]
        self.request_id = request_id
        self.gone = False
        self.started = False
        self.finished = False
        self.status = 0
        self._unread = True
        self.told: list[Header] | None = None
        """Headers every answer from here on carries: what is left of limits and budgets. None: not known yet."""
        self.cost_nano_usd: int | None = 0
        """What a whole answer says it cost; None where that stands in its headers already, or nobody knows."""
        self.waited_s = 0.0
        """How long the client was waited for: to send its body, to read its answer."""

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header (lower-case name), or None."""
        for key, value in self._headers:
            if key == name:
                return value
        return None

    def headers(self, name: bytes) -> list[bytes]:
        """All values of a header (lower-case name)."""
        return [value for key, value in self._headers if key == name]

    async def json_body(self, body_bytes_max: int, timeout_s: float) -> bytes:
        """Read the whole body.

        Raises UnsupportedMediaType, RequestTooLarge (declared or counted, and reads no further), RequestTimeout,
        ClientLeft.
        """
        self._refuse_other_types()
        declared = self.header(b"content-length")
        if declared is not None and int(declared) > body_bytes_max:
            raise _too_large(body_bytes_max)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._read(body_bytes_max)
        except TimeoutError:
            raise RequestTimeout(f"The request's body did not arrive within {timeout_s:g} seconds.") from None
        finally:
            self.waited_s += time.perf_counter() - began

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Call `on_gone` once, should the client leave before the answer is finished."""
        self._on_gone = on_gone
        self._watch = asyncio.create_task(self._wait_for_leave())

    def leave(self) -> None:
        """The client is gone, or counts as gone: nothing more is written to it."""
        if not self.gone:
            self.gone = True
            if self._on_gone is not None:
                self._on_gone()

    async def start(self, status: int, headers: Sequence[Header]) -> None:
        head = [*headers, (b"x-request-id", self.request_id.encode()), *(self.told or ())]
        await self._send({"type": "http.response.start", "status": status, "headers": head})
        self.started = True
        self.status = status

    async def write(self, chunk: bytes) -> None:
        """Pass bytes on; waits while the client's connection is full. Does nothing once the client has left."""
        await self._deliver(chunk, more=True)

    async def finish(self, last: bytes = b"") -> None:
        """End the body."""
        self.finished = True
        await self._deliver(last, more=False)

    def hasten(self) -> None:
        """The gateway is about to end: a reader that has stopped is waited for no longer."""
        self._write_timeout_s = min(self._write_timeout_s, _HASTY_WRITE_S)

    async def answer(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """Send a whole answer; `headers` without a length get one."""
        length = () if any(name == b"content-length" for name, _ in headers) else (_length(body),)
        cost = () if self.cost_nano_usd is None else (_cost(self.cost_nano_usd),)
        await self.start(status, [*headers, *length, *cost])
        await self.finish(body)

    async def answer_error(self, error: GatewayError, beside: Mapping[str, object] | None = None) -> None:
        status, headers, body = error_answer(error, beside)
        if self._unread and self._is_long():
            # Nobody wants the rest of the request: without this the server would read and drop all of it.
            headers.append((b"connection", b"close"))
        await self.answer(status, headers, body)

    def close(self) -> None:
        """Stop watching the client."""
        self._on_gone = None
        if self._watch is not None:
            self._watch.cancel()

    async def _deliver(self, body: bytes, *, more: bool) -> None:
        if self.gone or (more and not body):
            return
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await self._send({"type": "http.response.body", "body": body, "more_body": more})
        except TimeoutError:
            # It has not read for so long that it counts as gone; a stream is read on for its usage.
            self.leave()
        finally:
            self.waited_s += time.perf_counter() - began

    def _is_long(self) -> bool:
        declared = self.header(b"content-length")
        return declared is None or int(declared) > _UNREAD_BYTES_KEPT

    def _refuse_other_types(self) -> None:
        content_type = (self.header(b"content-type") or b"application/json").split(b";")[0].strip().lower()
        if content_type != b"application/json" and not content_type.endswith(b"+json"):
            raise UnsupportedMediaType("Send the body as JSON with the header Content-Type: application/json.")
        if (self.header(b"content-encoding") or b"identity").strip().lower() != b"identity":
            raise UnsupportedMediaType("Send the body as it is, without Content-Encoding.")

    async def _read(self, body_bytes_max: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                raise ClientLeft
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > body_bytes_max:
                raise _too_large(body_bytes_max)
            parts.append(part)
            if not message.get("more_body", False):
                self._unread = False
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _wait_for_leave(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.finished:
            self.leave()


def _too_large(body_bytes_max: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request's body is above {body_bytes_max} bytes; send less in one call.")


def _cost(cost_nano_usd: int) -> Header:
    return (b"x-gateway-cost-usd", format_usd(cost_nano_usd).encode())


def _length(body: bytes) -> Header:
    return (b"content-length", str(len(body)).encode())
