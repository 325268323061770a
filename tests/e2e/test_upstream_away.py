"""An upstream that is slow, silent, full or not there: what the client hears, and what is booked."""

import contextlib
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.client import CHAT, IMAGES, JOBS, Answer, send, stream
from tests.stack import Admin, Process, Stack, chat

CONNECTIONS_MAX = 2


@dataclass(frozen=True)
class Impatient:
    """A gateway that waits a third of a second for its upstream, and has two connections to it."""

    stack: Stack
    gateway: Process
    admin: Admin
    key: str

    def entry(self, request_id: str) -> dict[str, Any]:
        (entry,) = self.admin.ledger(request_id=request_id)
        assert [] == self.admin.get("/holds")["data"]
        return entry


@pytest.fixture(scope="module")
def impatient(stack: Stack) -> Impatient:
    gateway = stack.gateway(
        upstream_answer_timeout_s="0.3",
        upstream_connect_timeout_s="0.1",
        upstream_connections_max=str(CONNECTIONS_MAX),
    )
    admin = Admin(gateway.url)
    return Impatient(stack, gateway, admin, admin.key("hasty", "an")["key"])


def error_of(answer: Answer) -> tuple[int, str, str]:
    return answer.status, answer.error["code"], answer.headers["x-gateway-error-source"]


@pytest.mark.parametrize("path", [CHAT, IMAGES])
def test_an_upstream_that_never_answers_is_504_and_booked(impatient: Impatient, path: str) -> None:
    """It may have been billed: the prompt, or the image, is booked as an estimate, and nobody should just try again."""
    fault = "[[fault:withhold]]"
    body: dict[str, Any] = chat(fault) if path == CHAT else {"model": "amigo", "prompt": fault}
    answer = send(impatient.gateway.url, path, body, impatient.key)
    assert (504, "upstream_timeout", "upstream") == error_of(answer)
    assert "false" == answer.headers["x-should-retry"]
    entry = impatient.entry(answer.request_id)
    line = next(line for line in impatient.stack.bill()["lines"] if line["request_id"] == answer.request_id)
    assert ("capture", ["estimated", "unanswered"]) == (entry["type"], entry["flags"])
    assert line["generated_nano_usd"] == entry["cost_nano_usd"] > 0


def test_an_upstream_that_falls_silent_ends_the_stream_with_an_error(impatient: Impatient) -> None:
    """What was streamed is booked; the client is told that the end is none."""
    with stream(impatient.gateway.url, CHAT, chat("So [[fault:withhold_after=3]]"), impatient.key) as answer:
        for _ in range(3):
            answer.read_event()
        last = answer.read_rest()
    assert "upstream_error" == json.loads(last.removeprefix(b"data: "))["error"]["code"]
    entry = impatient.entry(answer.request_id)
    line = next(line for line in impatient.stack.bill()["lines"] if line["request_id"] == answer.request_id)
    assert (["estimated"], line["generated_nano_usd"]) == (entry["flags"], entry["cost_nano_usd"])


def test_more_calls_than_connections_are_503_and_free(stack: Stack) -> None:
    """Nothing was sent, so the hold is given back and the call may be repeated."""
    gateway = stack.gateway(upstream_connect_timeout_s="0.1", upstream_connections_max=str(CONNECTIONS_MAX))
    admin = Admin(gateway.url)
    key = admin.key("many")["key"]
    with ThreadPoolExecutor(CONNECTIONS_MAX) as pool:
        running = [pool.submit(send, gateway.url, CHAT, chat("[[fault:withhold]]"), key) for _ in range(2)]
        stack.emulator.get("/__withheld", params={"at_least": str(CONNECTIONS_MAX)})
        answer = send(gateway.url, CHAT, chat(), key)
        assert (503, "overloaded", "gateway") == error_of(answer)
        assert "1" == answer.headers["retry-after"]
        stack.emulator.post("/__release")
        assert [200, 200] == [call.result().status for call in running]
    (entry,) = admin.ledger(request_id=answer.request_id)
    assert ("release", 0) == (entry["type"], entry["cost_nano_usd"])
    assert [] == admin.get("/holds")["data"]


def test_an_upstream_that_is_not_there_is_502_and_free(stack: Stack) -> None:
    """No byte left, so nothing can have been billed; it names no host."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with contextlib.ExitStack() as processes:
        gateway = Stack(stack.redis_url, f"http://127.0.0.1:{port}", processes).gateway()
        admin = Admin(gateway.url)
        key = admin.key("lonely")["key"]
        for path, body in ((CHAT, chat()), (IMAGES, {"model": "amigo", "prompt": "A tree"})):
            answer = send(gateway.url, path, body, key)
            assert (502, "upstream_error", "upstream") == error_of(answer)
            assert str(port) not in answer.body.decode()
            (entry,) = admin.ledger(request_id=answer.request_id)
            assert ("release", 0) == (entry["type"], entry["cost_nano_usd"])
        assert [] == admin.get("/holds")["data"]


def test_a_spent_balance_upstream_is_502_and_free(impatient: Impatient, stack: Stack) -> None:
    """The organisation's own prepaid balance runs out: its administrator's business, and nothing is booked."""
    stack.emulator.post("/__faults", json={"fault": "status=402", "count": 2})
    for path, body in ((CHAT, chat()), (IMAGES, {"model": "amigo", "prompt": "A tree"})):
        answer = send(impatient.gateway.url, path, body, impatient.key)
        assert (502, "upstream_refused", "upstream") == error_of(answer)
        assert "release" == impatient.entry(answer.request_id)["type"]


def test_a_silent_poll_changes_nothing(impatient: Impatient) -> None:
    """A poll costs nothing: 502, and the next one is answered."""
    submitted = send(impatient.gateway.url, IMAGES, {"model": "amigo", "prompt": "A tree"}, impatient.key).json
    job = {name: submitted[name] for name in ("jobid", "signature")}
    impatient.stack.emulator.post("/__faults", json={"fault": "withhold", "kind": "poll"})
    answer = send(impatient.gateway.url, JOBS, job)
    assert (502, "upstream_error", "upstream") == error_of(answer)
    assert "error" == answer.json["status"]
    assert 200 == send(impatient.gateway.url, JOBS, job).status
