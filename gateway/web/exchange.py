"""One HTTP exchange of the data plane: read the request bounded, write the answer, notice who leaves.

It stands where uvicorn would put its own cycle (`web.protocol`), and writes to the connection itself: an ASGI message,
a task and an event for each part of an answer cost more than the whole rest of a call (ADR 0026). Nothing here is ever
cancelled because a client leaves: the settlement behind it would be lost (ADR 0005).
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from gateway.billing.errors import GatewayError, Overloaded, RequestTimeout
from gateway.billing.money import format_usd
from gateway.web.errors import Header, body_too_large, error_answer
from gateway.web.line import Line
from gateway.web.room import SMALL_BODY_BYTES, Place, Room
from gateway.wire.answer_head import head_of
from gateway.wire.request_head import check_json

_HASTY_WRITE_S = 1.0
UNREAD_BYTES_KEPT = 65_536
"""An error answered before a body of at most this size was read keeps the connection."""
_BODY_BYTES_PER_S = 65_536
"""So much of a body earns it another second: a picture of 20 MB over a slow line is no attack, a byte a second is."""
_NOR_SOON = ", and slower than 64 KiB a second; send it faster, or less in one call."
_BODILESS = (204, 304)


class ClientLeft(Exception):
    """The client closed the connection before its request was whole, or its answer begun: there is nobody to answer."""


class Exchange:
    """`gone` turns True when the client has left; writing then does nothing, so a stream can be read on."""

    gone = False
    started = False
    finished = False
    whole = False
    """Whether the request has arrived to its end."""
    status = 0
    told: list[Header] | None = None
    """Headers every answer from here on carries: what is left of limits and budgets. None: not known yet."""
    cost_nano_usd: int | None = 0
    """What a whole answer says it cost; None where that stands in its headers already, or nobody knows."""
    waited_s = 0.0
    """How long the client was waited for: to send its body, to read its answer."""
    _on_gone: Callable[[], None] | None = None
    _from_half = False
    _is_half_closed = False
    _body_bytes = 0
    _body_bytes_max = SMALL_BODY_BYTES  # so much is taken from the connection before somebody reads it
    _place: Place | None = None
    _fault: GatewayError | None = None
    _reader: asyncio.Future[None] | None = None
    _waiting: asyncio.Timeout | None = None
    _due_s: float | None = None
    _chunked = False
    _hasty = False
    _head = b""

    def __init__(self, line: Line, request_id: str, write_timeout_s: float) -> None:
        self._line = line
        self._write_timeout_s = write_timeout_s
        self._first = line.fields
        self._body: list[bytes] = []
        self.method = line.method
        self.request_id = request_id

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header (lower-case name), or None."""
        return self._first.get(name)

    def headers(self, name: bytes) -> list[bytes]:
        """All values of a header (lower-case name)."""
        return [value for key, value in self._line.headers if key == name] if name in self._first else []

    def origin(self) -> tuple[str | None, str]:
        """Who is connected, and whom X-Forwarded-For says to stand behind."""
        return self._line.peer, b",".join(self.headers(b"x-forwarded-for")).decode("latin-1")

    async def json_body(
        self, body_bytes_max: int, timeout_s: float, room: Room | None = None, whose: str = ""
    ) -> bytes:
        """Read the whole body. A large one takes its place in the `room`, until `sent_on` or `close`.

        Raises UnsupportedMediaType, RequestTooLarge (declared or counted, and reads no further), RequestTimeout,
        InvalidRequest (its framing is broken), Overloaded (there is no room; it reads no further), ClientLeft.
        """
        check_json(self.header(b"content-type"), self.header(b"content-encoding"))
        declared = self.header(b"content-length")
        if declared is not None and int(declared) > body_bytes_max:
            raise body_too_large(body_bytes_max)
        if not self.whole or self._body_bytes > SMALL_BODY_BYTES:
            self._place = room.place_of(whose) if room else None
            await self._arrived(body_bytes_max, timeout_s)
        if self._body_bytes > body_bytes_max:
            raise body_too_large(body_bytes_max)
        body, self._body = self._body, []
        return body[0] if len(body) == 1 else b"".join(body)

    def may_be_large(self) -> bool:
        """Whether the body is above what takes no room, or may be."""
        if self.whole:
            return self._body_bytes > SMALL_BODY_BYTES
        declared = self.header(b"content-length")
        return declared is None or int(declared) > SMALL_BODY_BYTES

    def sent_on(self, kept_bytes: int) -> None:
        """So much of the body is still in hand: what was made of the rest has left."""
        if self._place is not None:
            self._place.resize(kept_bytes)

    def watch(self, on_gone: Callable[[], None], *, from_half: bool = False) -> None:
        """Call `on_gone` once, should the client leave before the answer is finished.

        `from_half`: already when it closes its half of the connection. So do most who leave; some only send no more,
        so what comes is still written.
        """
        self._on_gone, self._from_half = on_gone, from_half
        if self.gone or (self._is_half_closed and from_half):
            self._tell_gone()

    def leave(self) -> None:
        """The client is gone, or counts as gone: nothing more is written to it."""
        if not self.gone:
            self.gone = True
            self._tell_gone()

    def start(self, status: int, headers: Sequence[Header]) -> None:
        """Make the head of an answer: it leaves in one packet with the first bytes of the body, or by `write_head`.

        Without a length among its headers the body goes in chunks.
        """
        self.started, self.status = True, status
        if self.gone:
            return
        lines = [*self._line.standing_headers(), (b"x-request-id", self.request_id.encode()), *headers]
        if self.told:
            lines += self.told
        length = connection = None
        for name, value in headers:
            if name == b"content-length":
                length = value
            elif name == b"connection":
                connection = value
        if length is None and status not in _BODILESS:
            if self._line.is_http_1_0:
                self._line.keep_alive = False  # which knows no chunks: the connection's end is the body's
            else:
                self._chunked = True
                lines.append((b"transfer-encoding", b"chunked"))
        if connection == b"close":
            self._line.keep_alive = False
        elif not self._line.keep_alive:
            lines.append((b"connection", b"close"))
        self._head = head_of(status, lines)

    def write_head(self) -> None:
        """Let the client see that its answer has begun; there is no body to send yet."""
        if self._head and not self.gone:
            head, self._head = self._head, b""
            self._line.write(head)

    async def write(self, chunk: bytes) -> None:
        """Pass bytes on; waits while the client's connection is full. Does nothing once the client has left."""
        if self.gone or not chunk:
            return
        data = b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk
        if self._head:
            data, self._head = self._head + data, b""
        self._line.write(data)
        if self._line.is_full():
            await self._emptied()

    async def finish(self, last: bytes = b"") -> None:
        """End the body."""
        self.finished = True
        if self.gone:
            self._line.abort()
            return
        if self.method == "HEAD":
            last = b""
        if self._chunked:
            last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last) if last else b"0\r\n\r\n"
        if last or self._head:
            self._line.write(self._head + last)
            self._head = b""
        if self._line.is_full():
            await self._emptied()
        self._on_gone = None
        self._line.end()

    def hasten(self) -> None:
        """The gateway is about to end: a client that has stopped, sending or reading, is waited for no longer."""
        self._hasty = True
        self._write_timeout_s = min(self._write_timeout_s, _HASTY_WRITE_S)
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time() + self._write_timeout_s)

    async def answer(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """Send a whole answer; `headers` without a length get one."""
        length = () if any(name == b"content-length" for name, _ in headers) else (_length(body),)
        cost = () if self.cost_nano_usd is None else (_cost(self.cost_nano_usd),)
        self.start(status, [*headers, *length, *cost])
        await self.finish(body)

    async def answer_error(self, error: GatewayError, beside: Mapping[str, object] | None = None) -> None:
        status, headers, body = error_answer(error, beside)
        unread = not self.whole and (self._is_long() or self._line.expects_continue or self._fault is not None)
        if unread or isinstance(error, Overloaded | RequestTimeout):
            # Nobody wants the rest of the request: without this the server would read and drop all of it. Who asked
            # whether to send it will not, and its next request would be taken for it. Where there are too many calls,
            # the next connection may find another worker.
            headers.append((b"connection", b"close"))
        await self.answer(status, headers, body)

    def unwatch(self) -> None:
        """No more call back."""
        self._on_gone = None

    def close(self) -> None:
        """The exchange is over. An answer that was not brought to its end ends the connection."""
        if self._place is not None:
            self._place.leave()
        if not self.finished:
            self._head = b""
            self._line.abort()

    # What the connection tells

    def body_came(self, data: bytes) -> None:
        """More of the request's body. What nobody asked for yet, or will, is not kept without bound."""
        if self.finished:
            return
        self._body_bytes += len(data)
        self._body.append(data)
        if self._due_s is not None and self._waiting is not None and not self._hasty:
            self._waiting.reschedule(self._due_s + self._body_bytes / _BODY_BYTES_PER_S)
        if self._body_bytes > SMALL_BODY_BYTES:
            self._grew_large()

    def request_ended(self) -> None:
        """The request is whole."""
        self.whole = True
        self._wake()

    def body_broke(self, fault: GatewayError) -> None:
        """The rest of the request cannot be read."""
        self._fault = fault
        self._wake()

    def half_closed(self) -> None:
        """The client sends no more. The request is whole."""
        self._is_half_closed = True
        if self._from_half:
            self._tell_gone()

    def lost(self) -> None:
        """The connection has ended."""
        if not self.finished:
            self.leave()
        self._wake()

    # Within

    async def _arrived(self, body_bytes_max: int, timeout_s: float) -> None:
        """Wait until the request is whole, above the bound, or without room."""
        if self._line.expects_continue and not self.whole:
            self._line.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._body_bytes_max = body_bytes_max
        self._line.read_on(True)  # also where all is there: else nobody would hear of a client that leaves
        if self._body_bytes > SMALL_BODY_BYTES:
            self._grew_large()
        began = time.perf_counter()
        wait_s = min(timeout_s, _HASTY_WRITE_S) if self._hasty else timeout_s + self._body_bytes / _BODY_BYTES_PER_S
        self._due_s = asyncio.get_running_loop().time() + timeout_s
        try:
            async with asyncio.timeout(wait_s) as self._waiting:
                while not (self.whole or self.gone or self._fault or self._body_bytes > body_bytes_max):
                    self._reader = asyncio.get_running_loop().create_future()
                    await self._reader
        except TimeoutError:
            raise RequestTimeout(f"The request's body did not arrive within {timeout_s:g} s{_NOR_SOON}") from None
        finally:
            self._waiting = self._due_s = None
            self.waited_s += time.perf_counter() - began
        if self.gone:
            raise ClientLeft
        if self._fault is not None:
            raise self._fault

    def _grew_large(self) -> None:
        """More came of a body that is no small one: it needs room, and is not read on past its bound."""
        refusal = self._place.resize(self._body_bytes) if self._place else None
        if refusal:
            self._fault = refusal
            self._body.clear()
        if refusal or self._body_bytes > self._body_bytes_max:
            self._line.read_on(False)
            self._wake()

    async def _emptied(self) -> None:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._write_timeout_s) as self._waiting:
                await self._line.emptied()
        except TimeoutError:
            # It has not read for so long that it counts as gone; a stream is read on for its usage.
            self.leave()
            self._line.abort()
        finally:
            self._waiting = None
            self.waited_s += time.perf_counter() - began

    def _tell_gone(self) -> None:
        if self._on_gone is not None:
            on_gone, self._on_gone = self._on_gone, None
            on_gone()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _is_long(self) -> bool:
        declared = self.header(b"content-length")
        return declared is None or int(declared) > UNREAD_BYTES_KEPT


def _cost(cost_nano_usd: int) -> Header:
    return (b"x-gateway-cost-usd", format_usd(cost_nano_usd).encode())


def _length(body: bytes) -> Header:
    return (b"content-length", b"%d" % len(body))
