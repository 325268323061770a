"""One exchange on raw ASGI: bounded reading, and writing that never waits for ever."""

import asyncio
import contextlib
import json
from typing import Any

import pytest

from gateway.billing.errors import RequestTimeout, RequestTooLarge, UnsupportedMediaType
from gateway.web.exchange import ClientLeft, Exchange, Message

JSON = [(b"content-type", b"application/json")]


class Server:
    """Stands in for uvicorn: gives the messages it was made with, keeps what is sent; can stall in `send`."""

    def __init__(self, *messages: Message, stalls: bool = False) -> None:
        self._messages = list(messages)
        self._stalls = stalls
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if self._stalls and message["type"] == "http.response.body":
            await asyncio.Event().wait()

    def exchange(self, headers: list[tuple[bytes, bytes]] | None = None, write_timeout_s: float = 5) -> Exchange:
        scope = {"method": "POST", "headers": JSON if headers is None else headers}
        return Exchange(scope, self.receive, self.send, "req-1", write_timeout_s)


def part(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_parts_is_read_whole() -> None:
    """The server hands over what it has read; the last part says so."""
    server = Server(part(b'{"a":', more=True), part(b"1}"))
    assert b'{"a":1}' == asyncio.run(server.exchange().json_body(100, 5))


def test_a_declared_body_above_the_bound_is_not_read_at_all() -> None:
    """413 comes before the first byte of the body is asked for."""
    server = Server()
    with pytest.raises(RequestTooLarge):
        asyncio.run(server.exchange([*JSON, (b"content-length", b"101")]).json_body(100, 5))


def test_a_body_that_grows_above_the_bound_is_read_no_further() -> None:
    """A chunked body declares no length: it is counted, and the third part stays unread."""
    third = part(b"", more=False)
    server = Server(part(b"x" * 60, more=True), part(b"x" * 60, more=True), third)
    with pytest.raises(RequestTooLarge):
        asyncio.run(server.exchange().json_body(100, 5))
    assert third == asyncio.run(server.receive())


def test_a_body_that_does_not_arrive_is_given_up() -> None:
    """A client that trickles must not keep a task for ever."""
    with pytest.raises(RequestTimeout):
        asyncio.run(Server(part(b"{", more=True)).exchange().json_body(100, 0.01))


def test_a_client_that_leaves_within_its_request_is_nobody_to_answer() -> None:
    """Nothing was held yet, so nothing needs an end."""
    with pytest.raises(ClientLeft):
        asyncio.run(Server(part(b"{", more=True), {"type": "http.disconnect"}).exchange().json_body(100, 5))


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-type", b"application/x-www-form-urlencoded")],
        [(b"content-type", b"text/plain")],
        [*JSON, (b"content-encoding", b"gzip")],
    ],
)
def test_other_types_and_codings_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    """What is priced is what is sent: only plain JSON can be read and sent on."""
    with pytest.raises(UnsupportedMediaType):
        asyncio.run(Server(part(b"{}")).exchange(headers).json_body(100, 5))


@pytest.mark.parametrize("last", [False, True])
def test_a_reader_that_stalls_counts_as_gone(last: bool) -> None:
    """Also at the last bytes: a task that waited there would hold up every shutdown."""

    async def scenario() -> Exchange:
        exchange = Server(stalls=True).exchange(write_timeout_s=0.01)
        await exchange.start(200, [])
        await (exchange.finish(b"x") if last else exchange.write(b"x"))
        return exchange

    assert asyncio.run(asyncio.wait_for(scenario(), 10)).gone


def test_waiting_for_the_client_is_measured() -> None:
    """Whoever asks how long the gateway took does not mean its callers' lines: neither the way in nor the way out."""

    async def scenario() -> list[float]:
        exchange = Server(part(b"{", more=True), stalls=True).exchange(write_timeout_s=0.02)
        with contextlib.suppress(RequestTimeout):
            await exchange.json_body(100, 0.01)
        body_s = exchange.waited_s
        await exchange.write(b"x")
        return [body_s, exchange.waited_s - body_s]

    body_s, answer_s = asyncio.run(scenario())
    assert (True, True) == (body_s >= 0.01, answer_s >= 0.02)


def test_a_hurried_gateway_waits_a_second_at_most() -> None:
    """A minute is patience for a running gateway, not for one that is to end."""

    async def scenario() -> bool:
        exchange = Server(stalls=True).exchange(write_timeout_s=3600)
        exchange.hasten()
        await exchange.write(b"x")
        return exchange.gone

    assert asyncio.run(asyncio.wait_for(scenario(), 30))


def test_nothing_is_written_to_a_client_that_left() -> None:
    """A stream is read on for its bill; its bytes go nowhere."""

    async def scenario() -> list[Message]:
        server = Server({"type": "http.disconnect"})
        exchange, left = server.exchange(), asyncio.Event()
        exchange.watch(left.set)
        await left.wait()
        await exchange.write(b"x")
        await exchange.finish()
        return server.sent

    assert [] == asyncio.run(scenario())


def test_an_answer_before_a_long_body_was_read_closes_the_connection() -> None:
    """Otherwise the server would read and drop all of it, as fast as the client can send."""

    async def closes(length: bytes) -> bool:
        server = Server()
        exchange = server.exchange([*JSON, (b"content-length", length)])
        await exchange.answer_error(RequestTooLarge("Too large."))
        assert "request_too_large" == json.loads(server.sent[1]["body"])["error"]["code"]
        return (b"connection", b"close") in server.sent[0]["headers"]

    assert [False, True] == [asyncio.run(closes(length)) for length in (b"100", b"1000000000")]
