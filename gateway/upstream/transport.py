"""Our connections under httpx: for whoever wants httpx's comforts off the way of a call (ADR 0023)."""

from collections.abc import AsyncIterator

import httpx

from gateway.upstream.direct_leg import DirectAnswer, DirectLeg
from gateway.upstream.leg import AnswerTimeout, BrokenOff, NoAnswer, NotSent, PoolExhausted

_OURS = {"host", "content-length", "transfer-encoding", "connection"}


class DirectTransport(httpx.AsyncBaseTransport):
    """`httpx.AsyncClient(transport=DirectTransport(leg), base_url=…)`: any method, to the leg's own host alone."""

    def __init__(self, leg: DirectLeg) -> None:
        self._leg = leg

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.AsyncBaseTransport`. Raises httpx's own errors."""
        body = await request.aread()
        headers = [(name, value) for name, value in request.headers.raw if name.decode("latin-1").lower() not in _OURS]
        try:
            answer = await self._leg.ask(request.method, request.url.raw_path.decode("ascii"), headers, body)
        except PoolExhausted as fault:
            raise httpx.PoolTimeout(fault.reason, request=request) from fault
        except NotSent as fault:
            raise httpx.ConnectError(fault.reason, request=request) from fault
        except AnswerTimeout as fault:
            raise httpx.ReadTimeout(fault.reason, request=request) from fault
        except NoAnswer as fault:
            raise httpx.ReadError(fault.reason, request=request) from fault
        return httpx.Response(answer.status, headers=list(answer.headers), stream=_Body(answer))

    async def aclose(self) -> None:
        """Close the leg."""
        await self._leg.close()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: DirectAnswer) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while chunk := await self._answer.read():
                yield chunk
        except BrokenOff as fault:
            raise httpx.ReadError(fault.reason) from fault

    async def aclose(self) -> None:
        await self._answer.close()
