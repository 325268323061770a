"""What was cut off or refused before its first byte was written is known to be unbilled."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from gateway.upstream.direct_leg import DirectLeg
from gateway.upstream.httpx_leg import HttpxLeg
from gateway.upstream.leg import Cutoff, NoAnswer, NotSent, UpstreamLeg, UpstreamRequest

both = pytest.mark.parametrize("leg_kind", [DirectLeg, HttpxLeg])

REQUEST = UpstreamRequest("/", ((b"content-type", b"application/json"),), b"req-1", b"{}")


@both
def test_a_cutoff_that_strikes_while_waiting_for_a_connection_sent_nothing(
    leg_kind: Callable[..., UpstreamLeg],
) -> None:
    """At the end of the grace time a queued call must be released, not booked: the pool's only connection is busy."""

    async def scenario() -> list[str]:
        seen: list[str] = []
        held = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            seen.append("request")
            held.set()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        leg = leg_kind(f"http://{host}:{port}", connect_timeout_s=30, answer_timeout_s=30, connections_max=1)
        busy = asyncio.create_task(leg.send(REQUEST, Cutoff()))
        await held.wait()
        cutoff = Cutoff()
        asyncio.get_running_loop().call_later(0.05, cutoff.strike)
        with pytest.raises(NotSent):
            await leg.send(REQUEST, cutoff)
        with pytest.raises(NotSent):
            await leg.send(REQUEST, cutoff)  # also who comes after it was struck
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)
        await leg.close()
        server.close()
        await server.wait_closed()
        return seen

    assert ["request"] == asyncio.run(scenario())


@both
def test_a_header_that_cannot_be_written_sent_nothing(leg_kind: Callable[..., UpstreamLeg]) -> None:
    """A key with a line break is refused on our side of the connection: that is no charge."""

    async def scenario() -> None:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        leg = leg_kind(f"http://{host}:{port}", connect_timeout_s=5, answer_timeout_s=5, connections_max=1)
        broken = UpstreamRequest("/", ((b"authorization", b"Bearer a\r\nb"),), b"req-1", b"{}")
        try:
            with pytest.raises(NotSent):
                await leg.send(broken, Cutoff())
            with pytest.raises(NoAnswer):
                await leg.send(REQUEST, Cutoff())
        finally:
            await leg.close()
            server.close()
            await server.wait_closed()

    asyncio.run(scenario())
