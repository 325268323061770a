"""Real servers for all tests: one Valkey for the session, emptied before each test that asks for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import settings

from gateway.store.embedded import EmbeddedRedis
from tests.store.strict import OneNodeCluster

settings.register_profile("long", max_examples=50 * settings().max_examples)
"""For runs by hand: `./run test PATH --hypothesis-profile=long`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--on-cluster",
        action="store_true",
        help="tests/store on a cluster of one node, where a script may touch only keys that it declares",
    )


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[EmbeddedRedis]:
    """A running Valkey, started the way the gateway starts its own."""
    kind = OneNodeCluster if pytestconfig.getoption("on_cluster") else EmbeddedRedis
    server = kind(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(valkey: EmbeddedRedis) -> str:
    """The URL of an empty Valkey."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    return valkey.url


@pytest.fixture
def repository() -> Path:
    """The checkout's root."""
    return Path(__file__).resolve().parent.parent
