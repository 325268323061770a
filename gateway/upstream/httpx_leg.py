"""The upstream leg on httpx.

httpx is told nothing it could do on its own: no redirects, no retries, no cookies, no default headers. Its trace
events say whether a request was begun to be written, which decides whether an unanswered call may have been billed.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, cast

import httpx

from gateway.upstream.leg import (
    AnswerTimeout,
    BrokenOff,
    CutOff,
    Cutoff,
    Headers,
    NoAnswer,
    NotSent,
    PoolExhausted,
    Stalled,
    UpstreamRequest,
)


class HttpxLeg:
    """`UpstreamLeg` on one `httpx.AsyncClient` (connection pool, TLS verification, HTTPS_PROXY)."""

    def __init__(
        self,
        base_url: str,
        *,
        connect_timeout_s: float,
        answer_timeout_s: float,
        connections_max: int,
    ) -> None:
        self._client = httpx.AsyncClient(
            base_url=base_url,
            follow_redirects=False,
            # A cookie set in one member's answer would go along with everyone else's calls.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=httpx.Timeout(answer_timeout_s, connect=connect_timeout_s, pool=connect_timeout_s),
            limits=httpx.Limits(max_connections=connections_max, max_keepalive_connections=connections_max),
        )
        # httpx would add its own Accept, Accept-Encoding and User-Agent to every request.
        self._client.headers.clear()

    async def send(self, request: UpstreamRequest, cutoff: Cutoff) -> "HttpxAnswer":
        progress = _Progress()
        prepared = self._client.build_request(
            "POST",
            request.path,
            headers=[*request.headers, (b"x-request-id", request.request_id)],
            content=request.body,
            extensions={"trace": progress.trace},
        )
        try:
            async with _unless(cutoff):
                response = await self._client.send(prepared, stream=True)
        except httpx.PoolTimeout as error:
            raise PoolExhausted("no free connection") from error
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
            raise NotSent(str(error)) from error  # refused on our side of the connection
        except TimeoutError:
            # Cut off: whether it may be billed depends on what was written by then.
            if not progress.writing:
                raise NotSent("cut off before it was sent") from None
            raise AnswerTimeout("cut off") from None
        except (httpx.TransportError, OSError) as error:
            reason = type(error).__name__
            if not progress.writing:
                raise NotSent(reason) from error
            raise (AnswerTimeout if isinstance(error, httpx.TimeoutException) else NoAnswer)(reason) from error
        return HttpxAnswer(response, cutoff)

    async def close(self) -> None:
        await self._client.aclose()


class HttpxAnswer:
    def __init__(self, response: httpx.Response, cutoff: Cutoff) -> None:
        self._response = response
        self._cutoff = cutoff
        self._chunks = cast(AsyncGenerator[bytes, None], response.aiter_raw())
        self.status = response.status_code
        self.headers: Headers = [(name.lower(), value) for name, value in response.headers.raw]

    async def read(self) -> bytes:
        try:
            async with _unless(self._cutoff):
                return await anext(self._chunks, b"")
        except TimeoutError:
            raise CutOff("cut off") from None
        except (httpx.TransportError, httpx.StreamError, OSError) as error:
            stopped = Stalled if isinstance(error, httpx.TimeoutException) else BrokenOff
            raise stopped(type(error).__name__) from error

    def has_more(self) -> bool:
        return False  # httpx does not say

    async def close(self) -> None:
        await self._chunks.aclose()
        await self._response.aclose()


@contextlib.asynccontextmanager
async def _unless(cutoff: Cutoff) -> AsyncIterator[None]:
    """Run a block that ends with TimeoutError once the cutoff is struck. httpx's own timeouts are no TimeoutError."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as patience:
        cutoff.arm(lambda: patience.reschedule(loop.time()))
        try:
            yield
        finally:
            cutoff.disarm()


class _Progress:
    """Notes when the first byte of a request is about to be written (to the upstream: a proxy's CONNECT is none)."""

    def __init__(self) -> None:
        self.writing = False

    async def trace(self, event: str, info: dict[str, Any]) -> None:
        if event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
            self.writing = True
