"""The upstream leg on connections of our own: what a call costs here is what it costs (ADR 0023)."""

import asyncio
from urllib.parse import urlsplit

from gateway.upstream.connection import Connection, LostUnsent, head_of
from gateway.upstream.leg import Cutoff, Headers, NotSent, UpstreamRequest
from gateway.upstream.pool import Pool
from gateway.upstream.tls import verifying_context

_CUT_OFF_UNSENT = "cut off before it was sent"


class DirectLeg:
    """`UpstreamLeg` on one pool of connections to the host of `base_url` (TLS with verification for https)."""

    def __init__(
        self,
        base_url: str,
        *,
        connect_timeout_s: float,
        answer_timeout_s: float,
        connections_max: int,
        address: str | None = None,
    ) -> None:
        """`address`: where the host of `base_url` is, for who has looked it up already."""
        url = urlsplit(base_url)
        secure = url.scheme == "https"
        self._base_path = url.path.rstrip("/")
        self._host = url.netloc.encode("idna" if not url.netloc.isascii() else "ascii")
        self._shared_heads: dict[tuple[str, Headers], bytes] = {}
        self._pool = Pool(
            url.hostname or "",
            url.port or (443 if secure else 80),
            verifying_context() if secure else None,
            connect_timeout_s=connect_timeout_s,
            silence_s=answer_timeout_s,
            connections_max=connections_max,
            address=address,
        )

    async def send(self, request: UpstreamRequest, cutoff: Cutoff) -> "DirectAnswer":
        """Once more on another connection where this one was lost before it had taken the whole request."""
        path, headers, request_id, body = request
        shared = self._shared_heads.get((path, headers))
        if shared is None:
            shared = self._share_head(path, headers)
        own = b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (request_id, len(body))
        return await self._sent(shared + own + body, cutoff)

    async def ask(self, method: str, target: str, headers: Headers, body: bytes) -> "DirectAnswer":
        """The same for any method and target (path and query). Raises as `send`."""
        length = (b"content-length", b"%d" % len(body))
        head = head_of(method, target, self._host, [*headers, length])
        return await self._sent(head + b"\r\n" + body, Cutoff())

    async def close(self) -> None:
        await self._pool.close()

    def _share_head(self, path: str, headers: Headers) -> bytes:
        """The lines that all calls of a path and an organisation have in common. They are few, so all are kept."""
        head = head_of("POST", self._base_path + path, self._host, headers)
        self._shared_heads[path, tuple(headers)] = head
        return head

    async def _sent(self, request: bytes, cutoff: Cutoff) -> "DirectAnswer":
        try:
            return await self._send(request, cutoff)
        except LostUnsent:
            return await self._send(request, cutoff)

    async def _send(self, request: bytes, cutoff: Cutoff) -> "DirectAnswer":
        if cutoff.struck:
            raise NotSent(_CUT_OFF_UNSENT)
        connection = self._pool.lend_warm() or await self._lent(cutoff)
        try:
            connection.ask(request)
            cutoff.arm(connection.cut)
            await connection.answer_begun()
        except BaseException:
            connection.abort()
            self._pool.give_back(connection)
            raise
        return DirectAnswer(connection, self._pool, cutoff)

    async def _lent(self, cutoff: Cutoff) -> Connection:
        """A connection that must be waited for, or made."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as patience:
                cutoff.arm(lambda: patience.reschedule(loop.time()))
                return await self._pool.lend()
        except TimeoutError:
            raise NotSent(_CUT_OFF_UNSENT) from None


class DirectAnswer:
    def __init__(self, connection: Connection, pool: Pool, cutoff: Cutoff) -> None:
        self._connection: Connection | None = connection
        self._pool = pool
        self._cutoff = cutoff
        self.status = connection.status
        self.headers: Headers = connection.headers

    async def read(self) -> bytes:
        if self._connection is None:
            return b""
        chunk = await self._connection.read()
        if not chunk:
            self._free()  # the next call need not wait until this one is settled
        return chunk

    def has_more(self) -> bool:
        return self._connection is not None and self._connection.has_more()

    async def close(self) -> None:
        if self._connection is not None:
            self._free()

    def _free(self) -> None:
        connection, self._connection = self._connection, None
        self._cutoff.disarm()  # from here on the connection may be another call's
        if connection is not None:
            self._pool.give_back(connection)
