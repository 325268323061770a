"""One gateway a module under attack, and what must be as before afterwards."""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import redis

from gateway.store.embedded import EmbeddedRedis
from tests.e2e.client import CHAT, send
from tests.stack import Admin, Process, Stack, chat, running_stack


@dataclass
class Target:
    """A gateway that is attacked. It believes its proxies, which the tests are: each row comes from its own address,
    so that one row's wrong keys slow down no other row."""

    stack: Stack
    gateway: Process
    admin: Admin
    neighbour: str
    """The key of somebody who does no wrong."""
    http: httpx.Client
    _addresses: Iterator[str] = field(default_factory=lambda: (f"10.1.{n // 250}.{n % 250}" for n in itertools.count()))

    def from_elsewhere(self) -> dict[str, str]:
        """The header of somebody who comes from where nobody came from before."""
        return {"x-forwarded-for": next(self._addresses)}

    def ask(self, method: str, path: str, key: str | None = None, **options: Any) -> httpx.Response:
        """One request from an address of its own, unless its headers say another."""
        headers = self.from_elsewhere() | ({"authorization": f"Bearer {key}"} if key else {})
        headers |= options.pop("headers", {})
        self.http.cookies.clear()
        return self.http.request(method, path, headers=headers, **options)

    def calls_seen(self) -> int:
        """Requests that reached the upstream."""
        return len(self.stack.emulator.get("/__requests").json()["requests"])

    @contextlib.contextmanager
    def untouched(self) -> Iterator[None]:
        """Around an attack: nothing went upstream, nothing was booked or is held, and others are served as ever."""
        before = self.calls_seen(), self.stack.bill(), self.admin.ledger()
        yield
        assert before == (self.calls_seen(), self.stack.bill(), self.admin.ledger())
        assert [] == self.admin.get("/holds")["data"]
        assert 200 == send(self.gateway.url, CHAT, chat(), self.neighbour).status


@pytest.fixture(scope="module")
def target(valkey: EmbeddedRedis) -> Iterator[Target]:
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    with running_stack(valkey.url) as stack:
        gateway = stack.gateway(trusted_proxies="127.0.0.0/8")
        admin = Admin(gateway.url)
        with httpx.Client(base_url=gateway.url, limits=httpx.Limits(max_keepalive_connections=0), timeout=30) as http:
            yield Target(stack, gateway, admin, admin.key("neighbours", "nora")["key"], http)
        admin.http.close()
