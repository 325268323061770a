"""Offers to go on in another protocol are ignored, and the request they came with is served."""

import contextlib
import http.client
import json
import resource
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.web.protocol import without_offer
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


@pytest.mark.parametrize("name", [b"Upgrade", b"upgrade", b"UPGRADE"])
def test_only_the_offer_is_taken_out_of_the_head(name: bytes) -> None:
    """Other headers that hold the word, and the body, pass as they came."""
    kept = b"POST / HTTP/1.1\r\nupgrade-insecure-requests: 1\r\nx-note: upgrade: now\r\n"
    body = b"\r\n\r\nUpgrade: me"
    assert kept + b"x-upgrade-ignored: h2c" + body == without_offer(kept + name + b": h2c" + body)
