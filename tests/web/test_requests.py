"""GET /v1/requests and /v1/requests/{id}: the holder of a key is told what became of their calls, and of no others."""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest
import redis

from tests.e2e.client import CHAT, IMAGES, JOBS, send
from tests.e2e.waiting import until
from tests.stack import Admin, Process, Stack, bearer, chat

PRICE_NANO_USD = 1_500_000
OPENAI_IMAGES = "/v1/images/generations"


@pytest.fixture(scope="module")
def gateway(stack: Stack) -> Process:
    return stack.gateway(lease_s="1", job_first_poll_s="3600", image_wait_s="1")


@pytest.fixture(scope="module")
def secret(gateway: Process) -> str:
    secret: str = Admin(gateway.url).key("askers", "an")["key"]
    return secret


@pytest.fixture
def client(gateway: Process, secret: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, headers=bearer(secret), timeout=30) as one:
        yield one


def told(client: httpx.Client, request_id: str) -> dict[str, Any]:
    answer = client.get(f"/v1/requests/{request_id}")
    assert 200 == answer.status_code, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_call_that_ended_is_told_as_the_ledger_has_it(gateway: Process, client: httpx.Client, secret: str) -> None:
    """Tokens, cost, exact; the same request's entry says the same."""
    answer = send(gateway.url, CHAT, chat("How much was it?"), secret)
    (entry,) = Admin(gateway.url).ledger(request_id=answer.request_id)
    call = told(client, answer.request_id)
    same = ("kind", "model", "prompt_tokens", "completion_tokens", "images", "cost_nano_usd", "cost_usd", "flags")
    assert {name: entry[name] for name in same} == {name: call[name] for name in same}
    assert (answer.request_id, "captured", True) == (call["id"], call["state"], call["exact"])
    assert (entry["admitted_at"], entry["at"]) == (call["created_at"], call["ended_at"])
    assert answer.headers["x-gateway-hold-usd"] == call["hold_usd"]
    assert "jobs" not in call


def test_a_running_call_has_its_hold_and_no_cost_yet(
    stack: Stack, gateway: Process, client: httpx.Client, secret: str
) -> None:
    """What it will cost nobody knows."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(send, gateway.url, CHAT, chat("Wait [[fault:withhold]]"), secret)
        stack.emulator.get("/__withheld", params={"at_least": "1"})
        (hold,) = Admin(gateway.url).get("/holds")["data"]
        call = told(client, hold["request_id"])
        stack.emulator.post("/__release")
        assert running.result().request_id == hold["request_id"]
    assert ("running", None, None, None, None) == (
        call["state"],
        call["cost_usd"],
        call["ended_at"],
        call["exact"],
        call["prompt_tokens"],
    )
    assert hold["hold_nano_usd"] == call["hold_nano_usd"]


def test_a_call_that_cost_nothing_is_told_as_released(gateway: Process, client: httpx.Client, secret: str) -> None:
    """The upstream failed."""
    answer = send(gateway.url, CHAT, chat("Fail [[fault:status=500]]"), secret)
    call = told(client, answer.request_id)
    assert ("released", "0.00", True) == (call["state"], call["cost_usd"], call["exact"])


def test_an_estimate_is_told_as_one(gateway: Process, client: httpx.Client, secret: str) -> None:
    """Sent, and never answered."""
    answer = send(gateway.url, CHAT, chat("Gone [[fault:reset]]"), secret)
    call = told(client, answer.request_id)
    assert ("captured", False, ["estimated", "unanswered"]) == (call["state"], call["exact"], call["flags"])


def test_images_are_found_though_nobody_waited_for_them(
    stack: Stack, gateway: Process, client: httpx.Client, secret: str
) -> None:
    """One ends well and one fails, by anybody's polls after the answer: the URL is told, and what came back."""
    stack.emulator.post("/__faults", json={"fault": "job_pending=6", "count": 1, "kind": "image"})
    stack.emulator.post("/__faults", json={"fault": "job_pending=6;job_fails", "count": 1, "kind": "image"})
    body = {"model": "dreamshaper", "prompt": "Later", "n": 2}
    answer = send(gateway.url, OPENAI_IMAGES, body, secret)
    assert 504 == answer.status
    call = told(client, answer.request_id)
    assert [("pending", None)] * 2 == [(job["state"], job["url"]) for job in call["jobs"]]
    assert (2, 2 * PRICE_NANO_USD) == (call["images"], call["cost_nano_usd"])
    for job in bound_jobs(stack):
        until(partial(is_over, gateway.url, job))
    call = until(lambda: done(told(client, answer.request_id)))
    assert ["error", "success"] == sorted(job["state"] for job in call["jobs"])
    (good,) = [job for job in call["jobs"] if job["state"] == "success"]
    (bad,) = [job for job in call["jobs"] if job["state"] == "error"]
    assert 200 == httpx.get(good["url"]).status_code
    assert (None, PRICE_NANO_USD, "0.0015") == (bad["url"], bad["refunded_nano_usd"], bad["refunded_usd"])
    assert PRICE_NANO_USD == call["cost_nano_usd"]


