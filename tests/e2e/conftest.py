"""One stack a module: starting processes costs more than most tests that use them."""

from collections.abc import Iterator

import pytest
import redis

from gateway.store.embedded import EmbeddedRedis
from tests.e2e.openai_face import Face
from tests.stack import Admin, Stack, running_stack


@pytest.fixture(scope="module")
def stack(valkey: EmbeddedRedis) -> Iterator[Stack]:
    """An emulator on an emptied Valkey; each module starts the gateways it needs."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    with running_stack(valkey.url) as running:
        yield running


@pytest.fixture(scope="module")
def face(stack: Stack) -> Iterator[Face]:
    """A gateway for the clients of OpenAI's API."""
    gateway = stack.gateway()
    admin = Admin(gateway.url)
    yield Face(stack, gateway, admin)
    admin.http.close()
