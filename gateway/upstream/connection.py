"""One HTTP/1.1 connection to the upstream: a request at a time, its answer as it arrives.

It is an `asyncio.Protocol` that feeds httptools, because a stream reader, a task or a timer for each read costs more
than all the rest of a call (ADR 0023). What a caller must know of money is whether the whole request left: `sent`.

Laws:
- What the upstream sends while nothing was asked, or behind the end of its answer, ends the connection.
- What is not read yet is bounded: past `_PAUSED_ABOVE_BYTES` the upstream is not read until the reader has caught up.
  All connections of a pool read into one buffer, for what has arrived is parsed at once: so nobody reads more than that
  at a time, and an idle connection has no buffer of its own.
- An event of the answer costs one append, by the parser itself.
- The head is bounded in bytes and lines. Silence is bounded, but the time a slow reader takes is not silence.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Literal, cast

import httptools

from gateway.upstream.leg import AnswerTimeout, BrokenOff, CutOff, Headers, NoAnswer, NotSent, Stalled, UpstreamFault

ARRIVALS_BYTES = 64 * 1024
_PAUSED_ABOVE_BYTES = 64 * 1024
_HEAD_BYTES_MAX = 64 * 1024
_HEAD_LINES_MAX = 200
_IDLE_S = 15.0
"""How long an idle connection is trusted where the upstream does not say."""
_KEEP_ALIVE_MARGIN_S = 1.0


class LostUnsent(NotSent):
    """The connection was lost before it had taken the whole request: it may be sent again on another."""


State = Literal["idle", "asked", "answering", "answered", "closed"]


class Connection(asyncio.BufferedProtocol):
    """`ask` sends a request, `answer_begun` waits for its head, `read` gives the body piece by piece.

    `arrivals` is where the loop puts what arrives; it may be shared by all connections of one loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        silence_s: float,
        on_lost: Callable[["Connection"], None],
        arrivals: memoryview,
    ) -> None:
        self._loop = loop
        self._silence_s = silence_s
        self._on_lost = on_lost
        self._arrivals = arrivals
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at_s = 0.0
        self._fault: UpstreamFault | None = None
        self._body: list[bytes] = []
        self._unread_bytes = 0
        """How much has arrived since the last `read`: the body, and what it was wrapped in."""
        self._reading_paused = False
        self._head_bytes = 0
        self._framed = False
        self._encrypted = False
        self._keeps_alive = True
        self._is_cut = False
        self.state: State = "idle"
        self.sent = False
        """Whether the whole request may have been handed to the system: what surely is not whole cannot be billed."""
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._idle_s = _IDLE_S
        """How long it may be idle and still be trusted."""
        self._trusted_until_s = math.inf
        self.on_body = self._body.append  # what httptools calls most; it looks it up here, when it is made
        self._parser = httptools.HttpResponseParser(self)

    # What the pool and the leg use

    def ask(self, request: bytes) -> None:
        """Send a whole request. The connection must be idle."""
        if self._transport is None or self._transport.is_closing():
            raise LostUnsent("closed")
        self.state, self.sent, self.status, self.headers = "asked", True, 0, []
        self._head_bytes, self._framed = 0, False
        self._heard_at_s = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._silence_s, self._listen)
        self._transport.write(request)

    async def answer_begun(self) -> None:
        """Wait for the head of the answer. Raises NotSent, NoAnswer, AnswerTimeout."""
        while self.state == "asked":
            await self._wait()
        if self.state == "closed" and not self.status:
            raise self._fault or NoAnswer("closed")

    async def read(self) -> bytes:
        """What has arrived of the body since the last time; waits where that is nothing, b"" at its end.

        Raises BrokenOff, Stalled, CutOff.
        """
        while not self._body:
            if self.state == "answered":
                return b""
            if self.state == "closed":
                raise self._broken_off()
            await self._wait()
        chunk = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._unread_bytes = 0
        if self._reading_paused:
            self._resume_reading()
        return chunk

    def _broken_off(self) -> BrokenOff:
        reason = self._fault.reason if self._fault else "closed"
        if self._is_cut:
            return CutOff(reason)
        return Stalled(reason) if isinstance(self._fault, AnswerTimeout) else BrokenOff(reason)

    def has_more(self) -> bool:
        """Whether `read` would not wait for more of the body."""
        return bool(self._body)

    def finish(self) -> bool:
        """The answer was read, or is left: whether the connection can be asked again. If not, it is closed."""
        reusable = self.state == "answered" and self._keeps_alive and self._fault is None and not self._body
        # Answered before it was read whole: the rest of the request stands in the way of the next one.
        if reusable and self._transport is not None and not self._transport.get_write_buffer_size():
            self.state = "idle"
            self._trusted_until_s = self._loop.time() + self._idle_s
            return True
        self.abort()
        return False

    def cut(self) -> None:
        """Wait for the upstream no longer: whoever waits hears AnswerTimeout, or CutOff within an answer."""
        if self.state in ("asked", "answering"):
            self._fault, self._is_cut = AnswerTimeout("cut off"), True
            self._fail("cut off")

    def abort(self) -> None:
        """Close at once; the upstream's answer, if one is on its way, is lost."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def usable(self) -> bool:
        """Whether an idle connection may be asked."""
        if self.state != "idle" or self._transport is None or self._transport.is_closing():
            return False
        return self._loop.time() < self._trusted_until_s

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._encrypted = transport.get_extra_info("ssl_object") is not None
        if not self._encrypted:
            # Nothing may wait in the transport's buffer unseen: what is not written yet is not sent.
            self._transport.set_write_buffer_limits(high=0)

    def pause_writing(self) -> None:
        # A TLS layer pauses for buffers of its own, also when all has left: it never shows that a request is not whole.
        self.sent = self._encrypted

    def resume_writing(self) -> None:
        self.sent = True

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._arrivals

    def buffer_updated(self, arrived_bytes: int) -> None:
        if self.state in ("idle", "answered"):
            self._fail("spoke unasked")
            return
        self._heard_at_s = self._loop.time()
        if self.state == "asked":
            self._head_bytes += arrived_bytes
        try:
            self._parser.feed_data(self._arrivals[:arrived_bytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(type(error).__name__)
            return
        if self.state == "asked" and self._head_bytes > _HEAD_BYTES_MAX:
            self._fail("its head is too long")
            return
        self._unread_bytes += arrived_bytes
        if self._unread_bytes > _PAUSED_ABOVE_BYTES and not self._reading_paused:
            self._pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        return False  # closes the transport, which tells `connection_lost`

    def connection_lost(self, error: Exception | None) -> None:
        if self.state == "answering" and not self._framed and error is None:
            # Without a length or chunks the end of the connection is the end of the answer.
            self.state, self._keeps_alive = "answered", False
        elif self.state != "answered":
            if self._fault is None:
                reason = type(error).__name__ if error else "closed"
                self._fault = NoAnswer(reason) if self.sent or self.status else LostUnsent(reason)
            self.state = "closed"
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()
        self._on_lost(self)

    # What httptools calls

    def on_message_begin(self) -> None:
        if self.state != "asked":
            # A second answer behind the first: nobody asked for it, and none of it may get into the first one's body.
            self._fault = BrokenOff("spoke unasked")
            raise ValueError("spoke unasked")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.state != "asked":
            return  # a trailer, or what nobody asked for
        if len(self.headers) >= _HEAD_LINES_MAX:
            raise ValueError("too many headers")
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.state != "asked":
            return
        if status < 200:
            self.headers.clear()  # 100 Continue and its like: the answer is still to come
            return
        for name, value in self.headers:
            if name == b"content-length":
                self._framed = True
            elif name == b"transfer-encoding":
                if value.strip().lower() != b"chunked":
                    raise ValueError("a coding that nobody asked for")
                self._framed = True
            elif name == b"keep-alive":
                self._idle_allowed(value)
        self.status, self.state = status, "answering"

    def on_message_complete(self) -> None:
        if self.state == "answering":
            self.state = "answered"
            self._keeps_alive = self._keeps_alive and self._parser.should_keep_alive()

    # Within

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, reason: str) -> None:
        if self._fault is None:
            self._fault = NoAnswer(reason)
        self._keeps_alive = False
        if self.state != "answered":
            self.state = "closed"
        self.abort()
        self._wake()

    def _listen(self) -> None:
        """One timer for many calls: it looks whether something was heard meanwhile, and else waits on."""
        self._timer = None
        if self.state not in ("asked", "answering"):
            return  # nothing is to be heard of; the next call sets it again
        now_s = self._loop.time()
        if self._reading_paused:
            self._heard_at_s = now_s
        silent_s = now_s - self._heard_at_s
        if silent_s < self._silence_s:
            self._timer = self._loop.call_later(self._silence_s - silent_s, self._listen)
            return
        self._fault = AnswerTimeout("ReadTimeout")
        self._fail("ReadTimeout")

    def _pause_reading(self) -> None:
        if self._transport is not None and self.state == "answering":
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        self._reading_paused = False
        self._heard_at_s = self._loop.time()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _idle_allowed(self, keep_alive: bytes) -> None:
        """`Keep-Alive: timeout=5`: what is idle for longer is about to be closed by the other side."""
        for parameter in keep_alive.lower().split(b","):
            name, _, seconds = parameter.strip().partition(b"=")
            if name == b"timeout" and seconds.isdigit():
                self._idle_s = min(_IDLE_S, int(seconds) - _KEEP_ALIVE_MARGIN_S)


def head_of(method: str, target: str, host: bytes, headers: Headers) -> bytes:
    """The head of a request, but for the empty line that ends it. Raises NotSent: a header holds a line break."""
    first = f"{method} {target} HTTP/1.1".encode("ascii")
    lines = [first, b"host: " + host, *(b"%b: %b" % pair for pair in headers)]
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1 or b"\0" in head:
        raise NotSent("a header cannot be written")
    return head + b"\r\n"
