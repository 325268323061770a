"""Offers to go on in another protocol are ignored, and the request they came with is served."""

import http.client
import json
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


@pytest.mark.parametrize("name", [b"Upgrade", b"upgrade", b"UPGRADE"])
def test_only_the_offer_is_taken_out_of_the_head(name: bytes) -> None:
    """Other headers that hold the word, and the body, pass as they came."""
    kept = b"POST / HTTP/1.1\r\nupgrade-insecure-requests: 1\r\nx-note: upgrade: now\r\n"
    body = b"\r\n\r\nUpgrade: me"
    assert kept + b"x-upgrade-ignored: h2c" + body == without_offer(kept + name + b": h2c" + body)
