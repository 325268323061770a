"""What only a pool does: turns, and its end."""

import asyncio

import pytest

from gateway.upstream.leg import PoolExhausted
from gateway.upstream.pool import Pool
from tests.upstream.test_legs import OK, read_request, upstream


def pool_to(url: str, connections_max: int, connect_timeout_s: float = 5) -> Pool:
    host, port = url.removeprefix("http://").split(":")
    return Pool(
        host, int(port), None, connect_timeout_s=connect_timeout_s, silence_s=5, connections_max=connections_max
    )


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(OK)


def test_a_turn_that_comes_as_its_caller_gives_up_is_the_next_ones() -> None:
    """Else a connection would be free, and somebody would wait for it until their time is over."""

    async def story() -> None:
        async with upstream(answers) as url:
            pool = pool_to(url, 2)
            lent = [await pool.lend(), await pool.lend()]
            first, second = (asyncio.create_task(pool.lend()) for _ in range(2))
            await asyncio.sleep(0)
            lent[0].abort()
            pool._lost(lent[0])
            first.cancel()  # in the very turn of the loop in which a place became free for it
            (await second).abort()
            with pytest.raises(asyncio.CancelledError):
                await first
            await pool.close()
            lent[1].abort()

    asyncio.run(story())


def test_as_many_may_wait_as_there_may_be_connections() -> None:
    """The next one hears it at once."""

    async def story() -> None:
        async with upstream(answers) as url:
            pool = pool_to(url, 1)
            lent = await pool.lend()
            waiting = asyncio.create_task(pool.lend())
            await asyncio.sleep(0)
            with pytest.raises(PoolExhausted, match="too many"):
                await pool.lend()
            lent.abort()
            (await waiting).abort()
            await pool.close()

    asyncio.run(story())


def test_what_comes_back_to_a_closed_pool_is_closed() -> None:
    """A stream that outlived the pool leaves no connection behind."""

    async def story() -> None:
        async with upstream(answers) as url:
            pool = pool_to(url, 1)
            lent = await pool.lend()
            lent.ask(b'POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18\r\n\r\n{"model":"gpt-4o"}')
            await lent.answer_begun()
            assert b"ok" == await lent.read()
            await pool.close()
            pool.give_back(lent)
            assert not lent.usable

    asyncio.run(story())
