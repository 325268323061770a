"""What bounds a request that ASGI serves, as the control plane's and the dashboard's.

The data plane's calls have that of `Exchange`.
"""

import asyncio
import contextlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.billing.errors import RequestTimeout, RequestTooLarge
from gateway.web.exchange import UNREAD_BYTES_KEPT, ClientLeft
from gateway.web.room import Room

PAGE_BODY_BYTES_MAX = 1 << 20
_WHOSE = "*"  # who asks, only the page itself finds out: as to room they are all one caller


async def serve_bounded(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, body_timeout_s: float, room: Room
) -> None:
    """Serve one request. Its body is bounded, in bytes and time, for whoever reads it; what nobody reads is left.

    Reading it raises RequestTooLarge (declared or counted, and reads no further), RequestTimeout, or Overloaded (there
    is no room for it).
    """
    page = _Page(scope, receive, send, body_timeout_s, room)
    try:
        with contextlib.suppress(ClientLeft):  # within its request: there is nobody to answer
            await app(scope, page.receive, page.send)
    finally:
        page.place.leave()


class _Page:
    def __init__(self, scope: Scope, receive: Receive, send: Send, body_timeout_s: float, room: Room) -> None:
        self.place = room.place_of(_WHOSE)
        headers = Headers(scope=scope)
        self._declared_bytes = int(headers.get("content-length", "0"))
        self._is_chunked = "transfer-encoding" in headers
        self._expects = "expect" in headers
        self._is_whole = not self._is_chunked and self._declared_bytes == 0
        self._receive, self._send = receive, send
        self._body_timeout_s = body_timeout_s
        self._ends_at_s = 0.0
        self._is_given_up = False
        self._body_bytes = 0

    async def receive(self) -> Message:
        if self._declared_bytes > PAGE_BODY_BYTES_MAX:
            raise _too_large()
        now_s = asyncio.get_running_loop().time()
        self._ends_at_s = self._ends_at_s or now_s + self._body_timeout_s
        try:
            async with asyncio.timeout_at(None if self._is_whole else self._ends_at_s):
                message = await self._receive()
        except TimeoutError:
            self._is_given_up = True
            raise RequestTimeout(
                f"The request's body did not arrive within {self._body_timeout_s:g} seconds."
            ) from None
        if message["type"] == "http.disconnect" and not self._is_whole:
            raise ClientLeft
        self._body_bytes += len(message.get("body", b""))
        if self._body_bytes > PAGE_BODY_BYTES_MAX:
            raise _too_large()
        if refusal := self.place.resize(self._body_bytes):
            self._is_given_up = True
            raise refusal
        self._is_whole = self._is_whole or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._is_whole and self._is_unwanted():
            # Nobody wants the rest of the request: without this the server would read and drop all of it.
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await self._send(message)

    def _is_unwanted(self) -> bool:
        return self._is_given_up or self._is_chunked or self._expects or self._declared_bytes > UNREAD_BYTES_KEPT


def _too_large() -> RequestTooLarge:
    return RequestTooLarge(f"The body is above {PAGE_BODY_BYTES_MAX} bytes; send less in one request.")
