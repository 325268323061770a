"""Connections to one upstream: kept alive, bounded in number, watched while they are idle."""

import asyncio
import ssl
from collections import deque

from gateway.upstream.connection import ARRIVALS_BYTES, Connection
from gateway.upstream.leg import NotSent, PoolExhausted


class Pool:
    """Lends connections, the one used last first, so that few are kept warm.

    At most `connections_max` are open; as many callers again may wait for one, each `connect_timeout_s` at most.
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        *,
        connect_timeout_s: float,
        silence_s: float,
        connections_max: int,
        address: str | None = None,
    ) -> None:
        """`address`: where the host is, for who has looked it up already."""
        self._host = host
        self._address = address or host
        self._port = port
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._silence_s = silence_s
        self._connections_max = connections_max
        self._idle: list[Connection] = []
        self._closed = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._open: set[Connection] = set()
        self._arrivals = memoryview(bytearray(ARRIVALS_BYTES))

    def lend_warm(self) -> Connection | None:
        """A connection that is open and idle, where there is one: most calls need not wait."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.abort()
        return None

    async def lend(self) -> Connection:
        """A connection that can be asked. Raises NotSent: it cannot be made; PoolExhausted: none becomes free."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._connect_timeout_s
        while True:
            connection = self.lend_warm()
            if connection is not None:
                return connection
            if len(self._open) < self._connections_max:
                return await self._connect(loop)
            await self._free_one(loop, deadline_s)

    def give_back(self, connection: Connection) -> None:
        """Its answer was read, or is left: it is kept if it can be asked again."""
        if not connection.finish():
            pass  # closed: `_lost` tells who waits
        elif self._closed:
            connection.abort()
        else:
            self._idle.append(connection)
            self._wake_one()

    async def close(self) -> None:
        """Close what is idle; what is in use closes when it is given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> Connection:
        connection = Connection(loop, self._silence_s, self._lost, self._arrivals)
        self._open.add(connection)
        name = self._host if self._tls else None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await loop.create_connection(
                    lambda: connection, self._address, self._port, ssl=self._tls, server_hostname=name
                )
        except (OSError, TimeoutError, ssl.SSLError) as error:
            raise NotSent(type(error).__name__) from error
        finally:
            # Whoever was cut off in between leaves a connection that nobody would close.
            if not connection.usable:
                connection.abort()
                self._lost(connection)
        return connection

    async def _free_one(self, loop: asyncio.AbstractEventLoop, deadline_s: float) -> None:
        if len(self._waiting) >= self._connections_max:
            raise PoolExhausted("too many wait for a connection")
        turn = loop.create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout_at(deadline_s):
                await turn
        except BaseException as error:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                self._wake_one()  # its turn came just as it gave up: the next one's
            if isinstance(error, TimeoutError):
                raise PoolExhausted("no free connection") from None
            raise

    def _lost(self, connection: Connection) -> None:
        """It is open no more; told perhaps twice."""
        self._open.discard(connection)
        self._idle = [idle for idle in self._idle if idle is not connection]
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
