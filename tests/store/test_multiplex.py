"""The shared connection: every caller gets its own reply, whatever becomes of the others and of the connection."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from redis.asyncio import Redis

from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import violations
from gateway.store.connection import open_redis
from gateway.store.embedded import EmbeddedRedis
from gateway.store.ledger import Ledger
from gateway.store.multiplex import MultiplexedScripts
from gateway.store.scripts import Script
from tests.store.bench import RED, Bench, capture

T = TypeVar("T")

ECHO = Script("echo", "return {ARGV[1]}", "6ca6fa45e9a0a3e5e8f4d8c8f6c3a3f0f1c7d3c7")
COUNT = Script("count", "return {redis.call('INCR', KEYS[1])}", "0" * 40)
REFUSE = Script("refuse", "return redis.error_reply('NO thank you')", "1" * 40)


def with_scripts(url: str, work: Callable[[MultiplexedScripts, Redis], Awaitable[T]], timeout_s: float = 5) -> T:
    async def run() -> T:
        redis = open_redis(url, timeout_s)
        scripts = MultiplexedScripts(redis, timeout_s)
        try:
            return await work(scripts, redis)
        finally:
            await scripts.close()
            await redis.aclose()

    return asyncio.run(run())


async def until_answered(scripts: MultiplexedScripts, text: str) -> object:
    """On a busy machine connecting may take longer than the short time a test allows."""
    while True:
        with contextlib.suppress(LedgerUnavailable):
            return await scripts.run(ECHO, [], [text])


def test_a_string_is_read_among_the_scripts_and_also_without_a_connection(redis_url: str) -> None:
    """Who a key belongs to is asked once, by whatever call comes first; a connection that is gone costs it nothing."""

    async def work(scripts: MultiplexedScripts, redis: Redis) -> None:
        await redis.set("owner", b"x")
        assert b"x" == await scripts.get("owner")  # nothing is connected yet
        await scripts.run(ECHO, [], ["connects"])
        told = await asyncio.gather(scripts.get("owner"), scripts.run(ECHO, [], ["text"]), scripts.get("nobody"))
        assert (b"x", [b"text"], None) == tuple(told)
        await redis.lpush("list", "no string")
        with pytest.raises(LedgerUnavailable):
            await scripts.get("list")
        await scripts.close()
        assert b"x" == await scripts.get("owner")

    with_scripts(redis_url, work)


def test_everyone_gets_the_reply_that_is_theirs(redis_url: str) -> None:
    """A thousand at once on one connection, some of whom leave before their reply has come."""

    async def work(scripts: MultiplexedScripts, redis: Redis) -> None:
        running = [asyncio.create_task(scripts.run(ECHO, [], [f"n{number}"])) for number in range(1000)]
        await asyncio.sleep(0)
        for task in running[::7]:
            task.cancel()
        replies = await asyncio.gather(*running, return_exceptions=True)
        for number, reply in enumerate(replies):
            if number % 7:
                assert [f"n{number}".encode()] == reply
        assert [b"after"] == await scripts.run(ECHO, [], ["after"])
        assert 2 == len(await redis.client_list())

    with_scripts(redis_url, work)


def test_a_script_that_is_not_known_is_told_once(redis_url: str) -> None:
    """By its source, and run once all the same: after a restart, a failover or SCRIPT FLUSH."""

    async def work(scripts: MultiplexedScripts, redis: Redis) -> None:
        assert [1] == await scripts.run(COUNT, ["{t}"], [])
        await redis.script_flush()
        assert [2] == await scripts.run(COUNT, ["{t}"], [])

    with_scripts(redis_url, work)


def test_a_refusal_is_known_not_to_be_applied(redis_url: str) -> None:
    """Redis read the command and said no; the connection stays."""

    async def work(scripts: MultiplexedScripts, _redis: Redis) -> None:
        with pytest.raises(LedgerUnavailable) as refused:
            await scripts.run(REFUSE, [], [])
        assert not refused.value.maybe_applied
        assert [b"x"] == await scripts.run(ECHO, [], ["x"])

    with_scripts(redis_url, work)


def test_a_late_reply_is_nobody_elses(redis_url: str, valkey: EmbeddedRedis) -> None:
    """Redis stands still for longer than its time: the callers are told, and what comes late is dropped."""
    pid = valkey.pid
    assert pid is not None

    async def work(scripts: MultiplexedScripts, _redis: Redis) -> None:
        assert [b"x"] == await scripts.run(ECHO, [], ["x"])
        os.kill(pid, signal.SIGSTOP)
        try:
            late = await asyncio.gather(
                *(scripts.run(ECHO, [], [f"late{number}"]) for number in range(5)), return_exceptions=True
            )
        finally:
            os.kill(pid, signal.SIGCONT)
        for fault in late:
            assert isinstance(fault, LedgerUnavailable)
            assert fault.maybe_applied
        replies = await asyncio.gather(*(scripts.run(ECHO, [], [f"n{number}"]) for number in range(5)))
        assert [[f"n{number}".encode()] for number in range(5)] == replies

    with_scripts(redis_url, work, timeout_s=0.5)


def test_a_redis_that_stands_still_for_long_is_connected_to_anew(redis_url: str, valkey: EmbeddedRedis) -> None:
    """A connection whose other side is gone without a word gives no reply for ever."""
    pid = valkey.pid
    assert pid is not None

    async def work(scripts: MultiplexedScripts, _redis: Redis) -> None:
        assert [b"x"] == await scripts.run(ECHO, [], ["x"])
        first = scripts._link
        os.kill(pid, signal.SIGSTOP)
        try:
            while first is not None and first.is_open:
                with pytest.raises(LedgerUnavailable):
                    await scripts.run(ECHO, [], ["y"])
        finally:
            os.kill(pid, signal.SIGCONT)
        assert [b"z"] == await until_answered(scripts, "z")
        assert first is not scripts._link

    with_scripts(redis_url, work, timeout_s=0.05)


def test_a_server_that_dies_and_comes_back(tmp_path: Path) -> None:
    """All that waited are told, whether their command had left or not; the next call connects, once for all."""
    server = EmbeddedRedis(tmp_path)
    server.start()

    async def work(scripts: MultiplexedScripts, redis: Redis) -> None:
        assert [b"x"] == await scripts.run(ECHO, [], ["x"])
        server.stop()
        with pytest.raises(LedgerUnavailable) as away:
            await scripts.run(ECHO, [], ["y"])
        with pytest.raises(LedgerUnavailable) as away:
            await scripts.run(ECHO, [], ["y"])
        assert not away.value.maybe_applied
        server.start()
        replies = await asyncio.gather(*(scripts.run(ECHO, [], ["z"]) for _ in range(50)))
        assert [[b"z"]] * 50 == replies
        assert 2 == len(await redis.client_list())

    try:
        with_scripts(server.url, work)
    finally:
        server.stop()


def test_the_ledger_is_right_on_it(bench: Bench) -> None:
    """Admissions and settlements of many at once, through one connection."""
    scripts = MultiplexedScripts(bench.redis, 5)
    ledger = Ledger(bench.redis, scripts, bench.calendar, 30)

    async def one_call(number: int) -> None:
        request = bench.call(40, hold_id=f"m{number}")
        await ledger.admit(request)
        await ledger.settle(request, capture(number % 40))

    bench.together([one_call(number) for number in range(200)])
    assert (sum(number % 40 for number in range(200)), 0) == bench.spent_and_held(RED)
    assert [] == violations(bench.books())
    bench.run(scripts.close())


def test_a_password_is_told_by_redis_py(redis_url: str, bench: Bench) -> None:
    """Who may do what is the server's business: a user of its own logs in as with redis-py, and is refused the same."""
    bench.run(
        bench.redis.acl_setuser("teller", enabled=True, passwords=["+made-up"], categories=["+@all"], keys=["t*"])
    )
    url = redis_url.replace("unix://", "unix://teller:made-up@")

    async def work(scripts: MultiplexedScripts, _redis: Redis) -> None:
        assert [1] == await scripts.run(COUNT, ["t"], [])
        with pytest.raises(LedgerUnavailable):
            await scripts.run(COUNT, ["other"], [])

    try:
        with_scripts(url, work)
    finally:
        bench.run(bench.redis.acl_deluser("teller"))
