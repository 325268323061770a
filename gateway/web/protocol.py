"""The server's side of one connection: uvicorn's HTTP/1.1, with the data plane's calls taken out of it.

A path of the data plane gets an `Exchange` of ours in the place of uvicorn's cycle; everything else goes on as ASGI
(ADR 0026).

It stays HTTP/1.1. A client may offer to go on in HTTP/2 (`Upgrade: h2c`: `curl --http2` does, with its first request).
A server may ignore the offer (RFC 9110, 7.8), but the parser stops at it and the request's body is lost. So the offer
is taken out of the head before the parser sees it.
"""

import asyncio
import functools
import re
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.web.errors import Header
from gateway.web.exchange import Exchange, Line
from gateway.wire.urls import holds_key

_OFFER = re.compile(rb"^upgrade[ \t]*:", re.IGNORECASE | re.MULTILINE)
_HEAD_END = b"\r\n\r\n"

Handler = Callable[[Exchange], None]
"""Begins to serve a call, and returns at once."""


@dataclass(frozen=True, slots=True)
class DataPlane:
    """What serves which path, and how the exchange of a request is made."""

    handlers: Mapping[str, Handler]
    new_exchange: Callable[[Line], Exchange]
    key_in_url: Handler
    """Answers each request whose URL holds a key, of whichever path."""


class GatewayProtocol(HttpToolsProtocol):
    """One connection of a client."""

    def __init__(
        self,
        data_plane: DataPlane,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._data_plane = data_plane
        self._arriving: Turn | None = None
        """The call whose request is being read."""
        self.running: Turn | None = None
        """The call that is being answered."""
        self._idle_since_s: float | None = None
        self._within_request = False
        """Whether bytes that come belong to a request that has begun."""

    # What asyncio calls

    def data_received(self, data: bytes) -> None:
        if self._at_head() and b"pgrade" in data:  # a body may be long, and is not looked through
            data = without_offer(data)
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        for turn in (self.running, self._arriving):
            if turn is not None:
                turn.exchange.lost()

    # What httptools calls

    def on_message_begin(self) -> None:
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._within_request = True
        self._idle_since_s = None

    def on_headers_complete(self) -> None:
        handler = self._data_plane.handlers.get(self._path())
        if (handler is None or b"?" in self.url) and holds_key(self.url):
            handler = self._data_plane.key_in_url
        if handler is None:
            self._go_on_as_asgi()
            return
        self._arriving = turn = Turn(self, handler, self._data_plane.new_exchange)
        before: Any = self.cycle
        self.cycle = turn  # type: ignore[assignment]  # stands in the place of uvicorn's cycle for this one request
        if before is None or before.response_complete:
            turn.begin()
        else:
            # The next request, sent before the answer to the last one: it waits for its turn.
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        if self._arriving is not None:
            self._arriving.exchange.body_came(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._within_request = False
        if self.running is None and not self.pipeline and self._at_rest():
            self._be_idle()  # its answer was there before its end
        if self._arriving is not None:
            self._arriving.exchange.request_ended()
        else:
            super().on_message_complete()

    def ended(self, turn: "Turn") -> None:
        """A call is answered; what still comes of its request is dropped."""
        self.running = None
        if self._arriving is turn:
            self._arriving = None

    # What uvicorn calls

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Also when a request that has waited behind another gets its turn."""
        if isinstance(cycle, Turn):
            cycle.begin()
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """As uvicorn's, but for the timer of an idle connection: one that looks now and then, not one a request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        waiting = self.pipeline.pop() if self.pipeline else None
        if not self.pipeline:
            # Not before the last of them has its turn: who sends without end would fill the memory.
            self.flow.resume_reading()
        if waiting is None:
            self._be_idle()
        else:
            self._start_asgi_task(*waiting)

    def _be_idle(self) -> None:
        self._idle_since_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_again_in(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since_s = None

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was idle for so long."""
        self.timeout_keep_alive_task = None
        if self._idle_since_s is None or self.transport.is_closing():
            return
        left_s = self._idle_since_s + self.timeout_keep_alive - self.loop.time()
        if left_s <= 0:
            self.transport.close()
        else:
            self._look_again_in(left_s)

    def _look_again_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _go_on_as_asgi(self) -> None:
        self._arriving = None
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()  # makes the scope, which refers to the list of headers
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()

    def _path(self) -> str:
        url = self.url
        if b"?" in url or b"%" in url or not url.startswith(b"/"):
            return urllib.parse.unquote((httptools.parse_url(url).path or b"").decode("ascii"))
        return url.decode("ascii")

    def _at_head(self) -> bool:
        """Whether the next byte begins a request. Behind an early answer the rest of the old one may still come."""
        return not self._within_request

    def _at_rest(self) -> bool:
        cycle: Any = self.cycle  # None before the first request
        return cycle is not None and cycle.response_complete


class _Nobody:
    """Waits for no event: uvicorn tells its cycles by one that there is something to receive."""

    def set(self) -> None:
        pass


_NOBODY = _Nobody()


def protocol_for(data_plane: DataPlane) -> type[asyncio.Protocol]:
    """What uvicorn is given as its `http`: it makes one of each connection."""
    return cast(type[asyncio.Protocol], functools.partial(GatewayProtocol, data_plane))


class Turn:
    """One request of the data plane on its connection: an exchange's `Line`, and what uvicorn asks of a cycle."""

    response_complete = False
    disconnected = False
    message_event = _NOBODY

    def __init__(self, protocol: GatewayProtocol, handler: Handler, new_exchange: Callable[[Line], Exchange]) -> None:
        parser = protocol.parser
        self._protocol = protocol
        self._handler = handler
        self._flow = protocol.flow
        self._transport = protocol.transport
        self.write: Callable[[bytes], None] = protocol.transport.write
        self.method = parser.get_method().decode("ascii")
        self.headers: Sequence[Header] = protocol.headers
        self.is_http_1_0 = parser.get_http_version() == "1.0"
        self.keep_alive = not self.is_http_1_0 and parser.should_keep_alive()
        self.expects_continue = protocol.expect_100_continue
        self.exchange = new_exchange(self)

    def begin(self) -> None:
        """It is this request's turn on its connection."""
        self._protocol.running = self
        self._handler(self.exchange)

    # What an exchange uses

    @property
    def peer(self) -> str | None:
        return self._protocol.client[0] if self._protocol.client else None

    def is_full(self) -> bool:
        return self._flow.write_paused

    async def emptied(self) -> None:
        await self._flow.drain()

    def read_on(self, wanted: bool) -> None:
        if wanted:
            self._flow.resume_reading()
        else:
            self._flow.pause_reading()

    def standing_headers(self) -> Sequence[Header]:
        return self._protocol.server_state.default_headers

    def end(self) -> None:
        self.response_complete = True
        self._protocol.ended(self)
        del self.exchange  # they hold one another: a cycle a call is work for the collector
        if not self.keep_alive:
            self._transport.close()
        self._protocol.on_response_complete()

    def abort(self) -> None:
        self._transport.abort()


def without_offer(data: bytes) -> bytes:
    """The same bytes with the header `Upgrade` under a name that means nothing; a body is left as it is."""
    head, end, rest = data.partition(_HEAD_END)
    return _OFFER.sub(b"x-upgrade-ignored:", head) + end + rest
