"""Offers to go on in another protocol are ignored, and the request they came with is served."""

import asyncio
import contextlib
import http.client
import json
import resource
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.web.exchange import Exchange
from gateway.web.protocol import DataPlane, GatewayProtocol, without_offer
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

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

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


@pytest.mark.parametrize("name", [b"Upgrade", b"upgrade", b"UPGRADE"])
def test_only_the_offer_is_taken_out_of_the_head(name: bytes) -> None:
    """Other headers that hold the word, and the body, pass as they came."""
    kept = b"POST / HTTP/1.1\r\nupgrade-insecure-requests: 1\r\nx-note: upgrade: now\r\n"
    body = b"\r\n\r\nUpgrade: me"
    assert kept + b"x-upgrade-ignored: h2c" + body == without_offer(kept + name + b": h2c" + body)
