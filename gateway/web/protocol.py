"""The server's side of one connection: uvicorn's HTTP/1.1, with the data plane's calls taken out of it.

A path of the data plane gets an `Exchange` of ours in the place of uvicorn's cycle; everything else goes on as ASGI
(ADR 0026). `wire.request_head` says which heads are served, `web.connection` how a connection ends.

It stays HTTP/1.1. A client may offer to go on in another protocol (`Upgrade: h2c`: `curl --http2` does, with its first
request). A server may ignore the offer (RFC 9110, 7.8), but the parser stops behind such a head and takes no body. So
another parser goes on, which is shown a head that offers nothing.
"""

import asyncio
import functools
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.billing.errors import GatewayError, InvalidRequest, Overloaded
from gateway.web.connection import ClientConnection
from gateway.web.door import Door, DoorRules
from gateway.web.exchange import Exchange
from gateway.web.line import Line
from gateway.web.turn import Handler, PageWay, Turn
from gateway.wire.request_head import HEAD_BYTES_MAX, check_size, checked_fields, end_of_line, head_bytes, too_large
from gateway.wire.stray_keys import holds_key

_HEAD_END = b"\r\n\r\n"
_NOT_HTTP = "This is not HTTP/1.1 as RFC 9112 has it; send the request with an HTTP library."
_CHUNKS_TOO_SMALL = "The body's chunks hold more framing than content; send larger chunks, without extensions."
_AHEAD_MAX = 64
"""So many requests wait for their turn on one connection: thousands fit into what is read at once, and building them
would hold up everybody else."""
_TOO_FAR_AHEAD = f"At most {_AHEAD_MAX} requests are sent ahead; wait for answers, or use more connections."
_FRAMING_BYTES_MAX = 65_536
_FRAMING_PER_BYTE_MAX = 8
"""A chunk of one byte takes six bytes: a body that takes more than these two allow is made to cost."""


@dataclass(frozen=True, slots=True)
class DataPlane:
    """What serves which path, how the exchange of a request is made, and who is let in."""

    handlers: Mapping[str, Handler]
    new_exchange: Callable[[Line], Exchange]
    key_in_url: Handler
    """Answers each request whose URL holds a key, of whichever path."""
    door: Door = field(default_factory=lambda: Door(DoorRules()))


