"""A session is found by its token alone, and ends when it is told to or when its time is over."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from gateway.store.connection import open_redis
from gateway.store.keys import Keys
from gateway.store.sessions import SESSION_S, Sessions

T = TypeVar("T")


def with_sessions(url: str, work: Callable[[Sessions], Awaitable[T]]) -> T:
    async def run() -> T:
        redis = open_redis(url, 2)
        try:
            return await work(Sessions(redis))
        finally:
            await redis.aclose()

    return asyncio.run(run())


def test_a_session_stands_for_its_key_until_it_is_closed(redis_url: str) -> None:
    """Each login has one of its own: to end one ends no other."""

    async def scenario(sessions: Sessions) -> None:
        first, second = await sessions.open("acme", "digest"), await sessions.open("acme", "digest")
        assert first != second
        assert ("acme", "digest") == await sessions.find(first)
        await sessions.close(first)
        await sessions.close(first)
        assert [None, ("acme", "digest")] == [await sessions.find(token) for token in (first, second)]
        _, _, secret = second.partition(".")
        assert None is await sessions.find(f"other.{secret}")

    with_sessions(redis_url, scenario)


def test_a_session_ends_by_itself(redis_url: str) -> None:
    """A browser that is never closed keeps nobody logged in for ever."""

    async def scenario(sessions: Sessions) -> int:
        await sessions.open("acme", "digest")
        redis = sessions._redis
        (name,) = [key async for key in redis.scan_iter(Keys("acme").session("*"))]
        return int(await redis.ttl(name))

    assert SESSION_S - 60 < with_sessions(redis_url, scenario) <= SESSION_S


@pytest.mark.parametrize(
    "token", ["", ".", "acme.", "acme." + "x" * 42, "acme." + "x" * 44, "{a}." + "x" * 43, "é." + "x" * 43]
)
def test_what_is_no_token_is_not_looked_up(redis_url: str, token: str) -> None:
    """It must never become part of a key."""

    async def scenario(sessions: Sessions) -> None:
        assert None is await sessions.find(token)
        await sessions.close(token)

    with_sessions(redis_url, scenario)
