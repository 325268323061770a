"""What is httpx's alone: an outbound proxy, and that certificates are checked."""

import asyncio
import ssl

import pytest

from gateway.upstream.httpx_leg import HttpxLeg
from gateway.upstream.leg import Cutoff, NotSent
from tests.upstream.test_legs import REQUEST, upstream


def test_a_proxy_that_refuses_was_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its CONNECT is no request of the upstream's: nothing was billed, nothing is booked."""
    received: list[bytes] = []

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    async def story() -> None:
        async with upstream(refuses) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy)
            leg = HttpxLeg("https://upstream.invalid", connect_timeout_s=1, answer_timeout_s=1, connections_max=1)
            with pytest.raises(NotSent):
                await leg.send(REQUEST, Cutoff())
            await leg.close()

    asyncio.run(story())
    assert received[0].startswith(b"CONNECT upstream.invalid:443 ")
    assert b"sk-made-up" not in received[0]


def test_certificates_are_checked() -> None:
    """Else whoever stands between could read the organisation's key."""
    context = HttpxLeg("https://127.0.0.1", connect_timeout_s=1, answer_timeout_s=1, connections_max=1)
    pool = context._client._transport._pool  # type: ignore[attr-defined]  # httpx shows it nowhere else
    assert ssl.CERT_REQUIRED == pool._ssl_context.verify_mode
    assert pool._ssl_context.check_hostname
    asyncio.run(context.close())
