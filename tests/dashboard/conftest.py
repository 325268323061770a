"""One gateway with an emulator behind it, and visitors who come with cookies as browsers do."""

import re
from collections.abc import Iterator

import httpx
import pytest
import redis

from gateway.store.embedded import EmbeddedRedis
from tests.stack import Admin, Process, Stack, running_stack


class Visit:
    """Somebody at the dashboard. No connection is kept, so that nobody has to close one."""

    def __init__(self, url: str, **headers: str) -> None:
        self.http = httpx.Client(
            base_url=url, limits=httpx.Limits(max_keepalive_connections=0), headers=headers, timeout=30
        )

    def log_in(self, key: str) -> httpx.Response:
        return self.http.post("/dashboard/login", data={"key": key})

    def page(self, path: str = "", **params: str) -> str:
        """The HTML of a page that is there for this visitor."""
        response = self.http.get(f"/dashboard{path}", params=params)
        assert (200, "text/html; charset=utf-8") == (response.status_code, response.headers["content-type"])
        return response.text


def logged_in(url: str, key: str, **headers: str) -> Visit:
    visit = Visit(url, **headers)
    answer = visit.log_in(key)
    assert (303, "/dashboard") == (answer.status_code, answer.headers["location"]), answer.text
    return visit


def nano_usd_in(html: str, pattern: str) -> list[int]:
    """The exact amounts within the first part of a page that a pattern fits."""
    found = re.search(pattern, html, re.DOTALL)
    assert found is not None, f"no {pattern} in {html}"
    return [int(amount) for amount in re.findall(r'data-nano="(-?\d+)"', found[0])]


@pytest.fixture(scope="module")
def stack(valkey: EmbeddedRedis) -> Iterator[Stack]:
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    with running_stack(valkey.url) as one:
        yield one


@pytest.fixture(scope="module")
def gateway(stack: Stack) -> Process:
    """In Vietnam's time zone, so that local days are not UTC's."""
    return stack.gateway(timezone="Asia/Ho_Chi_Minh")


@pytest.fixture(scope="module")
def admin(gateway: Process) -> Iterator[Admin]:
    one = Admin(gateway.url)
    yield one
    one.http.close()
