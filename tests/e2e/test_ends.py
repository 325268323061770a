"""Ends that are easily got wrong: a reader that has stopped while the gateway stops, and a ledger that is away."""

import http.client
import json
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from gateway.store.embedded import EmbeddedRedis
from tests.e2e.client import CHAT, send
from tests.e2e.waiting import until
from tests.stack import Admin, Stack, bearer, chat, running_stack

REFUSED_CALLS = 30


def test_a_reader_that_has_stopped_costs_nobody_its_bill(stack: Stack) -> None:
    """Its socket is full when the grace time ends: the call is posted first, and nobody waits long for the reader."""
    gateway = stack.gateway(grace_s="1", client_write_timeout_s="3600")
    key = Admin(gateway.url).key("stalls")["key"]
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc)
    body = json.dumps(chat("Too much for every buffer [[fault:big_event=20000000]]"))
    connection.request("POST", CHAT, body, {"content-type": "application/json", **bearer(key)})
    response = connection.getresponse()
    request_id = response.headers["x-request-id"]
    assert response.read(1000)  # and no more
    gateway.signal(signal.SIGTERM)
    assert 0 == gateway.wait(timeout_s=25)
    connection.close()
    assert "not settled" not in gateway.output
    (entry,) = Admin(stack.gateway().url).ledger(request_id=request_id)
    assert ("capture", ["estimated"]) == (entry["type"], entry["flags"])
    assert entry["completion_tokens"] > 0


def test_an_outage_of_the_ledger_leaves_nothing_behind(tmp_path: Path) -> None:
    """Calls that never reached Redis need no release: when it is back, there is no trace of them."""
    server = EmbeddedRedis(tmp_path)
    server.start()
    try:
        with running_stack(server.url) as stack:
            gateway = stack.gateway()
            key = Admin(gateway.url).key("away")["key"]
            assert 200 == send(gateway.url, CHAT, chat("Before"), key).status
            server.stop()
            answers = [send(gateway.url, CHAT, chat(f"Call {number}"), key) for number in range(REFUSED_CALLS)]
            assert {(503, "ledger_unavailable")} == {(answer.status, answer.error["code"]) for answer in answers}
            server.start()
            until(lambda: send(gateway.url, CHAT, chat("After"), key).status == 200)
            with redis.Redis.from_url(server.url) as client:
                holds = sorted(client.scan_iter("gw:{default}:hold:*"))
            assert len(Admin(gateway.url).ledger()) == len(holds)
            assert 2 == sum(1 for line in stack.bill()["lines"])
    finally:
        server.stop()


@pytest.mark.parametrize("key", ["sk-mt-other-" + "a" * 40 + "00000000", "sk-mt-default-short"])
def test_a_key_that_cannot_be_one_is_refused(stack: Stack, key: str) -> None:
    """A wrong checksum, or a key cut short, is told from the key alone."""
    answer = send(stack.gateway().url, CHAT, chat(), key)
    assert (401, "invalid_api_key") == (answer.status, answer.error["code"])
