"""One gateway with an emulator behind it for the tests of each module; tests keep apart by their teams' names."""

from collections.abc import Iterator

import httpx
import pytest
import redis

from gateway.store.embedded import EmbeddedRedis
from tests.stack import Admin, Process, Stack, bearer, running_stack

METRICS_TOKEN = "metrics-token-for-tests"
Series = dict[str, float]


@pytest.fixture(scope="module")
def stack(valkey: EmbeddedRedis) -> Iterator[Stack]:
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    with running_stack(valkey.url) as one:
        yield one


@pytest.fixture(scope="module")
def gateway(stack: Stack) -> Process:
    """In Vietnam's time zone, so that local days are not UTC's; behind a proxy, which is whoever says an address."""
    return stack.gateway(timezone="Asia/Ho_Chi_Minh", metrics_token=METRICS_TOKEN, trusted_proxies="127.0.0.0/8")


@pytest.fixture(scope="module")
def admin(gateway: Process) -> Iterator[Admin]:
    one = Admin(gateway.url)
    yield one
    one.http.close()


def scraped(url: str) -> Series:
    """Every series of a scrape by its name and labels."""
    text = httpx.get(f"{url}/metrics", headers=bearer(METRICS_TOKEN), timeout=30).text
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(number) for name, number in pairs}
