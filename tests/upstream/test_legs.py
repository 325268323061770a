"""Both legs against a raw server: what left the machine decides what may have been billed."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from gateway.upstream.direct_leg import DirectLeg
from gateway.upstream.httpx_leg import HttpxLeg
from gateway.upstream.leg import (
    AnswerTimeout,
    BrokenOff,
    CutOff,
    Cutoff,
    NoAnswer,
    NotSent,
    PoolExhausted,
    UpstreamAnswer,
    UpstreamLeg,
    UpstreamRequest,
)

T = TypeVar("T")

_made: Callable[..., UpstreamLeg] = DirectLeg
_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop


@pytest.fixture(
    autouse=True,
    params=[(DirectLeg, asyncio.new_event_loop), (DirectLeg, uvloop.new_event_loop), (HttpxLeg, uvloop.new_event_loop)],
    ids=["direct-asyncio", "direct-uvloop", "httpx-uvloop"],
)
def leg_in_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of this module runs on both legs, and on the loop that the gateway runs on."""
    global _made, _loop  # what `leg_to` and `run` take, in the one test that runs
    _made, _loop = request.param
    yield
    _made, _loop = DirectLeg, asyncio.new_event_loop


def run(story: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=_loop) as runner:
        return runner.run(story)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

REQUEST = UpstreamRequest(
    "/api/chat-completions/",
    ((b"authorization", b"Bearer sk-made-up"), (b"content-type", b"application/json")),
    b"req-1",
    b'{"model":"gpt-4o"}',
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def read_request(reader: asyncio.StreamReader) -> tuple[list[bytes], bytes]:
    """Request line and header lines as they came, and the body."""
    head = await reader.readuntil(b"\r\n\r\n")
    return head.split(b"\r\n")[:-2], await reader.readexactly(len(REQUEST.body))


@contextlib.asynccontextmanager
async def upstream(handler: Handler) -> AsyncIterator[str]:
    """A server that does what the handler says, and then closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


@contextlib.asynccontextmanager
async def leg_to(url: str, *, answer_timeout_s: float = 5, connections_max: int = 4) -> AsyncIterator[UpstreamLeg]:
    leg = _made(url, connect_timeout_s=0.5, answer_timeout_s=answer_timeout_s, connections_max=connections_max)
    try:
        yield leg
    finally:
        await leg.close()


async def rest_of(answer: UpstreamAnswer) -> bytes:
    parts = []
    while chunk := await answer.read():
        parts.append(chunk)
    return b"".join(parts)


async def body_of(leg: UpstreamLeg) -> bytes:
    answer = await leg.send(REQUEST, Cutoff())
    try:
        return await rest_of(answer)
    finally:
        await answer.close()


def test_nothing_is_added_to_a_request() -> None:
    """Only what HTTP needs: Host and Content-Length. No agent, no encodings, nothing that names the library."""
    seen: list[tuple[list[bytes], bytes]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(OK)

    async def story() -> None:
        async with upstream(answer) as url, leg_to(url) as leg:
            assert b"ok" == await body_of(leg)

    run(story())
    ((first, *headers), body) = seen[0]
    assert b"POST /api/chat-completions/ HTTP/1.1" == first
    assert [b"host", b"authorization", b"content-type", b"x-request-id", b"content-length"] == [
        line.split(b":")[0].lower() for line in headers
    ]
    assert REQUEST.body == body


def test_cookies_are_not_carried_from_call_to_call() -> None:
    """What the upstream sets in answering one member would follow the calls of all others."""
    heads: list[list[bytes]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            heads.append((await read_request(reader))[0])
            writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: session=an; Path=/\r\nContent-Length: 2\r\n\r\nok")

    async def story() -> None:
        async with upstream(answer) as url, leg_to(url) as leg:
            await body_of(leg)
            await body_of(leg)

    run(story())
    assert heads[0] == heads[1]


def test_an_answer_is_given_as_it_came() -> None:
    """Status, headers by lower-case names (twice, where they came twice), bytes without any decoding."""
    raw = b"\x1f\x8b not gzip at all"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(
            b"HTTP/1.1 418 Odd\r\nX-A: 1\r\nx-a: 2\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"%x\r\n%b\r\n0\r\n\r\n" % (len(raw), raw)
        )

    async def story() -> None:
        async with upstream(answer) as url, leg_to(url) as leg:
            got = await leg.send(REQUEST, Cutoff())
            assert 418 == got.status
            assert [(b"x-a", b"1"), (b"x-a", b"2")] == [pair for pair in got.headers if pair[0] == b"x-a"]
            assert raw == await rest_of(got)
            await got.close()
            await got.close()

    run(story())


def test_the_first_chunk_does_not_wait_for_the_second() -> None:
    """A stream is passed on as it comes: the server sends its second event only when the first was read."""
    read = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED + b"3\r\none\r\n")
        await read.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

    async def story() -> None:
        async with upstream(answer) as url, leg_to(url) as leg:
            got = await leg.send(REQUEST, Cutoff())
            assert b"one" == await got.read()
            read.set()
            assert b"two" == await rest_of(got)
            await got.close()

    run(story())


def test_redirects_are_not_followed() -> None:
    """The key would be sent wherever the upstream, or who sits before it, points to."""
    calls: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append((await read_request(reader))[0][0])
        writer.write(b"HTTP/1.1 307 Elsewhere\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n")

    async def story() -> None:
        async with upstream(answer) as url, leg_to(url) as leg:
            got = await leg.send(REQUEST, Cutoff())
            assert 307 == got.status
            await got.close()

    run(story())
    assert 1 == len(calls)


def failed(handler: Handler, expected: type[Exception], *, answer_timeout_s: float = 5) -> int:
    """Send once, expect the fault; returns how many requests began to arrive."""
    arrived = 0

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        arrived += 1
        await handler(reader, writer)

    async def story() -> None:
        async with upstream(counting) as url, leg_to(url, answer_timeout_s=answer_timeout_s) as leg:
            with pytest.raises(expected) as fault:
                await leg.send(REQUEST, Cutoff())
            assert expected is fault.type

    run(story())
    return arrived


async def closes_after_reading(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await read_request(reader)


async def closes_at_once(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    return


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.transport.abort()


async def talks_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")


async def breaks_off_within_its_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-")


async def says_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    await reader.read()


@pytest.mark.parametrize(
    "handler", [closes_after_reading, closes_at_once, resets, talks_nonsense, breaks_off_within_its_head]
)
def test_a_request_that_left_and_was_not_answered_may_have_been_billed(handler: Handler) -> None:
    """And it is never sent a second time: a paid POST would be paid twice."""
    assert 1 == failed(handler, NoAnswer)


def test_silence_ends_with_its_time() -> None:
    """The same as no answer, told apart so that the client hears 504."""
    assert 1 == failed(says_nothing, AnswerTimeout, answer_timeout_s=0.05)


def test_a_port_that_is_closed_was_sent_nothing() -> None:
    """The hold may be released."""

    async def story() -> None:
        async with leg_to("http://127.0.0.1:1") as leg:
            with pytest.raises(NotSent) as fault:
                await leg.send(REQUEST, Cutoff())
            assert NotSent is fault.type

    run(story())


def test_a_name_that_does_not_resolve_was_sent_nothing() -> None:
    """`.invalid` never does (RFC 2606)."""

    async def story() -> None:
        async with leg_to("http://upstream.invalid") as leg:
            with pytest.raises(NotSent):
                await leg.send(REQUEST, Cutoff())

    run(story())


def test_a_failed_handshake_was_sent_nothing() -> None:
    """TLS against a server that speaks none: no byte of the request has left."""
    received: list[bytes] = []

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(1024))
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def story() -> None:
        async with upstream(plain) as url, leg_to(url.replace("http://", "https://")) as leg:
            with pytest.raises(NotSent):
                await leg.send(REQUEST, Cutoff())

    run(story())
    assert not any(b"sk-made-up" in data for data in received)


@pytest.mark.parametrize("rest", [b"", b"3\r\non", b"zz\r\none\r\n"])
def test_an_answer_that_stops_is_broken_off(rest: bytes) -> None:
    """What came before is given; the fault says that there should be more."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED + b"5\r\nfirst\r\n" + rest)

    async def story() -> None:
        async with upstream(answer) as url, leg_to(url) as leg:
            got = await leg.send(REQUEST, Cutoff())
            assert (await got.read()).startswith(b"first")
            with pytest.raises(BrokenOff):
                await rest_of(got)
            await got.close()

    run(story())


def test_a_call_that_is_cut_off_hears_how_far_it_came() -> None:
    """Without an answer it may have been billed; within one it has what came; the next call is not concerned."""
    asked = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        await reader.read()

    async def begun(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED + b"5\r\nfirst\r\n")
        await reader.read()

    async def story() -> None:
        async with upstream(answer) as url, leg_to(url) as leg:
            cutoff = Cutoff()
            waiting = asyncio.create_task(leg.send(REQUEST, cutoff))
            await asked.wait()
            cutoff.strike()
            with pytest.raises(AnswerTimeout):
                await waiting
        async with upstream(begun) as url, leg_to(url) as leg:
            cutoff = Cutoff()
            got = await leg.send(REQUEST, cutoff)
            assert b"first" == await got.read()
            asyncio.get_running_loop().call_soon(cutoff.strike)
            with pytest.raises(CutOff):
                await got.read()
            await got.close()

    run(story())


def test_a_cutoff_ends_nothing_but_its_own_call() -> None:
    """Its connection serves another call by then."""
    second = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await read_request(reader)
        await second.wait()
        writer.write(OK)

    async def story() -> None:
        async with upstream(answer) as url, leg_to(url, connections_max=1) as leg:
            cutoff = Cutoff()
            got = await leg.send(REQUEST, cutoff)
            assert b"ok" == await rest_of(got)
            await got.close()
            waiting = asyncio.create_task(leg.send(REQUEST, Cutoff()))
            await asyncio.sleep(0)
            cutoff.strike()
            second.set()
            assert 200 == (await waiting).status

    run(story())


def test_a_silent_stream_is_broken_off() -> None:
    """The upstream hangs in the middle of its answer; the call does not hang with it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED + b"5\r\nfirst\r\n")
        await reader.read()

    async def story() -> None:
        async with upstream(answer) as url, leg_to(url, answer_timeout_s=0.1) as leg:
            with pytest.raises(BrokenOff):
                await body_of(leg)

    run(story())


def test_a_full_pool_says_so_and_sends_nothing() -> None:
    """All connections are in use by running streams: 503, and the hold is released."""
    arrived = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        while True:
            await read_request(reader)
            arrived += 1
            writer.write(OK)

    async def story() -> None:
        async with upstream(answer) as url, leg_to(url, connections_max=1) as leg:
            first = await leg.send(REQUEST, Cutoff())
            with pytest.raises(PoolExhausted):
                await leg.send(REQUEST, Cutoff())
            await first.close()
            assert b"ok" == await body_of(leg)

    run(story())
    assert 2 == arrived


def test_a_connection_is_used_again() -> None:
    """One after the other over one connection, read to its end."""
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await read_request(reader)
            writer.write(OK)

    async def story() -> None:
        async with upstream(answer) as url, leg_to(url) as leg:
            for _ in range(3):
                await body_of(leg)

    run(story())
    assert 1 == connections


TLS = Path(__file__).parent / "tls"
"""A made-up authority and a certificate for localhost, signed by it; the authority's key was thrown away."""


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem", TLS / "server.key")
    return context


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(OK)


def over_tls(host: str) -> bytes:
    """The body of one answer of a server whose certificate is for localhost."""

    async def story() -> bytes:
        server = await asyncio.start_server(answers, host, 0, ssl=server_tls())
        async with server:
            port = server.sockets[0].getsockname()[1]
            async with leg_to(f"https://{host}:{port}") as leg:
                return await body_of(leg)

    return run(story())


def test_tls_with_a_trusted_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's authorities, or those that SSL_CERT_FILE names."""
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "authority.pem"))
    assert b"ok" == over_tls("localhost")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_certificate_that_proves_nothing_was_sent_nothing(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Signed by nobody we trust, or made out to another name: whoever stands between does not get the key."""
    if host != "localhost":
        monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "authority.pem"))
    with pytest.raises(NotSent):
        over_tls(host)


@pytest.mark.parametrize("body_bytes", [5, 70_000, 1_000_000])
@pytest.mark.parametrize("answered_before", [0, 1, 2])
def test_over_tls_too_no_call_is_sent_twice(
    monkeypatch: pytest.MonkeyPatch, answered_before: int, body_bytes: int
) -> None:
    """The server has read all of a call and is gone: TLS layers tell of their buffers in ways that must not mislead."""
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "authority.pem"))
    request = UpstreamRequest(REQUEST.path, REQUEST.headers, REQUEST.request_id, b"x" * body_bytes)
    arrived = 0

    async def gone_at_last(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        for number in range(answered_before + 1):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(body_bytes)
            arrived += 1
            if number < answered_before:
                writer.write(OK)
        writer.transport.abort()

    async def story() -> None:
        server = await asyncio.start_server(gone_at_last, "localhost", 0, ssl=server_tls())
        async with server:
            port = server.sockets[0].getsockname()[1]
            async with leg_to(f"https://localhost:{port}") as leg:
                for _ in range(answered_before):
                    got = await leg.send(request, Cutoff())
                    assert b"ok" == await rest_of(got)
                    await got.close()
                with pytest.raises(NoAnswer):
                    await leg.send(request, Cutoff())

    run(story())
    assert answered_before + 1 == arrived


def test_an_idle_connection_that_was_closed_is_not_used() -> None:
    """The upstream closes after its answer; the next call finds that out before it is sent, and goes another way."""
    served = 0

    async def one_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await read_request(reader)
        served += 1
        writer.write(OK)

    async def story() -> None:
        async with upstream(one_each) as url, leg_to(url) as leg:
            for _ in range(5):
                assert b"ok" == await body_of(leg)
                await asyncio.sleep(0.01)  # its end arrives; without that the next test's case would be this one's

    run(story())
    assert 5 == served


def test_an_upstream_that_closes_just_as_we_send_is_never_sent_a_call_twice() -> None:
    """It had the whole request in hand when it closed, for all we know: it may have been billed."""
    arrived = 0

    async def closes_on_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        await read_request(reader)
        arrived += 1
        writer.write(OK)
        await read_request(reader)
        arrived += 1

    async def story() -> None:
        async with upstream(closes_on_the_second) as url, leg_to(url) as leg:
            assert b"ok" == await body_of(leg)
            with pytest.raises(NoAnswer):
                await leg.send(REQUEST, Cutoff())

    run(story())
    assert 2 == arrived


@pytest.mark.parametrize("flood", [b"X-A: 1\r\n" * 50_000, b"X-A: " + b"a" * 1_000_000 + b"\r\n"])
def test_a_head_without_end_is_no_answer(flood: bytes) -> None:
    """Nobody reads megabytes of headers; the request had left, so it may have been billed."""

    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + flood + b"Content-Length: 2\r\n\r\nok")
        await writer.drain()
        await reader.read()

    assert 1 == failed(floods, NoAnswer)


def test_an_answer_that_comes_before_the_whole_request_is_given() -> None:
    """413 at the first bytes of a large body, say; the connection is not used again."""
    large = UpstreamRequest(REQUEST.path, REQUEST.headers, REQUEST.request_id, b"x" * 20_000_000)

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        while await reader.read(1_000_000):
            pass

    async def story() -> None:
        async with upstream(hasty) as url, leg_to(url) as leg:
            got = await leg.send(large, Cutoff())
            assert (413, b"big") == (got.status, await rest_of(got))
            await got.close()

    run(story())


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    """HTTP/1.0 and some proxies: all that came is the answer."""

    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    async def story() -> bytes:
        async with upstream(old) as url, leg_to(url) as leg:
            return await body_of(leg)

    assert b"all of it" == run(story())


def test_an_interim_answer_is_no_answer() -> None:
    """100 Continue, 103 Early Hints: the answer is still to come."""

    async def hints(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        writer.write(b"HTTP/1.1 201 Created\r\nX-B: 1\r\nContent-Length: 2\r\n\r\nok")

    async def story() -> None:
        async with upstream(hints) as url, leg_to(url) as leg:
            got = await leg.send(REQUEST, Cutoff())
            assert (201, [b"x-b"]) == (got.status, [name for name, _ in got.headers if name.startswith((b"x", b"l"))])
            assert b"ok" == await rest_of(got)
            await got.close()

    run(story())


def test_a_slow_reader_stops_the_upstream() -> None:
    """What is not read is not taken from the upstream either: memory is bounded by a few buffers."""
    taken = 0
    size = 64 * 1024 * 1024

    async def pours(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 65_536):
            writer.write(b"x" * 65_536)
            await writer.drain()
            taken += 65_536

    async def story() -> None:
        async with upstream(pours) as url, leg_to(url) as leg:
            got = await leg.send(REQUEST, Cutoff())
            before = -1
            while before != taken:
                before = taken
                await asyncio.sleep(0.1)
            assert taken < 24 * 1024 * 1024
            assert size == len(await rest_of(got))
            await got.close()

    run(story())


def test_a_stream_left_in_the_middle_takes_no_connection_with_it() -> None:
    """Its connection is closed, not kept, and another call has its place."""

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED)
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.001)

    async def story() -> None:
        async with upstream(endless) as url, leg_to(url, connections_max=1) as leg:
            for _ in range(5):
                got = await leg.send(REQUEST, Cutoff())
                assert await got.read()
                await got.close()

    run(story())
