"""What a client is told at the edge, before there is a call or a page, and pages whose reader stalls."""

import json
import re
import socket
from urllib.parse import urlsplit

import pytest

from tests.e2e.waiting import until
from tests.hostile.conftest import Target
from tests.hostile.wire import connected, said
from tests.stack import ADMIN_KEY, Process

REFUSED = {
    "what is no HTTP": (b"GET  / HTTP/1.1\r\n\r\n", 400),
    "a head that stops": (b"GET / HTTP/1.1\r\nhost: a\r\n", 408),
    "a page's body that breaks": (
        b"POST /admin/v1/teams HTTP/1.1\r\nhost: a\r\nauthorization: Bearer %b\r\ntransfer-encoding: chunked\r\n\r\nx"
        % ADMIN_KEY.encode(),
        400,
    ),
    "a head above the bound": (b"GET / HTTP/1.1\r\nx: " + b"a" * 40_000, 431),
}


@pytest.fixture(scope="module")
def narrow(target: Target) -> Process:
    """A gateway that waits for nobody, and lets in four connections."""
    return target.stack.gateway(head_timeout_s="0.5", client_write_timeout_s="0.5", connections_max="4")


@pytest.mark.parametrize(("asked", "status"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_at_the_edge_has_its_id(narrow: Process, asked: bytes, status: int) -> None:
    """As all answers have: whoever asks an administrator about it can name its line in the log."""
    (reply,) = said(narrow.url, asked)
    assert status == reply.refusal[0]
    line = until(lambda: line_of(narrow, reply.headers["x-request-id"]))
    assert ("refused", status, reply.refusal[1]) == (line["event"], line["status"], line["error"])


def test_one_connection_too_many_has_its_id(narrow: Process) -> None:
    """503 is told before anything was read of a request."""
    with connected(narrow.url), connected(narrow.url), connected(narrow.url), connected(narrow.url):
        (reply,) = said(narrow.url, b"GET / HTTP/1.1\r\n")
    assert (503, "overloaded") == reply.refusal
    assert "overloaded" == until(lambda: line_of(narrow, reply.headers["x-request-id"]))["error"]


def test_a_page_whose_reader_stalls_leaves_no_traceback(narrow: Process) -> None:
    """Many pages are asked for on one connection and none is read: it is closed, and what is being answered then ends
    as quietly as an only page does."""
    asked = b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((urlsplit(narrow.url).hostname or "", urlsplit(narrow.url).port or 0))
        client.sendall(asked * 60)
        client.setblocking(False)
        until(lambda: is_reset(client))
    (last,) = said(narrow.url, b"GET /nowhere HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    until(lambda: line_of(narrow, last.headers["x-request-id"]))
    assert "traceback" not in narrow.output
    assert '"level":"error"' not in narrow.output


def is_reset(client: socket.socket) -> bool:
    """Whether the other end takes nothing any more."""
    try:
        client.send(b"\r\n")
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return False


def line_of(gateway: Process, request_id: str) -> dict[str, object] | None:
    """The log line of that id, if it is there by now."""
    found = re.search(rf"^.*{request_id}.*\n", gateway.output, re.MULTILINE)
    return json.loads(found[0]) if found else None
