"""The turns of requests on their connection: what `web.protocol` puts in the place of uvicorn's cycle, or beside it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from gateway.web.errors import Header
from gateway.web.exchange import Exchange
from gateway.web.line import Line

if TYPE_CHECKING:
    from gateway.web.protocol import GatewayProtocol

Handler = Callable[[Exchange], None]
"""Begins to serve a call, and returns at once."""


class _Nobody:
    """Waits for no event: uvicorn tells its cycles by one that there is something to receive."""

    def set(self) -> None:
        pass


_NOBODY = _Nobody()


class Turn:
    """One request of the data plane on its connection: an exchange's `Line`, and what uvicorn asks of a cycle."""

    response_complete = False
    disconnected = False
    message_event = _NOBODY

    def __init__(
        self,
        protocol: "GatewayProtocol",
        handler: Handler,
        new_exchange: Callable[[Line], Exchange],
        method: bytes,
        fields: Mapping[bytes, bytes],
        version: str,
    ) -> None:
        self._protocol = protocol
        self._handler = handler
        self._flow = protocol.flow
        self._transport = protocol.transport
        self.write: Callable[[bytes], None] = protocol.transport.write
        self.method = method.decode("ascii")
        self.headers: Sequence[Header] = protocol.headers
        self.fields = fields
        self.is_http_1_0 = version == "1.0"
        self.keep_alive = not self.is_http_1_0 and protocol.parser.should_keep_alive()
        self.expects_continue = protocol.expect_100_continue and not self.is_http_1_0
        self.exchange = new_exchange(self)

    def begin(self) -> None:
        """It is this request's turn on its connection."""
        self._protocol.running = self
        self._handler(self.exchange)

    # What an exchange uses

    @property
    def peer(self) -> str | None:
        return self._protocol.peer()

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
            self._protocol.end()
        self._protocol.on_response_complete()

    def abort(self) -> None:
        self._transport.abort()


class PageWay:
    """The way back of a page, which ASGI serves: as the transport, but closing lets the client read the answer."""

    def __init__(self, protocol: "GatewayProtocol") -> None:
        self.write = protocol.transport.write
        self.close = protocol.end
        self.is_closing = protocol.is_closing