def is_over(url: str, job: dict[str, str]) -> bool:
    return bool(send(url, JOBS, job).json["status"] != "processing")


def done(call: dict[str, Any]) -> dict[str, Any] | None:
    return None if any(job["state"] == "pending" for job in call["jobs"]) else call


def bound_jobs(stack: Stack) -> list[dict[str, str]]:
    """How every job so far is polled."""
    with redis.Redis.from_url(stack.redis_url) as client:
        abouts = [json.loads(client.hget(key, "about")) for key in client.keys("gw:{default}:job:*")]
    return [{"jobid": about["jobid"], "signature": about["signature"]} for about in abouts]


def test_a_single_job_of_minitoolais_own_path_is_told_too(gateway: Process, client: httpx.Client, secret: str) -> None:
    """It has one job, and its URL once its owner's poll has seen it."""
    answer = send(gateway.url, IMAGES, {"model": "realism", "prompt": "One"}, secret)
    job = {name: answer.json[name] for name in ("jobid", "signature")}
    url = until(lambda: send(gateway.url, JOBS, job).json["image_url"])
    until(lambda: told(client, answer.request_id)["jobs"][0]["url"] == url)


def test_an_expired_call_is_told_as_such(stack: Stack, client: httpx.Client, secret: str) -> None:
    """Its gateway was killed."""
    other = stack.gateway(lease_s="1")
    with ThreadPoolExecutor(1) as pool:
        broken = pool.submit(send, other.url, CHAT, chat("Killed [[fault:withhold]]"), secret)
        stack.emulator.get("/__withheld", params={"at_least": "1"})
        (hold,) = Admin(other.url).get("/holds")["data"]
        other.signal(signal.SIGKILL)
        other.wait()
        assert broken.exception() is not None
    stack.emulator.post("/__release")
    call = until(lambda: (call := told(client, hold["request_id"]))["state"] == "expired" and call)
    assert (False, ["estimated"]) == (call["exact"], call["flags"])


@pytest.mark.parametrize("request_id", ["req-00000000000000000000000000000000", "nonsense", "req-%2e%2e", "x" * 200])
def test_what_was_never_asked_is_not_found(client: httpx.Client, request_id: str) -> None:
    """And says for how long calls are kept."""
    answer = client.get(f"/v1/requests/{request_id}")
    assert (404, "not_found") == (answer.status_code, answer.json()["error"]["code"])
    assert "48 hours" in answer.json()["error"]["message"]


def test_a_refused_call_is_told_apart_from_one_that_was_never_made(gateway: Process, client: httpx.Client) -> None:
    """It was made, and is not kept: the answer to who looks for it says so."""
    refused = client.post(CHAT, json=chat(model="gpt-9"))
    answer = client.get(f"/v1/requests/{refused.headers['x-request-id']}")
    assert (404, True) == (answer.status_code, "those that were refused are not" in answer.json()["error"]["message"])


def test_another_keys_call_does_not_exist(gateway: Process, client: httpx.Client) -> None:
    """Not even one of the same user."""
    other = Admin(gateway.url).key("askers", "an")["key"]
    answer = send(gateway.url, CHAT, chat("Mine"), other)
    assert 404 == client.get(f"/v1/requests/{answer.request_id}").status_code


def test_a_revoked_key_is_told_nothing(gateway: Process) -> None:
    """As everywhere: 401."""
    admin = Admin(gateway.url)
    key = admin.key("askers")
    answer = send(gateway.url, CHAT, chat("Before"), key["key"])
    admin.post(f"/keys/{key['id']}/revoke")
    refused = httpx.get(f"{gateway.url}/v1/requests/{answer.request_id}", headers=bearer(key["key"]))
    assert (401, "invalid_api_key") == (refused.status_code, refused.json()["error"]["code"])


