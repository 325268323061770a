"""One stack a module: starting processes costs more than most tests that use them."""

from collections.abc import Iterator

import pytest
import redis

from gateway.store.embedded import EmbeddedRedis
from tests.stack import Stack, running_stack


@pytest.fixture(scope="module")
def stack(valkey: EmbeddedRedis) -> Iterator[Stack]:
    """An emulator on an emptied Valkey; each module starts the gateways it needs."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    with running_stack(valkey.url) as running:
        yield running
