"""Stops and kills: what a stream, a hold and the books look like after each."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import pytest
import redis

from tests.e2e.client import CHAT, IMAGES, JOBS, Answer, send, stream
from tests.e2e.waiting import until
from tests.stack import ADMIN_KEY, UPSTREAM_KEY, Admin, Process, Stack, chat, listens


class Embedded:
    """A gateway with its own Valkey in a data directory; `start` again after whatever killed it."""

    def __init__(self, stack: Stack, data_dir: Path, **settings: str) -> None:
        self._env = {
            "MINITOOLAI_API_KEY": UPSTREAM_KEY,
            "MINITOOLAI_BASE_URL": stack.emulator_url,
            "GATEWAY_ADMIN_KEY": ADMIN_KEY,
            "GATEWAY_PORT": "0",
            "GATEWAY_DATA_DIR": str(data_dir),
            **{f"GATEWAY_{name.upper()}": value for name, value in settings.items()},
        }
        self._socket = data_dir / "redis" / "redis.sock"

    def start(self) -> Process:
        return Process("serve", env=self._env)

    def redis_pid(self) -> int | None:
        """Its process, or None while it does not answer."""
        with redis.Redis(unix_socket_path=str(self._socket)) as client:
            try:
                return int(client.info("server")["process_id"])
            except redis.RedisError:
                return None


def test_sigterm_lets_a_stream_finish(stack: Stack) -> None:
    """A deployment cuts nobody off: the stream gets its end and its bill, new calls go elsewhere, the exit is clean."""
    gateway = stack.gateway()
    key = Admin(gateway.url).key("stops")["key"]
    body = chat("To the end [[fault:withhold_after=1]]")
    expected = send_released(stack, stack.emulator_url, body, UPSTREAM_KEY)
    with stream(gateway.url, CHAT, body, key) as answer:
        answer.read_event()
        gateway.signal(signal.SIGTERM)
        until(lambda: not listens(gateway.url))
        stack.emulator.post("/__release")
        answer.read_rest()
    assert expected == answer.received
    assert 0 == gateway.wait()
    entry = only_entry(stack, answer.request_id)
    assert ("capture", "upstream", []) == (entry["type"], entry["usage_source"], entry["flags"])


def test_a_stream_longer_than_the_grace_time_ends_with_an_error_event(stack: Stack) -> None:
    """What cannot finish is told so, billed for what it got, and its money is not left held."""
    gateway = stack.gateway(grace_s="0.2")
    key = Admin(gateway.url).key("stops")["key"]
    with stream(gateway.url, CHAT, chat("Too long [[fault:withhold_after=2]]"), key) as answer:
        first = answer.read_event() + answer.read_event()
        gateway.signal(signal.SIGTERM)
        rest = answer.read_rest()
    error = json.loads(rest.removeprefix(b"data: "))["error"]
    assert (b"data: ", "draining") == (first[:6], error["code"])
    assert 0 == gateway.wait()
    entry = only_entry(stack, answer.request_id)
    assert ("capture", "estimated", ["estimated"]) == (entry["type"], entry["usage_source"], entry["flags"])
    line = next(line for line in stack.bill()["lines"] if line["request_id"] == answer.request_id)
    assert line["generated_nano_usd"] == entry["cost_nano_usd"]
    assert [] == Admin(stack.gateway().url).get("/holds")["data"]


def test_a_call_without_an_answer_ends_with_the_grace_time(stack: Stack) -> None:
    """The upstream was still silent when the time was over: the call is booked as an estimate, not left held."""
    gateway = stack.gateway(grace_s="0.2")
    key = Admin(gateway.url).key("stops")["key"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(send, gateway.url, CHAT, chat("Listening [[fault:withhold]]"), key)
        stack.emulator.get("/__withheld", params={"at_least": "1"})
        gateway.signal(signal.SIGTERM)
        answer = waiting.result()
    assert (504, "upstream_timeout", "false") == (
        answer.status,
        answer.error["code"],
        answer.headers["x-should-retry"],
    )
    assert 0 == gateway.wait()
    assert ["estimated", "unanswered"] == only_entry(stack, answer.request_id)["flags"]
    assert [] == Admin(stack.gateway().url).get("/holds")["data"]


def test_a_poll_without_an_answer_holds_up_no_shutdown(stack: Stack) -> None:
    """Neither a client's nor the gateway's own: both give up when the grace time is over."""
    gateway = stack.gateway(grace_s="0.2", job_first_poll_s="0.1")
    key = Admin(gateway.url).key("stops")["key"]
    stack.emulator.post("/__faults", json={"fault": "withhold", "kind": "poll", "count": 2})
    submitted = send(gateway.url, IMAGES, {"model": "realvision", "prompt": "A tree"}, key).json
    job = {name: submitted[name] for name in ("jobid", "signature")}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(send, gateway.url, JOBS, job)
        stack.emulator.get("/__withheld", params={"at_least": "2"})
        gateway.signal(signal.SIGTERM)
        answer = waiting.result()
    assert (502, "upstream_error", "error") == (answer.status, answer.error["code"], answer.json["status"])
    assert 0 == gateway.wait(timeout_s=20)


def test_killed_gateways_lose_nothing_that_was_booked(stack: Stack, tmp_path: Path) -> None:
    """SIGKILL, and a new start in the same directory at once: balances and ledger are as before, the key still works,
    and the call that was running still holds its money (it may have been billed)."""
    embedded = Embedded(stack, tmp_path)
    gateway = embedded.start()
    before = spend_something(gateway)
    for _ in range(3):
        gateway.signal(signal.SIGKILL)
        gateway.wait()
        gateway = embedded.start()
        assert before["books"] == books_of(Admin(gateway.url))
    with stream(gateway.url, CHAT, chat("Running [[fault:withhold_after=1]]"), before["key"]) as answer:
        answer.read_event()
        gateway.signal(signal.SIGKILL)
        gateway.wait()
    gateway = embedded.start()
    held = Admin(gateway.url).get("/holds")["data"]
    assert [answer.request_id] == [hold["request_id"] for hold in held]
    assert 200 == send(gateway.url, CHAT, chat("Still valid?"), before["key"]).status
    assert 0 == gateway.stop()


def test_a_killed_valkey_comes_back_with_its_books(stack: Stack, tmp_path: Path) -> None:
    """The gateway stays, starts its server anew, and calls go on from the same balances."""
    embedded = Embedded(stack, tmp_path)
    gateway = embedded.start()
    before = spend_something(gateway)
    killed = embedded.redis_pid()
    assert killed
    os.kill(killed, signal.SIGKILL)
    until(lambda: embedded.redis_pid() not in (None, killed))
    assert before["books"] == books_of(Admin(gateway.url))
    assert 200 == send(gateway.url, CHAT, chat("Back again?"), before["key"]).status
    assert 0 == gateway.stop()


def test_a_valkey_that_dies_while_the_gateway_drains_comes_back_for_the_last_bill(stack: Stack, tmp_path: Path) -> None:
    """SIGTERM, a stream still running, then the server is killed: what the stream cost must still be written down."""
    embedded = Embedded(stack, tmp_path)
    gateway = embedded.start()
    key = spend_something(gateway)["key"]
    with stream(gateway.url, CHAT, chat("The last one [[fault:withhold_after=1]]"), key) as answer:
        answer.read_event()
        gateway.signal(signal.SIGTERM)
        until(lambda: not listens(gateway.url))
        killed = embedded.redis_pid()
        assert killed
        os.kill(killed, signal.SIGKILL)
        stack.emulator.post("/__release")
        answer.read_rest()
    assert 0 == gateway.wait()
    gateway = embedded.start()
    admin = Admin(gateway.url)
    (entry,) = admin.ledger(request_id=answer.request_id)
    assert ("capture", "upstream", []) == (entry["type"], entry["usage_source"], entry["flags"])
    assert [] == admin.get("/holds")["data"]
    assert 0 == gateway.stop()


def test_a_silent_valkey_means_503_and_no_upstream_call(stack: Stack, tmp_path: Path) -> None:
    """Without books nothing is served; where the server only paused, a call it admitted unheard leaves no hold."""
    embedded = Embedded(stack, tmp_path, redis_timeout_s="0.3")
    gateway = embedded.start()
    before = spend_something(gateway)
    calls = stack.bill()["totals"]["calls"]
    server = embedded.redis_pid()
    assert server
    os.kill(server, signal.SIGSTOP)
    try:
        answers = [send(gateway.url, CHAT, chat("Anyone?"), before["key"]) for _ in range(3)]
        answers.append(send(gateway.url, IMAGES, {"model": "realvision", "prompt": "A tree"}, before["key"]))
    finally:
        os.kill(server, signal.SIGCONT)
    for answer in answers:
        assert (503, "ledger_unavailable", "2") == (answer.status, answer.error["code"], answer.headers["retry-after"])
        assert "gateway" == answer.headers["x-gateway-error-source"]
    assert calls == stack.bill()["totals"]["calls"]
    # Once a later call is through, the pauses before the releases of the lost admissions are all that is left.
    assert 200 == until(lambda: answered(gateway, before["key"])).status
    until(lambda: Admin(gateway.url).get("/holds")["data"] == [])
    assert 0 == gateway.stop()


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_a_call_that_ends_without_its_ledger_is_settled_later(
    stack: Stack, tmp_path: Path, how: signal.Signals
) -> None:
    """The client gets its whole answer; the charge is posted, once and exactly, when the ledger is back."""
    embedded = Embedded(stack, tmp_path, redis_timeout_s="0.3")
    gateway = embedded.start()
    admin = Admin(gateway.url)
    key = admin.key("late")["key"]
    server = embedded.redis_pid()
    assert server
    with stream(gateway.url, CHAT, chat("Late [[fault:withhold_after=1]]"), key) as answer:
        answer.read_event()
        os.kill(server, how)
        stack.emulator.post("/__release")
        answer.read_rest()
    assert answer.received.endswith(b"data: [DONE]\n\n")
    if how == signal.SIGSTOP:
        os.kill(server, signal.SIGCONT)
    until(lambda: answered(gateway, key))
    until(lambda: admin.get("/holds")["data"] == [])
    entries = admin.ledger(request_id=answer.request_id)
    line = next(line for line in stack.bill()["lines"] if line["request_id"] == answer.request_id)
    assert [(line["claimed_nano_usd"], [])] == [(entry["cost_nano_usd"], entry["flags"]) for entry in entries]
    assert 0 == gateway.stop()


def spend_something(gateway: Process) -> dict[str, Any]:
    """Two calls by a key with a budget; returns the key and the books afterwards."""
    admin = Admin(gateway.url)
    admin.post("/teams", {"id": "kept", "budgets": [{"window": "total", "limit_usd": "1.00"}]})
    key = admin.key("kept", "an", budgets=[{"window": "month", "limit_usd": "0.50"}])["key"]
    assert 200 == send(gateway.url, CHAT, chat("Remember this"), key).status
    assert 200 == send(gateway.url, IMAGES, {"model": "realvision", "prompt": "A tree"}, key).status
    return {"key": key, "books": books_of(admin)}


def books_of(admin: Admin) -> dict[str, Any]:
    """Balances, entries, report and holds, as the control plane shows them."""
    paths = ("/teams", "/users", "/keys", "/ledger", "/usage", "/holds")
    return {path: admin.get(path) for path in paths}


def only_entry(stack: Stack, request_id: str) -> dict[str, Any]:
    """The one entry of a call, read through a gateway that knows it from Redis alone."""
    entries = Admin(stack.gateway().url).ledger(request_id=request_id)
    assert 1 == len(entries)
    return entries[0]


def send_released(stack: Stack, url: str, body: object, key: str) -> bytes:
    """The whole body of an answer that is withheld once, and released at once."""
    with stream(url, CHAT, body, key) as answer:
        answer.read_event()
        stack.emulator.get("/__withheld", params={"at_least": "1"})
        stack.emulator.post("/__release")
        answer.read_rest()
    return answer.received


def answered(gateway: Process, key: str) -> Answer | Literal[False]:
    """An answer that is not a 503."""
    answer = send(gateway.url, CHAT, chat("And now?"), key)
    return answer.status != 503 and answer
