"""One exchange on a client's connection: bounded reading, and writing that never waits for ever."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence

import pytest

from gateway.billing.errors import RequestTimeout, RequestTooLarge, UnsupportedMediaType
from gateway.web.errors import Header
from gateway.web.exchange import ClientLeft, Exchange
from gateway.wire.answer_head import head_of

JSON = [(b"content-type", b"application/json")]
DATE = (b"date", b"Sun, 22 Nov 2026 10:00:00 GMT")


class Wire:
    """Stands in for the server's connection: keeps what is written; a client that stalls takes nothing more."""

    def __init__(
        self,
        headers: Sequence[Header] = JSON,
        *,
        method: str = "POST",
        stalls: bool = False,
        keep_alive: bool = True,
        is_http_1_0: bool = False,
        expects_continue: bool = False,
    ) -> None:
        self.method = method
        self.headers = headers
        self.fields: Mapping[bytes, bytes] = dict(reversed(headers))
        self.keep_alive = keep_alive
        self.is_http_1_0 = is_http_1_0
        self.expects_continue = expects_continue
        self.written = b""
        self.reading: list[bool] = []
        self.ended = False
        self.aborted = False
        self._stalls = stalls
        self.write: Callable[[bytes], None] = self._keep

    def _keep(self, data: bytes) -> None:
        self.written += data

    peer = "127.0.0.1"

    def is_full(self) -> bool:
        return self._stalls

    async def emptied(self) -> None:
        await asyncio.Event().wait()

    def read_on(self, wanted: bool) -> None:
        self.reading.append(wanted)

    def standing_headers(self) -> Sequence[Header]:
        return [DATE]

    def end(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.aborted = True

    def exchange(self, *parts: bytes, write_timeout_s: float = 5) -> Exchange:
        """Its exchange, with these parts of its body there; the last of them ends it, where it is empty."""
        exchange = Exchange(self, "req-1", write_timeout_s)
        for part in parts:
            exchange.body_came(part) if part else exchange.request_ended()
        return exchange


def test_a_body_in_parts_is_read_whole() -> None:
    """It comes as the network cuts it, before it is asked for and after."""

    async def scenario() -> bytes:
        exchange = Wire().exchange(b'{"a":')
        reading = asyncio.create_task(exchange.json_body(100, 5))
        await asyncio.sleep(0)
        exchange.body_came(b"1}")
        exchange.request_ended()
        return await reading

    assert b'{"a":1}' == asyncio.run(scenario())


def test_a_declared_body_above_the_bound_is_not_read_at_all() -> None:
    """413 comes before the first byte of the body is asked for."""
    wire = Wire([*JSON, (b"content-length", b"101")], expects_continue=True)
    with pytest.raises(RequestTooLarge):
        asyncio.run(wire.exchange().json_body(100, 5))
    assert (b"", []) == (wire.written, wire.reading)


@pytest.mark.parametrize("ended", [(), (b"",)])
def test_a_body_that_grows_above_the_bound_is_read_no_further(ended: tuple[bytes, ...]) -> None:
    """A chunked body declares no length: it is counted."""
    with pytest.raises(RequestTooLarge):
        asyncio.run(Wire().exchange(b"x" * 60, b"x" * 60, *ended).json_body(100, 5))


def test_what_nobody_asked_for_is_not_read_without_bound() -> None:
    """A client may send megabytes while its key is looked up: the connection waits until its body is wanted."""
    wire = Wire()
    exchange = wire.exchange(b"x" * 65_536, b"x")
    assert [False] == wire.reading

    async def scenario() -> bytes:
        reading = asyncio.create_task(exchange.json_body(100_000, 5))
        await asyncio.sleep(0)
        assert [False, True] == wire.reading
        exchange.request_ended()
        return await reading

    assert 65_537 == len(asyncio.run(scenario()))


def test_a_client_is_listened_to_while_it_is_answered() -> None:
    """Also one whose long request was whole before anybody asked for it: who leaves is noticed by reading."""
    wire = Wire()
    exchange = wire.exchange(b"x" * 70_000, b"")
    assert 70_000 == len(asyncio.run(exchange.json_body(100_000, 5)))
    assert [False, True] == wire.reading


def test_a_client_that_asks_whether_to_send_is_told_to() -> None:
    """Expect: 100-continue is answered when the body is wanted, not before."""

    async def scenario() -> bytes:
        wire = Wire(expects_continue=True)
        exchange = wire.exchange()
        reading = asyncio.create_task(exchange.json_body(100, 5))
        await asyncio.sleep(0)
        exchange.request_ended()
        await reading
        return wire.written

    assert b"HTTP/1.1 100 Continue\r\n\r\n" == asyncio.run(scenario())


def test_a_body_that_does_not_arrive_is_given_up() -> None:
    """A client that trickles must not keep a task for ever."""
    with pytest.raises(RequestTimeout):
        asyncio.run(Wire().exchange(b"{").json_body(100, 0.01))


def test_a_client_that_leaves_within_its_request_is_nobody_to_answer() -> None:
    """Nothing was held yet, so nothing needs an end."""

    async def scenario() -> None:
        exchange = Wire().exchange(b"{")
        asyncio.get_running_loop().call_soon(exchange.lost)
        await exchange.json_body(100, 5)

    with pytest.raises(ClientLeft):
        asyncio.run(scenario())


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
        asyncio.run(Wire(headers).exchange(b"{}", b"").json_body(100, 5))


@pytest.mark.parametrize("last", [False, True])
def test_a_reader_that_stalls_counts_as_gone(last: bool) -> None:
    """Also at the last bytes: a task that waited there would hold up every shutdown."""
    wire = Wire(stalls=True)

    async def scenario() -> Exchange:
        exchange = wire.exchange(write_timeout_s=0.01)
        exchange.start(200, [])
        await (exchange.finish(b"x") if last else exchange.write(b"x"))
        return exchange

    assert asyncio.run(asyncio.wait_for(scenario(), 10)).gone
    assert wire.aborted


def test_waiting_for_the_client_is_measured() -> None:
    """Whoever asks how long the gateway took does not mean its callers' lines: neither the way in nor the way out."""

    async def scenario() -> list[float]:
        exchange = Wire(stalls=True).exchange(b"{", write_timeout_s=0.02)
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
        exchange = Wire(stalls=True).exchange(write_timeout_s=3600)
        exchange.hasten()
        await exchange.write(b"x")
        return exchange.gone

    assert asyncio.run(asyncio.wait_for(scenario(), 30))


@pytest.mark.parametrize("before", [False, True])
def test_a_hurried_gateway_waits_for_no_body_either(before: bool) -> None:
    """A client that stops within its request must not hold up the end, whether it began before or after."""

    async def scenario() -> None:
        exchange = Wire().exchange(b"{")
        if before:
            exchange.hasten()
        else:
            asyncio.get_running_loop().call_later(0.01, exchange.hasten)
        await exchange.json_body(100, 3600)

    with pytest.raises(RequestTimeout):
        asyncio.run(asyncio.wait_for(scenario(), 30))


def test_who_asked_whether_to_send_and_hears_an_error_is_closed() -> None:
    """It will not send the body, and its next request would be taken for it."""
    wire = Wire([*JSON, (b"content-length", b"100")], expects_continue=True)
    asyncio.run(wire.exchange().answer_error(UnsupportedMediaType("No.")))
    assert not wire.keep_alive


def test_nothing_is_written_to_a_client_that_left() -> None:
    """A stream is read on for its bill; its bytes go nowhere. Who watches is told once."""

    async def scenario() -> tuple[bytes, list[str]]:
        wire, told = Wire(), list[str]()
        exchange = wire.exchange()
        exchange.watch(lambda: told.append("left"))
        exchange.lost()
        exchange.lost()
        exchange.start(200, [])
        await exchange.write(b"x")
        await exchange.finish()
        return wire.written, told

    assert (b"", ["left"]) == asyncio.run(scenario())


def test_an_answer_before_a_long_body_was_read_closes_the_connection() -> None:
    """Otherwise the server would read and drop all of it, as fast as the client can send."""

    async def closes(length: bytes) -> bool:
        wire = Wire([*JSON, (b"content-length", length)])
        exchange = wire.exchange()
        await exchange.answer_error(RequestTooLarge("Too large."))
        head, _, body = wire.written.partition(b"\r\n\r\n")
        assert "request_too_large" == json.loads(body)["error"]["code"]
        assert (b"connection: close" in head) is not wire.keep_alive
        return not wire.keep_alive

    assert [False, True] == [asyncio.run(closes(length)) for length in (b"100", b"1000000000")]


def answered(wire: Wire, *chunks: bytes, headers: Sequence[Header] = ()) -> bytes:
    async def scenario() -> None:
        exchange = wire.exchange(b"{}", b"")
        exchange.start(200, headers)
        for chunk in chunks:
            await exchange.write(chunk)
        await exchange.finish()

    asyncio.run(scenario())
    return wire.written


def test_an_answer_without_a_length_goes_in_chunks() -> None:
    """As HTTP/1.1 has it; what is passed on in one piece is one chunk."""
    wire = Wire()
    expected = b"HTTP/1.1 200 OK\r\n%b: %b\r\nx-request-id: req-1\r\ntransfer-encoding: chunked\r\n\r\n" % DATE
    assert expected + b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n" == answered(wire, b"hello", b"", b"!")
    assert (True, True) == (wire.ended, wire.keep_alive)


def test_an_old_client_gets_no_chunks() -> None:
    """HTTP/1.0 knows none: its answer ends with its connection."""
    wire = Wire(is_http_1_0=True)
    assert answered(wire, b"hello").endswith(b"connection: close\r\n\r\nhello")
    assert not wire.keep_alive


def test_an_answer_with_a_length_is_written_as_it_is() -> None:
    """Who declares a length counts on it."""
    assert answered(Wire(), b"hello", headers=[(b"content-length", b"5")]).endswith(b"\r\n\r\nhello")


def test_head_gets_no_body() -> None:
    """Its length is told, its body is not sent: the next answer on the connection would be taken for it."""
    wire = Wire(method="HEAD")
    asyncio.run(wire.exchange(b"").answer(405, [], b"no"))
    assert wire.written.endswith(b"\r\n\r\n")
    assert b"content-length: 2" in wire.written


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b"])
def test_a_header_cannot_end_the_head(value: bytes) -> None:
    """Part of it is the upstream's, which must not write our answers."""
    with pytest.raises(ValueError, match="line break"):
        head_of(200, [(b"x-a", value)])


def test_an_answer_that_was_not_finished_ends_the_connection() -> None:
    """A fault of ours in the middle of a stream must not look like its end."""

    async def scenario() -> Wire:
        wire = Wire()
        exchange = wire.exchange()
        exchange.start(200, [])
        exchange.close()
        await asyncio.sleep(0)
        return wire

    wire = asyncio.run(scenario())
    assert (b"", True) == (wire.written, wire.aborted)


def test_the_head_leaves_with_the_first_bytes_or_without_them() -> None:
    """One packet where the body is there; a client whose answer takes its time sees that it has begun."""
    wire = Wire()
    exchange = wire.exchange()
    exchange.start(200, [])
    assert b"" == wire.written
    exchange.write_head()
    exchange.write_head()
    assert wire.written.endswith(b"\r\n\r\n")
    assert 1 == wire.written.count(b"HTTP/1.1")
