"""Ends that are easily got wrong: a reader that has stopped while the gateway stops, and a ledger that is away."""

import http.client
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from gateway.store.embedded import EmbeddedRedis
from tests.e2e.client import CHAT, IMAGES, JOBS, send, stream
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


@pytest.mark.parametrize("fault", ["reset_at=0", "reset_byte=0", "reset_byte=1", "reset_byte=200"])
def test_a_stream_that_broke_before_its_first_event_is_charged_its_prompt(stack: Stack, fault: str) -> None:
    """Its head came, so its prompt was read and billed: nothing seen is no proof of nothing owed."""
    gateway = stack.gateway()
    admin = Admin(gateway.url)
    answer = send(gateway.url, CHAT, chat(f"A long prompt {'indeed ' * 200}[[fault:{fault}]]"), admin.key("cut")["key"])
    (entry,) = admin.ledger(request_id=answer.request_id)
    assert ("capture", ["estimated"], 0) == (entry["type"], entry["flags"], entry["completion_tokens"])
    (line,) = [line for line in stack.bill()["lines"] if line["request_id"] == answer.request_id]
    assert line["generated"]["prompt_tokens"] == entry["prompt_tokens"] > 200


def test_who_leaves_again_and_again_at_the_head_of_a_stream_spends_a_budget(stack: Stack) -> None:
    """Streams that say nothing yet, left as soon as they began: each is charged its prompt, so that the budget ends the
    game, and what the upstream billed is within it."""
    gateway = stack.gateway(upstream_connections_max="2", drain_s="0.1")
    admin = Admin(gateway.url)
    body = chat("A long prompt " + "indeed " * 500 + "[[fault:withhold_after=0]]", "gpt-4.1", max_completion_tokens=1)
    key = admin.key("leavers", budgets=[{"window": "total", "limit_usd": "0.005"}])
    statuses, request_ids = set(), []
    for _ in range(12):
        with stream(gateway.url, CHAT, body, key["key"]) as answer:
            statuses.add(answer.status)
            request_ids.append(answer.request_id)
        until(lambda: not admin.get("/holds")["data"])
    assert {200, 402} == statuses
    entries = [entry for request_id in request_ids for entry in admin.ledger(request_id=request_id)]
    assert {("capture", "estimated")} == {(entry["type"], *entry["flags"]) for entry in entries}
    lines = [line for line in stack.bill()["lines"] if line["request_id"] in request_ids]
    assert sum(line["generated_nano_usd"] for line in lines) == sum(entry["cost_nano_usd"] for entry in entries)
    assert sum(line["generated_nano_usd"] for line in lines) <= 5_000_000


def test_a_silent_stream_ends_as_an_estimate(stack: Stack) -> None:
    """The upstream's head came and then nothing, until the time for its silence was over."""
    gateway = stack.gateway(upstream_answer_timeout_s="0.3")
    admin = Admin(gateway.url)
    answer = send(gateway.url, CHAT, chat("Anybody? [[fault:withhold_after=0]]"), admin.key("silent")["key"])
    assert b"upstream_error" in answer.body
    (entry,) = admin.ledger(request_id=answer.request_id)
    assert ("capture", ["estimated"]) == (entry["type"], entry["flags"])


def test_a_full_redis_still_takes_what_was_charged(tmp_path: Path) -> None:
    """Above maxmemory no call is admitted, but what runs is settled, and an image's job can be polled."""
    server = EmbeddedRedis(tmp_path)
    server.start()
    try:
        with running_stack(server.url) as stack, redis.Redis.from_url(server.url) as client:
            gateway = stack.gateway()
            admin = Admin(gateway.url)
            key = admin.key("full")["key"]
            with ThreadPoolExecutor(1) as pool:
                image = {"model": "realvision", "prompt": "A tree [[fault:withhold]]"}
                running = pool.submit(send, gateway.url, IMAGES, image, key)
                stack.emulator.get("/__withheld", params={"at_least": "1"})
                client.config_set("maxmemory", "1mb")
                stack.emulator.post("/__release")
                job = {name: running.result().json[name] for name in ("jobid", "signature")}
            assert 200 == send(gateway.url, JOBS, job, key).status
            assert 503 == send(gateway.url, CHAT, chat(), key).status
            assert [] == admin.get("/holds")["data"]
            assert 1_500_000 == sum(entry["cost_nano_usd"] for entry in admin.ledger())
            client.config_set("maxmemory", "0")
            until(lambda: list(client.scan_iter("gw:job:*")))
    finally:
        server.stop()


@pytest.mark.parametrize("key", ["sk-mt-other-" + "a" * 40 + "00000000", "sk-mt-default-short"])
def test_a_key_that_cannot_be_one_is_refused(stack: Stack, key: str) -> None:
    """A wrong checksum, or a key cut short, is told from the key alone."""
    answer = send(stack.gateway().url, CHAT, chat(), key)
    assert (401, "invalid_api_key") == (answer.status, answer.error["code"])
