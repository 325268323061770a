"""Scripts on one connection that all calls share: what two of them a call cost is what they cost (ADR 0024).

redis-py opens the connection (address, TLS, AUTH, HELLO; behind Sentinel or in a cluster to whoever is the master) and
would then spend more on each command than the call itself. From there on it is ours: commands of one turn of the loop
leave in one write, replies are parsed by hiredis and belong, in their order, to the commands. A caller that stops
waiting leaves its place in that order: its reply is dropped when it comes, and poisons nobody's.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import MovedError, RedisError, ResponseError

from gateway.store.scripts import Argument, Begun, Reply, Script, TranslatedFaults, unavailable
from gateway.store.topology import MISDIRECTED, FollowingPool

_DEAD_AFTER = 3
"""So many timeouts without any reply, and the connection is given up."""
_NOT_YET: Any = object()


class MultiplexedScripts:
    """`ScriptRunner` and `ScriptSender` on one connection, made anew when it is lost.

    Nothing is sent twice by itself but what Redis has refused for not knowing the script, or for not being the master.
    """

    def __init__(
        self, redis: Redis, timeout_s: float, observe: Callable[[str, float], None] = lambda _name, _seconds: None
    ) -> None:
        """`observe` is told of every run: the script's name, and seconds until its reply or the end of waiting."""
        self._redis = redis
        self._timeout_s = timeout_s
        self._observe = observe
        self._link: Link | None = None
        self._connecting: asyncio.Task[Link] | None = None

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        """See `ScriptRunner.run`."""
        began_s = time.perf_counter()
        try:
            link = self._link
            if link is None or not link.is_open:
                link = await self._connected()
            reply = await link.send(_packed("EVALSHA", script.digest, len(keys), *keys, *args))
            if isinstance(reply, hiredis.ReplyError):
                reply = await self._sent_again(link, str(reply), script, keys, args)
        except LinkLost as error:
            raise unavailable(error, maybe_applied=error.maybe_applied) from error
        finally:
            self._observe(script.name, time.perf_counter() - began_s)
        return cast(Reply, reply) if isinstance(reply, list) else [reply]

    def begin(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Begun | None:
        """See `ScriptSender.begin`."""
        link = self._link
        if link is None or not link.is_open:
            return None
        began_s = time.perf_counter()
        return Begun(link.send(_packed("EVALSHA", script.digest, len(keys), *keys, *args)), script, began_s)

    def ended(self, begun: Begun) -> Reply | None:
        """See `ScriptSender.ended`."""
        self._observe(begun.script.name, time.perf_counter() - begun.began_s)
        if begun.reply.exception() is not None:
            return None
        reply = begun.reply.result()
        return reply if isinstance(reply, list) else None

    async def get(self, key: str) -> bytes | None:
        """Read a string as one command among the scripts. Raises LedgerUnavailable."""
        link = self._link
        if link is not None and link.is_open:
            with contextlib.suppress(LinkLost):
                value = await link.send(_packed("GET", key))
                if value is None or isinstance(value, bytes):
                    return value
        # A read may be asked again: redis-py connects anew, and follows who is the master.
        with TranslatedFaults():
            return cast(bytes | None, await self._redis.get(key))

    async def close(self) -> None:
        """Close the connection; a call that waits for its reply hears that the ledger is away."""
        if self._connecting is not None:
            await asyncio.wait({self._connecting})
        if self._link is not None:
            self._link.abort()

    async def _sent_again(
        self, link: "Link", refusal: str, script: Script, keys: Sequence[str], args: Sequence[Argument]
    ) -> object:
        """The reply to a script that was refused, once the reason is gone. Raises LedgerUnavailable: it stays."""
        told_source = redirected = False
        while True:
            if refusal.startswith("NOSCRIPT") and not told_source:
                told_source = True  # restarted, flushed, or another server: it is told the source once
            elif refusal.startswith(MISDIRECTED) and not redirected:
                redirected = True
                link = await self._redirected(link, refusal)
            else:
                # Redis read the command and said no: it is loading, full, half moved, or the script itself refused.
                raise unavailable(ResponseError(refusal), maybe_applied=False)
            start = ("EVAL", script.source) if told_source else ("EVALSHA", script.digest)
            reply = await link.send(_packed(*start, len(keys), *keys, *args))
            if not isinstance(reply, hiredis.ReplyError):
                return reply
            refusal = str(reply)

    async def _redirected(self, link: "Link", refusal: str) -> "Link":
        """The link to whoever is the master now; those who wait on the old one are still told what came of theirs."""
        if link.is_open:
            link.retire()
            pool = self._redis.connection_pool
            if isinstance(pool, FollowingPool):
                moved = refusal.startswith("MOVED ")
                pool.topology.doubt(MovedError(refusal.removeprefix("MOVED ")) if moved else None)
        current = self._link
        return current if current is not None and current.is_open else await self._connected()

    async def _connected(self) -> "Link":
        """The link, made by whoever comes first; the others wait for the same. Raises LedgerUnavailable."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(self._connect_ended)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(self._connecting)
        except (RedisError, OSError, TimeoutError) as error:
            raise unavailable(error, maybe_applied=False) from error

    async def _connect(self) -> "Link":
        connection: AbstractConnection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()  # type: ignore[no-untyped-call]
        self._link = Link(connection, self._timeout_s)
        return self._link

    def _connect_ended(self, task: "asyncio.Task[Link]") -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # whoever waited was told


def _packed(*command: Argument) -> bytes:
    return cast(bytes, hiredis.pack_command(command))  # type: ignore[arg-type]  # its stubs mean a tuple of one


class LinkLost(ConnectionError):
    """The connection ended, or gave no reply in time. `maybe_applied`: the command may have been carried out."""

    def __init__(self, reason: str, *, maybe_applied: bool) -> None:
        super().__init__(reason)
        self.maybe_applied = maybe_applied


class Link(asyncio.Protocol):
    """One open connection, taken over from redis-py: commands in, replies out, in order.

    What a command costs here is its future. One that finds nothing on its way leaves at once, others with those
    of the same turn of the loop. Time is kept by write: all that left together are late together.
    """

    def __init__(self, connection: AbstractConnection, timeout_s: float) -> None:
        self.is_open = True
        """False: nothing more is sent here."""
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._owed: deque[asyncio.Future[object]] = deque()
        self._outgoing: list[bytes] = []
        self._sent = self._answered = 0
        """Commands, since the connection was made."""
        self._writes: deque[tuple[float, int]] = deque()
        """For each write not answered whole: when its replies are late, and how many commands had left by it."""
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at_s = self._loop.time()
        self._lost = False
        transport = cast(Any, connection)._writer.transport  # redis-py offers no other way to its transport
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_protocol(self)

    def send(self, command: bytes) -> "asyncio.Future[object]":
        """The reply of a packed command; an error reply is a value. Raises LinkLost, by the future."""
        reply: asyncio.Future[object] = self._loop.create_future()
        if self._lost or self._transport.is_closing():
            reply.set_exception(LinkLost("the connection was closed", maybe_applied=False))
            return reply
        idle = not self._owed
        self._outgoing.append(command)
        self._owed.append(reply)
        if idle:
            self._flush()  # nothing is on its way, so nothing will come soon to leave with it
        elif len(self._outgoing) == 1:
            self._loop.call_soon(self._flush)
        return reply

    def retire(self) -> None:
        """Take nothing new, and close once every reply that is owed has come."""
        self.is_open = False
        if not self._owed:
            self.abort()

    def abort(self) -> None:
        """Close at once; all that wait hear LinkLost."""
        self._lose("the connection was given up")
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._heard_at_s = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOT_YET:
                self._take(reply)
        except (hiredis.ProtocolError, IndexError):
            self.abort()
        while self._writes and self._writes[0][1] <= self._answered:
            self._writes.popleft()
        if not self.is_open and not self._owed:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(type(error).__name__ if error else "the connection was closed")

    def pause_writing(self) -> None:
        """Nothing to do: what waits to be written is bounded by the calls that wait for a reply."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def _flush(self) -> None:
        if self._lost or not self._outgoing:
            return
        now_s = self._loop.time()
        late_at_s = now_s + self._timeout_s
        if len(self._owed) == len(self._outgoing):
            self._heard_at_s = now_s  # there was nothing to be heard of until now
        self._sent += len(self._outgoing)
        self._writes.append((late_at_s, self._sent))
        if self._timer is None:
            self._timer = self._loop.call_at(late_at_s, self._expire)
        data = self._outgoing[0] if len(self._outgoing) == 1 else b"".join(self._outgoing)
        self._outgoing.clear()
        self._transport.write(data)

    def _take(self, reply: object) -> None:
        if isinstance(reply, hiredis.PushNotification):
            return  # no answer to anything
        future = self._owed.popleft()
        self._answered += 1
        if not future.done():
            future.set_result(reply)

    def _expire(self) -> None:
        """One timer for all: those whose time is over are told, and keep their place among the replies."""
        now_s, late = self._loop.time(), 0
        while self._writes and self._writes[0][0] <= now_s:
            late = self._writes.popleft()[1] - self._answered
        for reply in islice(self._owed, late):
            if not reply.done():
                reply.set_exception(LinkLost("no reply in time", maybe_applied=True))
        self._timer = None
        if self._owed and now_s - self._heard_at_s > _DEAD_AFTER * self._timeout_s:
            self.abort()
        elif self._owed:
            next_s = self._writes[0][0] if self._writes else now_s + self._timeout_s
            self._timer = self._loop.call_at(next_s, self._expire)

    def _lose(self, reason: str) -> None:
        self.is_open = False
        if not self._lost:
            self._lost = True
            cast(Any, self._connection)._close()  # at once, without waiting for a stream that is not read any more
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sent = len(self._owed) - len(self._outgoing)
        for number, reply in enumerate(self._owed):
            if not reply.done():
                reply.set_exception(LinkLost(reason, maybe_applied=number < sent))
        self._outgoing.clear()
        self._owed.clear()
        self._writes.clear()