def image_calls(client: httpx.Client, **params: str) -> dict[str, Any]:
    answer = client.get("/v1/requests", params=params)
    assert 200 == answer.status_code, answer.text
    page: dict[str, Any] = answer.json()
    return page


def test_who_left_without_an_id_finds_the_pictures_paid_for(stack: Stack, gateway: Process) -> None:
    """Nothing of the answer was read. Nobody else polls: the list has the id, and a look at the call has the URLs."""
    secret = Admin(gateway.url).key("leavers")["key"]
    stack.emulator.post("/__faults", json={"fault": "withhold", "count": 2, "kind": "image"})
    body = {"model": "dreamshaper", "prompt": "Left", "n": 2}
    with httpx.Client(base_url=gateway.url, headers=bearer(secret), timeout=30) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post(OPENAI_IMAGES, json=body, timeout=httpx.Timeout(30, read=0.3))
        stack.emulator.get("/__withheld", params={"at_least": "2"})
        stack.emulator.post("/__release")
        (call,) = until(lambda: len(page := image_calls(client)["data"]) == 1 and len(page[0]["jobs"]) == 2 and page)
        pictures = until(lambda: done(told(client, call["id"])))
        (again,) = image_calls(client)["data"]
        own = told(client, call["id"])
    assert ["success"] * 2 == [job["state"] for job in pictures["jobs"]]
    assert 200 == httpx.get(pictures["jobs"][0]["url"]).status_code
    assert {name: own[name] for name in again} == again
    assert ("captured", 2 * PRICE_NANO_USD) == (again["state"], again["cost_nano_usd"])


def test_a_job_that_cannot_be_asked_about_stays_pending(
    stack: Stack, gateway: Process, client: httpx.Client, secret: str
) -> None:
    """MiniToolAI fails at the poll: what is known is told all the same."""
    answer = send(gateway.url, IMAGES, {"model": "realism", "prompt": "Unasked [[fault:job_pending=0]]"}, secret)
    stack.emulator.post("/__faults", json={"fault": "status=500", "count": 1, "kind": "poll"})
    assert ["pending"] == [job["state"] for job in told(client, answer.request_id)["jobs"]]
    until(lambda: told(client, answer.request_id)["jobs"][0]["url"])


def test_a_keys_image_calls_are_listed_page_by_page_and_no_others(gateway: Process) -> None:
    """Newest first, whichever path they came by; chat calls and other keys' are not among them."""
    admin = Admin(gateway.url)
    mine, other = admin.key("listers", "lan")["key"], admin.key("listers", "lan")["key"]
    image = {"model": "realism", "prompt": "Listed"}
    asked = [send(gateway.url, path, image, mine).request_id for path in (IMAGES, OPENAI_IMAGES, IMAGES)]
    send(gateway.url, CHAT, chat("Not listed"), mine)
    send(gateway.url, IMAGES, image, other)
    with httpx.Client(base_url=gateway.url, headers=bearer(mine), timeout=30) as client:
        first = image_calls(client, limit="2")
        second = image_calls(client, limit="2", cursor=first["next_cursor"])
    assert asked[::-1] == [call["id"] for call in first["data"] + second["data"]]
    assert second["next_cursor"] is None


def test_a_call_whose_hold_is_forgotten_keeps_its_pictures(stack: Stack, gateway: Process) -> None:
    """After two days its cost is not known any more; its jobs are for a week."""
    secret = Admin(gateway.url).key("late")["key"]
    answer = send(gateway.url, OPENAI_IMAGES, {"model": "realism", "prompt": "Late"}, secret)
    with redis.Redis.from_url(stack.redis_url) as books:
        books.delete(f"gw:{{default}}:hold:{answer.request_id}")
    with httpx.Client(base_url=gateway.url, headers=bearer(secret), timeout=30) as client:
        (call,) = image_calls(client)["data"]
    assert (answer.request_id, "realism", None, None) == (call["id"], call["model"], call["state"], call["cost_usd"])
    assert answer.json["data"][0]["url"] == call["jobs"][0]["url"]


@pytest.mark.parametrize(
    ("params", "param"), [({"limit": "0"}, "limit"), ({"limit": "101"}, "limit"), ({"cursor": "x"}, "cursor")]
)
def test_a_page_that_cannot_be_is_refused(client: httpx.Client, params: dict[str, str], param: str) -> None:
    """400 that names what is wrong."""
    answer = client.get("/v1/requests", params=params)
    assert (400, param) == (answer.status_code, answer.json()["error"]["param"])
