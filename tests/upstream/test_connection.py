"""What our own connections do beyond what both legs promise."""

import asyncio

import pytest
import uvloop

from tests.upstream.test_legs import OK, body_of, leg_to, read_request, upstream


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_second_answer_behind_the_first_is_nobodys(loop_factory: type[asyncio.AbstractEventLoop]) -> None:
    """In one packet with the first: not a byte of it is passed on, and its connection is not used again."""
    connections = 0

    async def answers_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(OK + OK)
        await reader.read()

    async def story() -> None:
        async with upstream(answers_twice) as url, leg_to(url) as leg:
            assert [b"ok", b"ok"] == [await body_of(leg), await body_of(leg)]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(story())
    assert 2 == connections
