"""Idempotency-Key on calls: asked again, a call is answered as the first time and billed once."""

import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.client import CHAT, IMAGES, Answer, send, stream
from tests.e2e.waiting import until
from tests.stack import Admin, Process, Stack, bearer, chat

SAME = {"idempotency-key": "order-66"}
AT_ONCE = 20


class Caller:
    """One sub-key, and what its calls cost so far."""

    def __init__(self, gateway: Process, team: str) -> None:
        self.gateway = gateway
        self.admin = Admin(gateway.url)
        self.secret = self.admin.key(team)["key"]
        self.team = team

    def send(self, body: object, headers: Mapping[str, str] = SAME, path: str = CHAT) -> Answer:
        return send(self.gateway.url, path, body, self.secret, headers)

    def entries(self) -> list[str]:
        return [entry["type"] for entry in self.admin.ledger(team=self.team)]


@pytest.fixture(scope="module")
def gateway(stack: Stack) -> Process:
    return stack.gateway(lease_s="1")


@pytest.fixture
def caller(gateway: Process, request: pytest.FixtureRequest) -> Caller:
    name = request.node.name.removeprefix("test_").split("[")[0].replace("_", "-")
    return Caller(gateway, name[:40].strip("-"))


def calls_at_upstream(stack: Stack, text: str) -> int:
    requests = stack.emulator.get("/__requests").json()
    return sum(text in str(request) for request in requests.get("requests", requests))


def test_a_repeat_gets_the_first_answer_and_is_billed_once(stack: Stack, caller: Caller) -> None:
    """The same bytes, marked; the upstream hears of it once."""
    first, again = caller.send(chat("Once only")), caller.send(chat("Once only"))
    assert (200, first.body) == (again.status, again.body)
    assert "idempotent-replayed" not in first.headers
    assert "true" == again.headers["idempotent-replayed"]
    assert first.headers["content-type"] == again.headers["content-type"]
    assert first.request_id != again.request_id
    assert (None, first.request_id) == tuple(
        answer.headers.get("x-gateway-first-request-id") for answer in (first, again)
    )
    assert ["capture"] == caller.entries()
    assert 1 == calls_at_upstream(stack, "Once only")


def test_a_repeated_image_is_the_same_job(caller: Caller) -> None:
    """Its jobid and signature, and what it cost."""
    body = {"model": "realvision", "prompt": "A boat"}
    first, again = caller.send(body, path=IMAGES), caller.send(body, path=IMAGES)
    assert first.json["jobid"] == again.json["jobid"]
    assert "0.0015" == first.headers["x-gateway-cost-usd"] == again.headers["x-gateway-cost-usd"]
    assert ["capture"] == caller.entries()


def test_another_body_under_the_same_key_is_a_conflict(caller: Caller) -> None:
    """Somebody made a mistake with the key; nothing is called and nothing spent."""
    caller.send(chat("One thing"))
    answer = caller.send(chat("Another thing"))
    assert (409, "idempotency_conflict", "false") == (
        answer.status,
        answer.error["code"],
        answer.headers["x-should-retry"],
    )
    assert ["capture"] == caller.entries()


def test_one_key_never_sees_the_answer_of_another(stack: Stack, caller: Caller, gateway: Process) -> None:
    """The same header and body from two sub-keys of one team are two calls."""
    other = Caller(gateway, caller.team)
    assert "idempotent-replayed" not in caller.send(chat("Mine")).headers
    assert "idempotent-replayed" not in other.send(chat("Mine")).headers
    assert ["capture"] * 2 == caller.entries()
    assert 2 == calls_at_upstream(stack, "Mine")


def test_of_many_at_once_one_runs(stack: Stack, caller: Caller) -> None:
    """The claim is part of the admission: the others hear that it runs, and later get its answer."""
    body = chat("A race [[fault:withhold]]")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = [pool.submit(caller.send, body) for _ in range(AT_ONCE)]
        refused = until(lambda: len([each for each in running if each.done()]) == AT_ONCE - 1 and running)
        answers = [each.result() for each in refused if each.done()]
        assert {(409, "idempotency_in_progress", "1")} == {
            (answer.status, answer.error["code"], answer.headers["retry-after"]) for answer in answers
        }
        assert {None} == {answer.headers.get("x-should-retry") for answer in answers}
        stack.emulator.post("/__release")
        (first,) = [each.result() for each in running if each.result().status == 200]
    assert first.body == caller.send(body).body
    assert ["capture"] == caller.entries()
    assert 1 == calls_at_upstream(stack, "A race")


def test_who_left_in_the_middle_can_come_back_for_the_whole_answer(stack: Stack, caller: Caller) -> None:
    """The upstream is read on to its very end; the first client's bytes begin the answer that the second gets."""
    body = chat("Leaving early [[fault:withhold_after=2]]")
    with stream(caller.gateway.url, CHAT, body, caller.secret, SAME) as first:
        begun = first.read_event() + first.read_event()
    stack.emulator.get("/__withheld", params={"at_least": "1"})
    stack.emulator.post("/__release")
    until(lambda: caller.entries() == ["capture"])
    again = caller.send(body)
    assert again.body.startswith(begun)
    assert again.body.endswith(b"data: [DONE]\n\n")
    assert ["capture"] == caller.entries()


