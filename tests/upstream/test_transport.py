"""Our connections under an ordinary `httpx.AsyncClient`."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from gateway.upstream.direct_leg import DirectLeg
from gateway.upstream.transport import DirectTransport
from tests.upstream.test_legs import CHUNKED, Handler, upstream


def with_client(handler: Handler, work: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def story() -> None:
        async with upstream(handler) as url:
            leg = DirectLeg(url, connect_timeout_s=1, answer_timeout_s=0.3, connections_max=2)
            async with httpx.AsyncClient(transport=DirectTransport(leg), base_url=url) as client:
                await work(client)

    asyncio.run(story())


def test_any_method_and_query() -> None:
    """What a client of httpx may ask; redirects, cookies and JSON are httpx's own."""
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{"a": 1}')

    async def work(client: httpx.AsyncClient) -> None:
        assert {"a": 1} == (await client.get("/path?x=1&y=%C3%BC")).json()
        assert 200 == (await client.delete("/other")).status_code

    with_client(answer, work)
    assert heads[0].startswith(b"GET /path?x=1&y=%C3%BC HTTP/1.1\r\n")
    assert heads[1].startswith(b"DELETE /other HTTP/1.1\r\n")
    assert 1 == heads[0].lower().count(b"\r\nhost:")


def test_a_stream_comes_as_it_is_sent() -> None:
    """Chunk by chunk, and an answer that breaks off is httpx's own error."""
    read = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED + b"3\r\none\r\n")
        await read.wait()
        writer.write(b"3\r\ntwo\r\n")

    async def work(client: httpx.AsyncClient) -> None:
        async with client.stream("GET", "/") as response:
            chunks = response.aiter_raw()
            assert b"one" == await anext(chunks)
            read.set()
            with pytest.raises(httpx.ReadError):
                _ = [chunk async for chunk in chunks]

    with_client(answer, work)


def test_silence_is_httpxs_timeout() -> None:
    """As if httpx had made the connection."""

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def work(client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/")

    with_client(silent, work)


def test_a_closed_port_is_httpxs_connect_error() -> None:
    """And nothing was sent."""

    async def story() -> None:
        leg = DirectLeg("http://127.0.0.1:1", connect_timeout_s=1, answer_timeout_s=1, connections_max=1)
        async with httpx.AsyncClient(transport=DirectTransport(leg), base_url="http://127.0.0.1:1") as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("/")

    asyncio.run(story())