class GatewayProtocol(ClientConnection):
    """One connection of a client."""

    def __init__(
        self,
        data_plane: DataPlane,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(data_plane.door, config, server_state, app_state, _loop)
        self._data_plane = data_plane
        self._arriving: Turn | None = None
        """The call whose request is being read."""
        self.running: Turn | None = None
        """The call that is being answered."""
        self._opening = b""
        """What came from the packet on in which the request began, while its head is read."""
        self._is_behind = False
        """Whether another request ended in that packet."""
        self._line_end = 0
        """Where in there the last request's line ended; 0 where it had begun before."""
        self._passed_bytes = 0
        """So much of its body has come since."""
        self._came_bytes = 0
        """Of the head, or of what is behind it; of a packet that ends one request and begins another, all."""
        self._body_bytes = 0
        self._is_counted = False
        """Whether what comes is of unknown length: an unfinished head, or a body in chunks."""
        self._is_chunked = False
        self._is_head_late = False
        """Whether the head that is arriving came in more than one packet."""
        self._offered_framing = b""
        """The header that tells the body's length, behind a head that offers another protocol."""
        self._is_shown_again = False
        self._page: Any = None
        """The page that was begun last."""
        self._is_forwarding = False
        """Whether a request on it said whom it came for."""
        self._broken: Any = None
        """The page whose request broke off while it waited for its turn."""

    # What asyncio calls

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for turn in (self.running, self._arriving):
            if turn is not None:
                turn.exchange.lost()
        if self._page is not None:  # uvicorn tells the request that came last, which may wait behind this one
            self._page.disconnected = True
            self._page.message_event.set()
        # A page's scope leads back to its connection: what stays of a flood would all be left to the collector.
        self._page = self._broken = None
        self.cycle = None  # type: ignore[assignment]  # as before the first request
        self.pipeline.clear()

    def eof_received(self) -> bool:  # type: ignore[override]  # as the superclass's
        stays = super().eof_received()
        for cycle in (self.running, *(cycle for cycle, _ in self.pipeline)):
            if stays and isinstance(cycle, Turn):
                cycle.exchange.half_closed()
        return stays

    def data_received(self, data: bytes) -> None:
        if self.deaf:
            self.ignore(data)
            return
        self._came_bytes = came_bytes = len(data) + (self._came_bytes if self.within_request else 0)
        if came_bytes > HEAD_BYTES_MAX and not self.within_request and data.find(_HEAD_END, 0, HEAD_BYTES_MAX) < 0:
            self.tell_behind(too_large())
            return
        if self.in_head:
            self._opening += data
        else:
            self._opening, self._is_behind, self._line_end = data, self.within_request, 0
            self._passed_bytes = 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            self._go_on_behind_offer(data[stopped.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(error.__context__)
        if not self.in_head:
            self._opening = b""
        if self._is_counted and not self.deaf:
            self._count()

    # What httptools calls

    def on_message_begin(self) -> None:
        if self._is_shown_again:
            return
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self.within_request = self.in_head = self._is_counted = True
        self._is_head_late = False
        self._due_s = None

    def on_headers_complete(self) -> None:
        """Begin to serve what is asked. An error that is raised here, the parser hands on."""
        if self._is_shown_again:
            return
        if len(self.pipeline) >= _AHEAD_MAX:
            raise Overloaded(_TOO_FAR_AHEAD, retry_after_s=1)
        method, version = self.parser.get_method(), self.parser.get_http_version()
        start = self._end_of_last() if self._is_behind else 0
        self._line_end = end_of_line(self._opening, start, method, self.url, version, is_behind=self._is_behind)
        self._passed_bytes = 0
        fields = checked_fields(self.url, version, self.headers)
        if self._is_head_late or self._came_bytes > HEAD_BYTES_MAX:
            check_size(self.url, self.headers)
        if b"x-forwarded-for" in fields and not self._is_forwarding:
            self._is_forwarding = True
            self.door.heard_forwarded(self.peer())
        self._due_s = None
        self.in_head = False
        self._is_counted = self._is_chunked = b"transfer-encoding" in fields
        self._body_bytes = 0
        self._came_bytes = self._came_bytes - head_bytes(self.url, self.headers) if self._is_chunked else 0
        if b"upgrade" in fields:
            self._offered_framing = _framing_behind_offer(fields) if self.parser.should_upgrade() else b""
        handler = self._data_plane.handlers.get(self._path())
        if (handler is None or b"?" in self.url) and holds_key(self.url):
            handler = self._data_plane.key_in_url
        if handler is None:
            self._go_on_as_asgi(version)
        else:
            self._take_turn(handler, method, fields, version)
        if self._is_chunked:
            self.headers = []  # trailers come here, and nobody reads them

    def on_body(self, body: bytes) -> None:
        self._passed_bytes += len(body)
        if self._is_chunked:
            self._body_bytes += len(body)
        if self._arriving is not None:
            self._arriving.exchange.body_came(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._offered_framing:
            return  # not yet: its body comes
        self.within_request = self._is_counted = self._is_chunked = False
        self._is_behind = True
        if self.running is None and not self.pipeline and self.cycle.response_complete:
            self.be_idle()  # its answer was there before its end
        if self._arriving is not None:
            self._arriving.exchange.request_ended()
        else:
            super().on_message_complete()

    def ended(self, turn: Turn) -> None:
        """A call is answered; what still comes of its request is dropped."""
        self.running = None
        if self._arriving is turn:
            self._arriving = None

    # What uvicorn calls

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Also when a request that has waited behind another gets its turn."""
        if isinstance(cycle, Turn):
            cycle.begin()
        elif cycle is self._broken:
            cycle.response_complete = True
            self.answered_all()
        else:
            self._page = cycle
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.is_closing():
            return
        waiting = self.pipeline.pop() if self.pipeline else None
        if not self.pipeline:
            # Not before the last of them has its turn: who sends without end would fill the memory.
            self.flow.resume_reading()
        if waiting is not None:
            self._start_asgi_task(*waiting)
        elif self.deaf:
            self.answered_all()
        else:
            self.be_idle()

    # Within

    def _take_turn(self, handler: Handler, method: bytes, fields: Mapping[bytes, bytes], version: str) -> None:
        self._arriving = turn = Turn(self, handler, self._data_plane.new_exchange, method, fields, version)
        before: Any = self.cycle
        self.cycle = turn  # type: ignore[assignment]  # stands in the place of uvicorn's cycle for this one request
        if before is None or before.response_complete:
            turn.begin()
        else:
            # The next request, sent before the answer to the last one: it waits for its turn.
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _go_on_as_asgi(self, version: str) -> None:
        self._arriving = None
        url, headers, expects = self.url, self.headers, self.expect_100_continue and version == "1.1"
        super().on_message_begin()  # makes the scope, which refers to the list of headers
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()
        self.cycle.transport = cast(asyncio.Transport, PageWay(self))

    def _end_of_last(self) -> int:
        """Before that place in what came, the request that is whole does not end."""
        head_end = self._opening.find(_HEAD_END, self._line_end - len(b"\r\n")) + len(_HEAD_END)
        return (head_end if self._line_end else 0) + self._passed_bytes

    def _path(self) -> str:
        url = self.url
        if b"?" in url or b"%" in url:
            return urllib.parse.unquote((httptools.parse_url(url).path or b"").decode("ascii"))
        return url.decode("ascii")

    def _count(self) -> None:
        """A packet has ended within what may go on for ever."""
        if self.in_head:
            if not self._is_head_late:
                self._is_head_late = True
                self._came_bytes = min(self._came_bytes, max(HEAD_BYTES_MAX, head_bytes(self.url, self.headers)))
                self.due_in(self.door.rules.head_timeout_s)
            if self._came_bytes > HEAD_BYTES_MAX:
                self.tell_behind(too_large())
        elif self._came_bytes > _FRAMING_BYTES_MAX + _FRAMING_PER_BYTE_MAX * self._body_bytes:
            self._break_off(InvalidRequest(_CHUNKS_TOO_SMALL))

    def _refuse(self, cause: BaseException | None) -> None:
        """The parser has stopped: at a head that we do not take, or at what is not HTTP."""
        fault = cause if isinstance(cause, GatewayError) else InvalidRequest(_NOT_HTTP)
        if self.within_request and not self.in_head:
            self._break_off(fault)
        else:
            self.tell_behind(fault)

    def _break_off(self, fault: GatewayError) -> None:
        """The request that is arriving cannot be read to its end: that is its answer, unless it has one."""
        self.deaf = True
        page = self.cycle
        if self._arriving is not None:
            self._arriving.exchange.body_broke(fault)
        elif page.response_complete:
            self.linger()
        elif self.pipeline and self.pipeline[0][0] is page:
            self._broken, self._fault = page, fault
        elif page.response_started:
            page.keep_alive = False
        else:
            page.response_complete = page.disconnected = True
            page.message_event.set()
            self.tell(fault)

    def _go_on_behind_offer(self, rest: bytes) -> None:
        """The parser stopped behind a head that offers another protocol; its body, if any, begins with `rest`."""
        framing, self._offered_framing = self._offered_framing, b""
        if framing:
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._is_shown_again = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
            self._is_shown_again = False
        if rest:
            self.data_received(rest)


def protocol_for(data_plane: DataPlane) -> type[asyncio.Protocol]:
    """What uvicorn is given as its `http`: it makes one of each connection."""
    return cast(type[asyncio.Protocol], functools.partial(GatewayProtocol, data_plane))


def _framing_behind_offer(fields: Mapping[bytes, bytes]) -> bytes:
    """The header that tells the length of a body; empty where there is none."""
    if b"transfer-encoding" in fields:
        return b"transfer-encoding: chunked"
    length = fields.get(b"content-length", b"0")
    return b"content-length: " + length if int(length) else b""
