"""A client's connection, apart from the requests on it: who gets one, how long it may say nothing, how it ends.

It ends so that the client can read the last answer. A connection that is closed while bytes of the client's are unread
is reset, and a reset takes an answer along that was not read yet. So the server first says that it will send nothing
more, and for a moment drops what still comes: `LINGER_S` and `_IGNORED_BYTES_MAX` bound what that costs, `Door` how
many do so at a time.

There is one timer a connection. It is not set and taken back by each request: `_due_s` says until when something must
have happened, and the timer looks at it when it rings.
"""

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.billing.errors import GatewayError, RequestTimeout
from gateway.call_log import log_refused
from gateway.web.door import Door
from gateway.web.errors import error_answer
from gateway.web.request_id import new_request_id
from gateway.wire.answer_head import head_of

LINGER_S = 1.0
_IGNORED_BYTES_MAX = 256 * 1024


class ClientConnection(HttpToolsProtocol):
    """uvicorn's connection with bounds; what is asked on it is the subclass's business.

    Once it is `deaf`, nothing that comes is read as HTTP any more: what was asked before is answered, then the `_fault`
    is told, if there is one, and the connection closed.

    A page finds its connection in the request's state.
    """

    def __init__(
        self, door: Door, config: Config, server_state: ServerState, app_state: dict[str, Any], loop: Any = None
    ) -> None:
        super().__init__(config, server_state, {**app_state, "connection": self}, loop)
        self.door = door
        self.deaf = False
        self.is_half_closed = False
        """Whether the client sends nothing more. It may still read, but most who do so have left."""
        self.within_request = False
        """Whether bytes that come belong to a request that has begun."""
        self.in_head = False
        """Whether they belong to its head."""
        self._due_s: float | None = None
        self._fault: GatewayError | None = None
        self._is_inside = False
        self._is_ending = False
        self._has_place_to_linger = False
        self._ignored_bytes = 0
        self._stalled: asyncio.TimerHandle | None = None

    # What asyncio calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        refusal = self.door.enter(self.peer())
        self._is_inside = refusal is None
        if refusal is None:
            self.due_in(self.door.rules.head_timeout_s)
        elif self._takes_place_to_linger():
            # It is told when it has asked something: some clients take an answer that comes before for a mistake.
            self.deaf, self._fault = True, refusal
            self.due_in(LINGER_S)
        else:
            self.door.turned_away(refusal.code)
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self.timeout_keep_alive_task, self._stalled):
            if timer is not None:
                timer.cancel()
        if self._is_inside:
            self.door.leave(self.peer())
        if self._has_place_to_linger:
            self.door.lingered()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's closes in every case
        """The client sends nothing more, but may still read: whoever asked a whole question gets the answer."""
        if self._is_ending or self.at_rest() or (self.within_request and not self.deaf):
            return False
        self.deaf = self.is_half_closed = True
        return True

    def pause_writing(self) -> None:
        """The client has stopped reading; an answer of the data plane has a bound of its own."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.door.rules.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    # What the subclass uses

    def at_rest(self) -> bool:
        """Whether nothing is asked that has no answer yet."""
        cycle: Any = self.cycle  # None before the first request
        return cycle is None or cycle.response_complete

    def ignore(self, data: bytes) -> None:
        """Bytes came on a connection that is deaf: dropped, and after a while not taken at all."""
        self._ignored_bytes += len(data)
        if self._ignored_bytes > _IGNORED_BYTES_MAX:
            self.flow.pause_reading()
        if self._fault is not None and self.at_rest():
            self.tell(self._fault)

    def tell(self, fault: GatewayError) -> None:
        """Answer with an error that belongs to no request that could be served, and close."""
        self.deaf, self._fault = True, None
        self.door.turned_away(fault.code)
        request_id = new_request_id()
        log_refused(request_id, fault.status, fault.code, self.peer())
        if self.transport.is_closing():
            return  # it stopped reading and was given up meanwhile
        status, headers, body = error_answer(fault)
        headers += [(b"x-request-id", request_id.encode()), (b"connection", b"close")]
        self.transport.write(head_of(status, [*self.server_state.default_headers, *headers]) + body)
        self.linger()

    def tell_behind(self, fault: GatewayError) -> None:
        """The same, behind what was asked before."""
        self.deaf, self._fault = True, fault
        if self.at_rest():
            self.tell(fault)

    def answered_all(self) -> None:
        """What was asked is answered, and nothing more will be read."""
        if self._fault is not None:
            self.tell(self._fault)
        else:
            self.close()

    def is_closing(self) -> bool:
        """Whether no further answer is written."""
        return self._is_ending or self.transport.is_closing()

    def end(self) -> None:
        """Close behind an answer that says so; the rest of a request that was not read is not waited for."""
        if self.within_request:
            self.linger()
        else:
            self.close()

    def linger(self) -> None:
        """Close, but let the client read first what was written."""
        self.deaf = True
        if self.transport.is_closing():
            return
        if not self._has_place_to_linger and not self._takes_place_to_linger():
            self.close()
            return
        self._is_ending = True
        self.transport.write_eof()
        self.flow.resume_reading()
        self.due_in(LINGER_S)

    def close(self) -> None:
        """Close once all is sent; a client that does not take it is not waited for without end."""
        if self.transport.is_closing():
            return
        self.transport.close()
        self.due_in(self.door.rules.write_timeout_s)

    def due_in(self, seconds: float) -> None:
        """Something must have happened by then."""
        self._due_s = self.loop.time() + seconds
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        self._look_again_in(seconds)

    def be_idle(self) -> None:
        """The next request may begin within `timeout_keep_alive`."""
        self._due_s = self.loop.time() + self.timeout_keep_alive
        if self.timeout_keep_alive_task is None:
            self._look_again_in(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """The timer of the connection rings: end it, if what was due did not happen."""
        self.timeout_keep_alive_task = None
        if self._due_s is None:
            return
        left_s = self._due_s - self.loop.time()
        if left_s > 0:
            self._look_again_in(left_s)
        elif self.transport.is_closing() or self._is_ending:
            self.transport.abort()
        elif self.in_head:
            timeout_s = self.door.rules.head_timeout_s
            self.tell_behind(RequestTimeout(f"The request's head did not arrive within {timeout_s:g} seconds."))
        else:
            self.close()

    def _unset_keepalive_if_required(self) -> None:
        """uvicorn calls it with every byte; a connection is kept by whole requests alone."""

    def _look_again_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _takes_place_to_linger(self) -> bool:
        self._has_place_to_linger = self.door.may_linger()
        return self._has_place_to_linger

    def peer(self) -> str | None:
        """The address of whoever is connected; None through a socket that has none."""
        return self.client[0] if self.client else None
