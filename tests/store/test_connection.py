"""Redis is refused where it could not keep books."""

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.asyncio import Redis as AsyncRedis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from gateway.store.connection import UnfitRedis, check_fit, open_redis
from gateway.store.embedded import EmbeddedRedis, server_program
from gateway.store.keys import SCHEMA, SCHEMA_VERSION
from tests.faults.proxy import RedisProxy


async def checked(url: str, password: str = "") -> None:
    client = open_redis(url, 2, password)
    try:
        await check_fit(client)
    finally:
        await client.aclose()


@contextlib.contextmanager
def server(folder: Path, *arguments: str, password: str | None = None) -> Iterator[str]:
    """A server with arguments of its own; its URL, without a password."""
    path = folder / "s"
    process = subprocess.Popen(
        [server_program(), "--port", "0", "--unixsocket", path, "--save", "", *arguments],
        stdout=subprocess.DEVNULL,
        cwd=folder,
    )
    url = f"unix://{path}"
    with redis.Redis.from_url(url, password=password, retry=Retry(ConstantBackoff(0.05), 400)) as client:
        client.ping()
    yield url
    process.terminate()
    process.wait(20)


@pytest.fixture
def evicting(tmp_path: Path) -> Iterator[str]:
    """A server that throws keys away when its memory is full."""
    with server(tmp_path, "--maxmemory-policy", "allkeys-lru") as url:
        yield url


@pytest.mark.parametrize(("query", "given"), [("", "open sesame"), ("?password=open%20sesame", "wrong")])
def test_a_password_is_the_urls_or_else_the_settings(tmp_path: Path, query: str, given: str) -> None:
    """A password in a file of its own need not be copied into a URL."""
    with server(tmp_path, "--requirepass", "open sesame", password="open sesame") as url:
        asyncio.run(checked(url + query, given))
        with pytest.raises(UnfitRedis, match="gives no answer"):
            asyncio.run(checked(url, "shut sesame"))


def test_an_evicting_redis_is_refused(evicting: str) -> None:
    """It would throw balances away when memory is short; the text says which setting is to be changed."""
    with pytest.raises(UnfitRedis, match=r"allkeys-lru.*noeviction"):
        asyncio.run(checked(evicting))
    with redis.Redis.from_url(evicting) as client:
        assert not client.exists(SCHEMA)


def test_books_of_another_schema_are_refused(redis_url: str) -> None:
    """Another version's packed strings, read as this version's, would be balances of noise. They stay as they are."""
    with redis.Redis.from_url(redis_url) as client:
        client.set(SCHEMA, "99")
        with pytest.raises(UnfitRedis, match="99"):
            asyncio.run(checked(redis_url))
        assert b"99" == client.get(SCHEMA)


def test_an_empty_redis_is_claimed_and_known_again(redis_url: str) -> None:
    """The schema's version is written from the first day."""
    for _ in range(2):
        asyncio.run(checked(redis_url))
    with redis.Redis.from_url(redis_url) as client:
        assert SCHEMA_VERSION.encode() == client.get(SCHEMA)


def test_a_redis_that_is_not_there_is_unfit(tmp_path: Path) -> None:
    """Nothing listens there; the text names the setting."""
    with pytest.raises(UnfitRedis, match="REDIS_URL"):
        asyncio.run(checked(f"unix://{tmp_path}/nobody.sock"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://localhost",
        "redis:/localhost",
        "redis://:secret@host:port",
        "redis://:secret@host?colour=red",
        "redis+sentinel://:secret@host",
        "redis+sentinel://:secret@host/main?colour=red",
        "rediss+cluster://:secret@host/1",
        "rediss+cluster://:secret@host?colour=red",
    ],
)
def test_a_url_of_another_form_is_refused(url: str) -> None:
    """The text says which forms there are, and repeats no URL: it may hold a password."""
    with pytest.raises(UnfitRedis, match="redis://") as refused:
        open_redis(url, 2)
    assert "secret" not in str(refused.value)


def test_a_redis_that_is_back_answers_at_once_however_many_connections_it_ended(valkey: EmbeddedRedis) -> None:
    """A pool that handed out the dead ones, one by one, would refuse as many calls as it had connections."""

    async def answers_of(client: AsyncRedis) -> list[object]:
        return await asyncio.gather(*(client.ping() for _ in range(8)), return_exceptions=True)

    async def before_and_after(proxy: RedisProxy) -> list[list[object]]:
        client = open_redis(proxy.url, 2)
        try:
            before = await answers_of(client)
            await asyncio.to_thread(proxy.refuse)  # this loop runs meanwhile, and hears of each end
            await asyncio.to_thread(proxy.accept)
            return [before, await answers_of(client)]
        finally:
            await client.aclose()

    with RedisProxy(Path(valkey.url.removeprefix("unix://"))) as proxy:
        assert [[True] * 8] * 2 == asyncio.run(before_and_after(proxy))