@pytest.mark.parametrize("fault", ["status=500", "status=429", "json200"])
def test_a_call_that_cost_nothing_may_be_tried_again(stack: Stack, caller: Caller, fault: str) -> None:
    """A retry is what the key is for: an answer that was not billed does not stand in its way."""
    stack.emulator.post("/__faults", json={"fault": fault, "count": 1, "kind": "chat"})
    headers = {"idempotency-key": fault}
    assert "usage" not in caller.send(chat("Try again"), headers).body.decode()
    assert 200 == caller.send(chat("Try again"), headers).status
    assert 200 == caller.send(chat("Try again"), headers).status
    assert 1 == caller.entries()[-2:].count("capture")


@pytest.mark.parametrize("fault", ["reset", "reset_at=2", "big_event=1100000"])
def test_what_may_have_been_billed_and_is_not_known_is_never_run_again(caller: Caller, fault: str) -> None:
    """Broken off, or too large to keep: a second call could be a second bill."""
    body = chat(f"What was it [[fault:{fault}]]")
    caller.send(body, {"idempotency-key": fault})
    again = caller.send(body, {"idempotency-key": fault})
    assert (409, "idempotency_unreplayable", "false") == (
        again.status,
        again.error["code"],
        again.headers["x-should-retry"],
    )


def test_a_crash_in_between_is_never_a_second_call(stack: Stack, caller: Caller) -> None:
    """Killed while the upstream answers: the claim outlives the process, and its hold expires."""
    other = stack.gateway(lease_s="1")
    body = chat("Crashing [[fault:withhold_after=1]]")
    with stream(other.url, CHAT, body, caller.secret, SAME) as answer:
        answer.read_event()
        assert 409 == caller.send(body).status
        other.signal(signal.SIGKILL)
        other.wait()
    until(lambda: caller.entries() == ["expire"])
    stack.emulator.post("/__release")
    assert "idempotency_unreplayable" == caller.send(body).error["code"]
    assert 1 == calls_at_upstream(stack, "Crashing")


def test_a_refused_call_claims_nothing(caller: Caller) -> None:
    """Once there is money, the same key may be used."""
    caller.admin.patch(f"/teams/{caller.team}", {"budgets": [{"window": "total", "limit_usd": "0.00"}]})
    assert 402 == caller.send(chat("Too poor")).status
    caller.admin.patch(f"/teams/{caller.team}", {"budgets": []})
    assert 200 == caller.send(chat("Too poor")).status
    assert ["capture"] == caller.entries()


@pytest.mark.parametrize("value", ["", " ", "two words", "x" * 256, "ü"])
def test_a_key_that_is_none_is_refused(caller: Caller, value: str) -> None:
    """Before anything is spent, with what would be right."""
    answer = caller.send(chat(), {"idempotency-key": value})
    assert (400, "Idempotency-Key") == (answer.status, answer.error["param"])
    assert [] == caller.entries()


def test_a_call_above_its_own_maximum_is_refused(caller: Caller) -> None:
    """By the bytes where they suffice, by its counted tokens where they do not; nothing is held."""
    body = chat("A long prompt " * 400, max_completion_tokens=1)
    refused = caller.send(body, {"x-gateway-max-cost-usd": "0.0001"})
    assert (402, "max_cost_exceeded", "false") == (
        refused.status,
        refused.error["code"],
        refused.headers["x-should-retry"],
    )
    assert "0.0001" < refused.error["required_usd"]
    assert [] == caller.entries()
    fits = caller.send(body, {"x-gateway-max-cost-usd": refused.error["required_usd"]})
    assert (200, refused.error["required_usd"]) == (fits.status, fits.headers["x-gateway-hold-usd"])


@pytest.mark.parametrize("value", ["", "free", "-1", "1e-3", "0.0000000001", "99999999"])
def test_a_maximum_that_is_no_amount_is_refused(caller: Caller, value: str) -> None:
    """A wish that cannot be read must not be ignored: it is money."""
    answer = caller.send(chat(), {"x-gateway-max-cost-usd": value})
    assert (400, "x-gateway-max-cost-usd") == (answer.status, answer.error["param"])
    assert [] == caller.entries()


def test_a_maximum_that_is_sent_twice_is_refused(caller: Caller) -> None:
    """One of the two would be ignored, and nobody could tell which."""
    headers = [*bearer(caller.secret).items(), *[("x-gateway-max-cost-usd", usd) for usd in ("1", "0.0000001")]]
    answer = httpx.post(f"{caller.gateway.url}{CHAT}", json=chat(), headers=headers, timeout=30)
    assert (400, "x-gateway-max-cost-usd") == (answer.status_code, answer.json()["error"]["param"])
    assert [] == caller.entries()


@pytest.mark.parametrize("path", [CHAT, IMAGES])
def test_an_answer_that_cost_nothing_is_never_anothers(stack: Stack, caller: Caller, path: str) -> None:
    """It freed its key: a later call under the same key has no answer but its own."""
    kind, fault = ("chat", "json200") if path == CHAT else ("image", "no_job")
    stack.emulator.post("/__faults", json={"fault": fault, "count": 1, "kind": kind})
    free, paid = body_of(path, "First"), body_of(path, "Second [[fault:reset]]")
    assert 200 == caller.send(free, path=path).status
    assert 502 == caller.send(paid, path=path).status
    again = caller.send(paid, path=path)
    assert (409, "idempotency_unreplayable") == (again.status, again.error["code"])
    assert "idempotency_conflict" == caller.send(free, path=path).error["code"]


def body_of(path: str, text: str) -> dict[str, object]:
    return chat(text) if path == CHAT else {"model": "realvision", "prompt": text}
