"""Rate limits as clients meet them, through two gateways on one Redis."""

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import redis

from tests.e2e.client import CHAT, IMAGES, JOBS, Answer, send
from tests.stack import Admin, Process, Stack, bearer, chat

CALLERS = 200
AT_ONCE = 32
SHORT = chat("Hi [[fault:tokens=4]]", max_completion_tokens=4)
IMAGE = {"model": "realvision", "prompt": "A tree"}


@dataclass(frozen=True)
class Doors:
    """Two gateways and their administrator."""

    stack: Stack
    gateways: tuple[Process, Process]
    admin: Admin

    def send(self, path: str, body: object, key: str, number: int = 0) -> Answer:
        return send(self.gateways[number % 2].url, path, body, key)

    def many(self, path: str, body: object, key: str, calls: int) -> list[Answer]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda number: self.send(path, body, key, number), range(calls)))

    def now_ms(self) -> int:
        """Redis's clock: the one that limits go by."""
        with redis.Redis.from_url(self.stack.redis_url) as client:
            seconds, micros = client.time()
        return int(seconds) * 1000 + int(micros) // 1000


@pytest.fixture(scope="module")
def doors(stack: Stack) -> Doors:
    gateways = (stack.gateway(), stack.gateway())
    return Doors(stack, gateways, Admin(gateways[0].url))


@pytest.mark.parametrize(
    ("limit", "path", "body"), [("requests_per_minute", CHAT, SHORT), ("images_per_minute", IMAGES, IMAGE)]
)
def test_a_minutes_worth_passes_and_no_more(doors: Doors, limit: str, path: str, body: dict[str, Any]) -> None:
    """Two hundred calls through two gateways: the limit and its refill of the measured span are answered, all others
    told when to come back; only the answered calls are in the books, and another team's key feels nothing."""
    most = 40
    team = limit.replace("_", "-")
    key = doors.admin.key(team)["key"]
    doors.admin.patch(f"/teams/{team}", {"limits": {limit: most}})
    start_ms = doors.now_ms()
    answers = doors.many(path, body, key, CALLERS)
    refill = math.ceil((doors.now_ms() - start_ms) * most / 60_000)
    counted = Counter((answer.status, answer.error["code"] if answer.status != 200 else "") for answer in answers)
    assert {(200, ""), (429, "rate_limit_exceeded")} == set(counted)
    assert most <= counted[200, ""] <= most + refill
    assert counted[200, ""] == len(doors.admin.ledger(team=team))
    refused = next(answer for answer in answers if answer.status == 429)
    assert ("team", team, most) == tuple(refused.error[name] for name in ("scope", "id", "limit"))
    assert 1 <= int(refused.headers["retry-after"]) <= math.ceil(60 / most) + 1
    assert 200 == doors.send(path, body, doors.admin.key("others")["key"]).status


def test_calls_at_once_are_counted_over_all_gateways(doors: Doors) -> None:
    """Three run, withheld by the upstream; the rest is refused until one of them has ended."""
    key = doors.admin.key("at-once")["key"]
    doors.admin.patch("/teams/at-once", {"limits": {"concurrent_requests": 3}})
    withheld = chat("Hi [[fault:withhold;tokens=4]]", max_completion_tokens=4)
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(doors.send, CHAT, withheld, key, number) for number in range(3)]
        doors.stack.emulator.get("/__withheld", params={"at_least": "3"})
        refused = doors.send(CHAT, SHORT, key)
        assert (429, "concurrency_limit_exceeded") == (refused.status, refused.error["code"])
        doors.stack.emulator.post("/__release")
        assert [200, 200, 200] == [call.result().status for call in running]
    assert 200 == doors.send(CHAT, SHORT, key).status


def test_tokens_are_counted_where_bytes_are_too_many(doors: Doors) -> None:
    """A prompt's bytes are above the limit and its tokens are not: it is counted, and passes; a longer one is told that
    it could never pass."""
    key = doors.admin.key("tokens")["key"]
    doors.admin.patch("/teams/tokens", {"limits": {"tokens_per_minute": 200}})
    words = chat("word " * 100 + "[[fault:tokens=4]]", max_completion_tokens=4)
    answer = doors.send(CHAT, words, key)
    assert 200 == answer.status
    told = {name: value for name, value in answer.headers.items() if name.endswith("-tokens")}
    assert {"x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"} == set(told)
    assert "200" == told["x-ratelimit-limit-tokens"]
    answer = doors.send(CHAT, chat("word " * 300), key)
    assert (400, "request_exceeds_limit") == (answer.status, answer.error["code"])


def test_every_answer_tells_what_is_left(doors: Doors) -> None:
    """Answered, refused and polled alike; only what has a limit behind it; of several scopes the tightest."""
    budget = [{"window": "month", "limit_usd": "1.00"}]
    key = doors.admin.key("told", "teller", limits={"requests_per_minute": 60}, budgets=budget)["key"]
    answer = doors.send(CHAT, SHORT, key)
    assert ("60", "59", "1s") == tuple(
        answer.headers[f"x-ratelimit-{name}-requests"] for name in ("limit", "remaining", "reset")
    )
    assert "x-ratelimit-limit-tokens" not in answer.headers
    hold, left = answer.headers["x-gateway-hold-usd"], answer.headers["x-gateway-budget-remaining-usd"]
    assert 1_000_000_000 == nano(hold) + nano(left)
    image = doors.send(IMAGES, IMAGE, key)
    assert "0.0015" == image.headers["x-gateway-cost-usd"]
    poll = doors.send(JOBS, {name: image.json[name] for name in ("jobid", "signature")}, key)
    refused = doors.send(CHAT, {"model": "gpt-4o-mini"}, key)
    assert (200, 400) == (poll.status, refused.status)
    for other in (image, poll, refused):
        assert "58" == other.headers["x-ratelimit-remaining-requests"]
        assert nano(other.headers["x-gateway-budget-remaining-usd"]) < 1_000_000_000
    me = httpx.get(f"{doors.gateways[0].url}/v1/me", headers=bearer(key)).json()
    (own,) = [scope for scope in me["scopes"] if scope["scope"] == "key"]
    assert (60, 58) == tuple(own["limits"]["requests_per_minute"][name] for name in ("limit", "remaining"))


def nano(usd: str) -> int:
    whole, _, fraction = usd.partition(".")
    return int(whole) * 1_000_000_000 + int(fraction.ljust(9, "0"))
