"""Offers to go on in another protocol are ignored, and the request they came with is served."""

import asyncio
import contextlib
import http.client
import json
import re
import resource
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.web.exchange import Exchange
from gateway.web.protocol import DataPlane, GatewayProtocol
from tests.stack import Admin, Process, bearer, chat

OFFER = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAoAAAAAIAAAAA"}


def test_a_client_that_offers_http2_is_served(admin: Admin, gateway: Process) -> None:
    """Its body counts, in whatever packets it comes, and the connection serves the next call as well."""
    key = admin.key("upgraders")["key"]
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=30)
    for headers in (OFFER, {}, OFFER):
        sent = {"content-type": "application/json", **bearer(key), **headers}
        connection.request("POST", "/api/chat-completions/", json.dumps(chat("Hello")), sent)
        answer = connection.getresponse()
        assert (200, True) == (answer.status, answer.read().endswith(b"data: [DONE]\n\n"))
    connection.close()


def test_a_body_that_comes_behind_its_answer_is_no_head(admin: Admin, gateway: Process) -> None:
    """An answer may come before the body, a bad key's does: what looks like an offer within the body stays as it is,
    for every byte more would be the first of another request."""
    body = b"x" * 50 + b"\nUpgrade: me\r\n\r\n" + b"y" * 50
    host, port = urlsplit(gateway.url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        head = b"POST /api/chat-completions/ HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % len(body)
        client.sendall(head + b"content-type: application/json\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 401 ")
        client.sendall(body)
        client.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_requests_sent_without_awaiting_an_answer_take_no_memory_without_bound(gateway: Process) -> None:
    """Those behind an unanswered one are kept; as long as there are any, no more are taken from the connection."""
    host, port = urlsplit(gateway.url).netloc.split(":")
    request = b"POST /api/chat-completions/ HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    before = resident_bytes(gateway.pid)
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.setblocking(False)
        sent, stuck = 0, 0
        while stuck < 20 and sent < 10_000_000:
            with contextlib.suppress(BlockingIOError):
                client.recv(1_000_000)
            try:
                sent += client.send(request * 1000)
                stuck = 0
            except BlockingIOError:
                stuck += 1
                time.sleep(0.02)
        assert resident_bytes(gateway.pid) - before < 80_000_000


def resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


class Wire(asyncio.Transport):
    """Stands in for a client's connection."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reads = True
        self.closed = False
        self.ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def write_eof(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def connected(wire: Wire, begun: list[Exchange]) -> GatewayProtocol:
    """A connection whose calls are only begun; idle, it is closed at the first look."""
    plane = DataPlane({"/call/": begun.append}, lambda line: Exchange(line, "req-1", 5), begun.append)
    config = uvicorn.Config(lambda: None, log_config=None, timeout_keep_alive=0)
    protocol = GatewayProtocol(plane, config, ServerState(), {})
    protocol.connection_made(wire)
    return protocol


CALL = b"POST /call/ HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"


def test_a_call_behind_an_early_answer_is_not_taken_for_idleness() -> None:
    """The rest of the refused request and the next one come in one packet: its stream may last as long as it likes."""

    async def scenario() -> list[bool]:
        wire, begun = Wire(), list[Exchange]()
        protocol = connected(wire, begun)
        protocol.data_received(CALL)
        await begun[0].answer(401, [], b"")
        protocol.data_received(b"{}" + CALL)
        protocol.timeout_keep_alive_handler()
        while_it_runs = wire.closed
        protocol.data_received(b"{}")
        await begun[1].answer(200, [], b"")
        protocol.timeout_keep_alive_handler()
        return [while_it_runs, wire.closed]

    assert [False, True] == asyncio.run(scenario())


def test_an_early_answer_does_not_keep_a_connection_for_ever() -> None:
    """Once the refused request is whole, the connection is as idle as any other."""

    async def scenario() -> bool:
        wire, begun = Wire(), list[Exchange]()
        protocol = connected(wire, begun)
        protocol.data_received(CALL)
        await begun[0].answer(401, [], b"")
        protocol.data_received(b"{}")
        protocol.timeout_keep_alive_handler()
        return wire.closed

    assert asyncio.run(scenario())


def test_a_client_is_heard_again_when_its_last_request_has_its_turn() -> None:
    """Who leaves is noticed by reading; until then nothing more is taken from who sends ahead."""

    async def scenario() -> list[tuple[int, bool]]:
        wire, begun = Wire(), list[Exchange]()
        protocol = connected(wire, begun)
        protocol.data_received((CALL + b"{}") * 3)
        seen = [(len(begun), wire.reads)]
        for number in range(3):
            await begun[number].answer(200, [], b"")
            seen.append((len(begun), wire.reads))
        return seen

    assert [(1, False), (2, False), (3, True), (3, True)] == asyncio.run(scenario())


def every_split(data: bytes) -> list[list[bytes]]:
    """Whole, byte by byte, and cut in two anywhere."""
    halves = [[data[:at], data[at:]] for at in range(1, len(data))]
    return [[data], [bytes([byte]) for byte in data], *halves]


BODY = b'{"a":1}'
CHUNKS = b"3;x=y\r\n" + BODY[:3] + b"\r\n4\r\n" + BODY[3:] + b"\r\n0\r\nx-trailer: 1\r\n\r\n"
OFFERS = b"connection: Upgrade\r\nupgrade: h2c\r\n"
WHOLE = {
    "by its length": b"POST /call/ HTTP/1.1\r\nhost: x\r\ncontent-length: 7\r\n\r\n" + BODY,
    "in chunks": b"POST /call/ HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKS,
    "with an offer": b"POST /call/ HTTP/1.1\r\nhost: x\r\n" + OFFERS + b"content-length: 7\r\n\r\n" + BODY,
    "with an offer, in chunks": b"POST /call/ HTTP/1.1\r\nhost: x\r\n"
    + OFFERS
    + b"transfer-encoding: chunked\r\n\r\n"
    + CHUNKS,
    "behind line breaks": b"\r\n\r\nPOST /call/ HTTP/1.1\r\nhost: x\r\ncontent-length: 7\r\n\r\n" + BODY,
}


@pytest.mark.parametrize("request_bytes", WHOLE.values(), ids=WHOLE)
def test_a_request_is_the_same_at_every_split(request_bytes: bytes) -> None:
    """Whole, byte by byte, cut in two anywhere, and with the next one behind it: two calls with one body each."""
    twice = request_bytes * 2

    async def bodies(parts: list[bytes]) -> list[bytes]:
        wire, begun = Wire(), list[Exchange]()
        protocol = connected(wire, begun)
        read = []
        for part in parts:
            protocol.data_received(part)
        for number in range(2):
            read.append(await begun[number].json_body(1000, 5))
            await begun[number].answer(200, [], b"")
        return [*read, wire.written[:12]]

    async def scenario() -> None:
        for parts in every_split(twice):
            assert [BODY, BODY, b"HTTP/1.1 200"] == await bodies(parts), parts[0]

    asyncio.run(scenario())


REFUSED = {
    "two lengths": b"POST /call/ HTTP/1.1\r\nhost: x\r\ncontent-length: 7\r\ncontent-length: 7\r\n\r\n" + BODY,
    "stacked codings": b"POST /call/ HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "no host": b"POST /call/ HTTP/1.1\r\ncontent-length: 7\r\n\r\n" + BODY,
    "two keys": b"POST /call/ HTTP/1.1\r\nhost: x\r\nauthorization: a\r\nAuthorization: b\r\n\r\n",
    "garbage": b"\x00\x01\x02",
}


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=REFUSED)
def test_a_refusal_is_the_same_at_every_split(request_bytes: bytes) -> None:
    """Behind a call that runs as well: its answer first, then 400, and no call begins."""
    asked = CALL + b"{}" + request_bytes

    async def answers(parts: list[bytes]) -> list[object]:
        wire, begun = Wire(), list[Exchange]()
        protocol = connected(wire, begun)
        for part in parts:
            protocol.data_received(part)
        before = wire.written
        await begun[0].answer(200, [], b"")
        return [before, re.findall(rb"HTTP/1\.1 \d+", wire.written), len(begun), wire.ended]

    async def scenario() -> None:
        for parts in every_split(asked):
            assert [b"", [b"HTTP/1.1 200", b"HTTP/1.1 400"], 1, True] == await answers(parts), parts[0]

    asyncio.run(scenario())
