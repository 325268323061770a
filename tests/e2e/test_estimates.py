"""Estimates: what a call would cost at most and whether it would be admitted, told without a trace of having asked."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from tests.e2e.client import CHAT, IMAGES, Answer, send, stream
from tests.stack import Admin, Process, Stack, chat

ESTIMATE = "/v1/estimate"
IMAGE = {"model": "realvision", "prompt": "A tree", "width": 512, "height": 512}
LONG = "mười con cáo nhảy qua một hàng rào " * 200
WORDS_ALONE_USD = "0.003"
"""What LONG costs by its counted tokens, and not by its bytes."""


@dataclass(frozen=True)
class Counter:
    """A gateway whose estimates are asked for."""

    stack: Stack
    gateway: Process
    admin: Admin

    def estimate(self, key: str | None, body: object, headers: dict[str, str] | None = None) -> Answer:
        return send(self.gateway.url, ESTIMATE, body, key, headers)

    def call(self, key: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
        return send(self.gateway.url, CHAT if "messages" in body else IMAGES, body, key, headers)

    def calls_seen(self) -> int:
        return len(self.stack.emulator.get("/__requests").json()["requests"])


@pytest.fixture(scope="module")
def counter(stack: Stack) -> Iterator[Counter]:
    gateway = stack.gateway()
    admin = Admin(gateway.url)
    yield Counter(stack, gateway, admin)
    admin.http.close()


REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "spent": ({"budgets": [{"window": "month", "limit_usd": "0.00"}]}, chat(), "budget_exceeded"),
    "no credit": ({"budgets": [{"window": "prepaid"}]}, chat(), "credit_exhausted"),
    "no room for an image": ({"budgets": [{"window": "day", "limit_usd": "0.0014"}]}, IMAGE, "budget_exceeded"),
    "no room for the words": ({"budgets": [{"window": "total", "limit_usd": "0.0001"}]}, chat(LONG), "budget_exceeded"),
    "another model": ({"models": ["gpt-4o"]}, chat(), "model_not_allowed"),
    "too many tokens": ({"limits": {"tokens_per_minute": 500}}, chat(), "request_exceeds_limit"),
    "requests": ({"limits": {"requests_per_minute": 1}}, chat(), "rate_limit_exceeded"),
    "tokens": ({"limits": {"tokens_per_minute": 1_020}}, chat("hi", max_tokens=1_000), "rate_limit_exceeded"),
    "images": ({"limits": {"images_per_minute": 1}}, IMAGE, "rate_limit_exceeded"),
}
RATED = ("requests", "tokens", "images")


@pytest.mark.parametrize("kind", ["organisation", "team", "user", "key"])
@pytest.mark.parametrize("why", REFUSALS)
def test_what_refuses_a_call_is_told_before(counter: Counter, why: str, kind: str) -> None:
    """By each scope above it: the very error that the call then gets. Where nothing stands in its way, neither does."""
    settings, body, code = REFUSALS[why]
    name = f"{why.replace(' ', '-')}-{kind}"
    made = counter.admin.key(name, name)
    path = {"organisation": "/organisations/default", "key": f"/keys/{made['id']}"}.get(kind, f"/{kind}s/{name}")
    assert (True, None) == verdict(counter.estimate(made["key"], body))
    counter.admin.patch(path, settings)
    try:
        if why in RATED:  # the bucket is full until somebody takes from it
            assert (True, None) == verdict(counter.estimate(made["key"], body))
            assert 200 == counter.call(made["key"], body).status
        estimated, called = counter.estimate(made["key"], body), counter.call(made["key"], body)
    finally:
        cleared: dict[str, Any] = {"budgets": [], "models": None, "limits": dict.fromkeys(LIMITS)}
        counter.admin.patch(path, cleared)
    assert (False, code) == verdict(estimated)
    refusal = estimated.json["refusal"]
    assert kind == refusal["scope"]
    assert without_waits(called.error) == without_waits(refusal)
    assert 200 == counter.call(made["key"], body).status


LIMITS = ("requests_per_minute", "tokens_per_minute", "images_per_minute", "concurrent_requests")


def verdict(answer: Answer) -> tuple[bool, str | None]:
    assert 200 == answer.status, answer.body
    refusal = answer.json["refusal"]
    return answer.json["admitted"], refusal and refusal["code"]


def without_waits(error: dict[str, Any]) -> dict[str, Any]:
    """Time goes on between two questions, so the seconds to wait in a message may differ by one."""
    return error if error["type"] != "rate_limit_error" else error | {"message": ""}


def test_a_call_that_fits_only_by_its_counted_tokens_is_admitted(counter: Counter) -> None:
    """As the call itself is: its bytes alone would refuse it."""
    made = counter.admin.key("counted", budgets=[{"window": "total", "limit_usd": WORDS_ALONE_USD}])
    body = chat(LONG, "gpt-4.1-nano", max_completion_tokens=6_000)
    estimate = counter.estimate(made["key"], body)
    told = estimate.json
    assert 100 * told["prompt_tokens_max"] + 400 * 6_000 > 3_000_000 >= told["most_cost_nano_usd"]
    assert (True, None) == verdict(estimate)
    assert 200 == counter.call(made["key"], body).status


def test_its_tokens_are_the_upstreams(counter: Counter) -> None:
    """Counted, not measured in bytes; what the call then costs is never above."""
    key = counter.admin.key("exact")["key"]
    for text in ("Hello", LONG, "שלום עולם", "你好世界", "def f(x):\n\treturn x\n" * 20, "👩‍👩‍👧 🦊", ""):
        body = chat(text, max_completion_tokens=50)
        told = counter.estimate(key, body).json
        called = counter.call(key, body)
        (entry,) = counter.admin.ledger(request_id=called.request_id)
        assert entry["prompt_tokens"] == told["prompt_tokens"] <= told["prompt_tokens_max"]
        assert entry["completion_tokens"] <= told["completion_tokens_max"] == 50
        assert entry["cost_nano_usd"] <= told["most_cost_nano_usd"]
        assert entry["price_version"] == told["price_version"]


def test_an_estimate_says_all_there_is_to_a_call(counter: Counter) -> None:
    """Of chat and of images; n choices and the default maximum included."""
    key = counter.admin.key("asker")["key"]
    told = counter.estimate(key, chat("hi", n=3)).json
    version = told.pop("price_version")
    assert {
        "kind": "chat",
        "model": "gpt-4o-mini",
        "prompt_tokens": 8,
        "prompt_tokens_max": 12,
        "completion_tokens_max": 3_000,
        "images": 0,
        "most_cost_nano_usd": 8 * 150 + 3_000 * 600,
        "most_cost_usd": "0.0018012",
        "admitted": True,
        "refusal": None,
    } == told
    assert {
        "kind": "image",
        "model": "realvision",
        "prompt_tokens": 0,
        "prompt_tokens_max": 0,
        "completion_tokens_max": 0,
        "images": 1,
        "most_cost_nano_usd": 1_500_000,
        "most_cost_usd": "0.0015",
        "price_version": version,
        "admitted": True,
        "refusal": None,
    } == counter.estimate(key, IMAGE).json
    several = counter.estimate(key, {"model": "realvision", "prompt": "A tree", "n": 3, "size": "512x512"}).json
    assert (3, 4_500_000, True) == tuple(several[name] for name in ("images", "most_cost_nano_usd", "admitted"))


def test_a_body_of_either_face_is_estimated(counter: Counter) -> None:
    """MiniToolAI's own as well as OpenAI's, with what it says of its answer: that costs nothing."""
    key = counter.admin.key("faces")["key"]
    streamed = chat(stream=True, stream_options={"include_usage": True})
    bodies = (chat(), chat(stream=False), streamed, chat(tools=None, max_tokens=1_000))
    estimates = [counter.estimate(key, body).json for body in bodies]
    assert [estimates[0]] * len(bodies) == estimates


def test_images_of_either_face_are_estimated(counter: Counter) -> None:
    """By `size` or by sides; of several at once what all of them cost."""
    key = counter.admin.key("painters")["key"]
    body = {"model": "realvision", "prompt": "A tree"}
    one, four = (counter.estimate(key, {**body, **more}).json for more in ({"size": "512x512"}, {"n": 4}))
    assert counter.estimate(key, IMAGE).json == one
    assert (4, "0.006", True) == (four["images"], four["most_cost_usd"], four["admitted"])


def test_what_the_caller_would_pay_at_most_is_heeded(counter: Counter) -> None:
    """The header of a call means the same here."""
    key = counter.admin.key("thrifty")["key"]
    for most, code in (("0.01", None), ("0.0000001", "max_cost_exceeded")):
        headers = {"x-gateway-max-cost-usd": most}
        estimate, call = counter.estimate(key, chat(), headers), counter.call(key, chat(), headers)
        assert (code is None, code) == verdict(estimate)
        assert code == (None if call.status == 200 else call.error["code"])
    assert 400 == counter.estimate(key, chat(), {"x-gateway-max-cost-usd": "much"}).status


def test_nothing_is_left_of_an_estimate(counter: Counter) -> None:
    """Not a byte in Redis is another one, no call goes upstream; also where it tells of a refusal."""
    made = counter.admin.key("traceless", limits={"requests_per_minute": 60, "tokens_per_minute": 2_000})
    spent_up = counter.admin.key("spent-up", budgets=[{"window": "day", "limit_usd": "0.00"}])
    assert 200 == counter.call(made["key"], chat()).status
    counter.admin.get("/usage")  # nothing is left to be projected meanwhile
    counter.estimate(made["key"], chat())  # nor a script to be loaded
    before, seen = everything(counter.stack.redis_url), counter.calls_seen()
    for key in (made["key"], spent_up["key"]):
        for body in (chat(), chat(LONG), IMAGE):
            answer = counter.estimate(key, body)
            assert (200, "0.00") == (answer.status, answer.headers["x-gateway-cost-usd"])
            assert "x-gateway-hold-usd" not in answer.headers
    assert "60" == counter.estimate(made["key"], IMAGE).headers["x-ratelimit-limit-requests"]
    assert before == everything(counter.stack.redis_url)
    assert seen == counter.calls_seen()


def everything(redis_url: str) -> dict[bytes, bytes]:
    """All keys and their values, but for what the gateway may still be writing of calls that were made before."""
    with redis.Redis.from_url(redis_url) as client:
        names = [name for name in sorted(client.keys("*")) if b":refusals:" not in name and b":job" not in name]
        return {name: client.dump(name) for name in names}


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 400, "invalid_request", None),
        ({"model": "gpt-4o-mini"}, 400, "invalid_request", None),
        (chat() | IMAGE, 400, "invalid_request", None),
        (chat(tools=[]), 400, "unsupported_parameter", "tools"),
        (chat(stream_options={"include_usage": True}), 400, "invalid_request", "stream_options"),
        (chat(stream="yes"), 400, "invalid_request", "stream"),
        (chat(model="gpt-9"), 404, "model_not_found", "model"),
        ({"model": "gpt-4o", "prompt": "A tree"}, 404, "model_not_found", "model"),
        ({"model": "realvision", "prompt": "A tree", "steps": 9}, 400, "invalid_request", "steps"),
        (b"{", 400, "invalid_json", None),
        (b'{"model":"a","model":"b"}', 400, "duplicate_key", "model"),
    ],
)
def test_what_is_no_call_is_refused_as_the_call_would_be(
    counter: Counter, body: object, status: int, code: str, param: str | None
) -> None:
    """There is nothing to estimate in it."""
    answer = counter.estimate(counter.admin.key("wrong")["key"], body)
    assert (status, code, param) == (answer.status, answer.error["code"], answer.error["param"])


def test_only_who_holds_a_good_key_is_answered(counter: Counter) -> None:
    """A key that may not call at all hears why, as on every path, before anything is read or counted."""
    made = counter.admin.key("shut")
    assert (401, "missing_api_key") == refused(counter.estimate(None, chat()))
    counter.admin.post("/teams/shut/block")
    blocked = counter.estimate(made["key"], b"no JSON")
    assert (403, "scope_blocked", "team") == (*refused(blocked), blocked.error["scope"])
    counter.admin.post("/teams/shut/unblock")
    counter.admin.post(f"/keys/{made['id']}/revoke")
    assert (401, "invalid_api_key") == refused(counter.estimate(made["key"], chat()))
    with stream(counter.gateway.url, ESTIMATE, b"", made["key"], method="GET") as answer:
        assert (405, "POST") == (answer.status, answer.headers["allow"])


def refused(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.error["code"]


def test_many_at_once_are_all_answered(counter: Counter) -> None:
    """They take turns at counting; with and without the slash."""
    key = counter.admin.key("crowd")["key"]
    with ThreadPoolExecutor(20) as pool:
        texts = [f"{LONG}{number}" for number in range(60)]
        paths = [ESTIMATE, ESTIMATE + "/"] * 30
        answers = list(pool.map(lambda text, path: send(counter.gateway.url, path, chat(text), key), texts, paths))
    assert {(True, None)} == {verdict(answer) for answer in answers}
