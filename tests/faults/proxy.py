"""A TCP proxy in front of Redis that loses, holds and delays what passes, so that a test can say where the wire breaks.

Each connection is carried command by command, in order: one is read whole and sent on, its reply is read whole and
given back. Several may be on their way at once; what is held keeps those behind it waiting. So a reply that is lost is
the reply of a command that Redis has carried out, and whoever is told that a fault has struck may rely on it.
"""

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from gateway.store.scripts import SCRIPTS, load

T = TypeVar("T")

Does = Literal["lose_reply", "hold_reply", "hold_command"]

_SCRIPT_OF = {load(name).digest: name for name in SCRIPTS}
_STRIKE_TIMEOUT_S = 20


@dataclass
class Fault:
    """What happens to the `nth` command of those `of` whose label is named, or of all but those `beside`.

    `lose_reply`: Redis has carried it out, and the connection closes in place of its reply. `hold_reply` and
    `hold_command` strike each from the nth on and last until `let_go`: they keep the reply, or the command itself
    before Redis sees it. A command whose sender has gone meanwhile never gets there.
    """

    does: Does
    nth: int = 1
    of: Collection[str] = ()
    beside: Collection[str] = ()
    struck: list[str] = field(default_factory=list)
    """Labels of the commands it struck."""
    seen: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def wait_until_struck(self, times: int = 1) -> None:
        """Returns once it has struck so often; a held reply is then in the proxy, a held command not yet in Redis."""
        with self._changed:
            in_time = self._changed.wait_for(lambda: len(self.struck) >= times, _STRIKE_TIMEOUT_S)
        assert in_time, f"struck {self.struck} of {self.seen} commands, not {times}"

    def meets(self, label: str) -> bool:
        """Count a command; whether the fault strikes it."""
        if label in self.beside or (self.of and label not in self.of):
            return False
        self.seen += 1
        return self.seen == self.nth if self.does == "lose_reply" else self.seen >= self.nth

    def strike(self, label: str) -> None:
        with self._changed:
            self.struck.append(label)
            self._changed.notify_all()


class RedisProxy:
    """Listens at `url` while the block runs. A label is a command's name, or its script's: "admit", "settle", "GET"."""

    def __init__(self, server_socket: Path) -> None:
        self.latency_s = 0.0
        """How long each reply is kept."""
        self.url = ""
        self._server_socket = server_socket
        self._fault: Fault | None = None
        self._refuses = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="redis-proxy", daemon=True)
        self._carrying: set[asyncio.Task[None]] = set()
        self._let_go = asyncio.Event()

    def __enter__(self) -> "RedisProxy":
        self._thread.start()
        server = self._do(asyncio.start_server(self._accepted, "127.0.0.1", 0))
        self._listener = server
        self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener_closed()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def strike(self, fault: Fault) -> Fault:
        """From now on; the fault before it strikes no more."""
        return self._call(lambda: self._arm(fault))

    def let_go(self) -> None:
        """What is held goes its way, and nothing more is struck."""
        self._call(self._disarm)

    def refuse(self) -> None:
        """All connections end, and every new one at once: Redis cannot be reached."""
        self._do(self._cut())

    def accept(self) -> None:
        """Redis can be reached again."""
        self._refuses = False

    def _arm(self, fault: Fault) -> Fault:
        self._disarm()
        self._fault = fault
        return fault

    def _disarm(self) -> None:
        self._fault = None
        self._let_go.set()
        self._let_go = asyncio.Event()

    async def _cut(self) -> None:
        self._refuses = True
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)
        await asyncio.sleep(0)  # a turn in which the sockets close

    def _listener_closed(self) -> None:
        self._listener.close()
        self._do(self._cut())
        self._do(self._listener.wait_closed())

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._carry(reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        task.add_done_callback(lambda _task: writer.transport.abort())  # also where it was cancelled before it began

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        to_server: asyncio.StreamWriter | None = None
        ways: list[asyncio.Task[None]] = []
        try:
            # Whatever ends a connection on one side ends it on the other, where something passes; else see `refuse`.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                server, to_server = await asyncio.open_unix_connection(self._server_socket)
                asked: asyncio.Queue[tuple[str, Fault | None]] = asyncio.Queue()
                held: asyncio.Queue[bytes] = asyncio.Queue()
                replies: asyncio.Queue[tuple[float, bytes, Fault | None]] = asyncio.Queue()
                ways = [
                    asyncio.create_task(way)
                    for way in (
                        self._commands(client, to_server, asked, held),
                        self._held_commands(client, to_server, held),
                        self._replies(server, asked, replies),
                        self._answers(to_client, replies),
                    )
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if to_server is not None:
                to_server.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _commands(
        self,
        client: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        asked: "asyncio.Queue[tuple[str, Fault | None]]",
        held: "asyncio.Queue[bytes]",
    ) -> None:
        """Read commands and send them on; one that is held, and those behind it, wait in `held`."""
        holding = False
        while True:
            command, label = await _command(client)
            fault = self._fault if self._fault is not None and self._fault.meets(label) else None
            asked.put_nowait((label, fault))
            if fault is not None and fault.does == "hold_command":
                holding = True
                fault.strike(label)
            if holding:
                held.put_nowait(command)
            else:
                to_server.write(command)

    async def _held_commands(
        self, client: asyncio.StreamReader, to_server: asyncio.StreamWriter, held: "asyncio.Queue[bytes]"
    ) -> None:
        """Send on what is held once it is let go, unless its sender has gone meanwhile."""
        while True:
            command = await held.get()
            if self._fault is not None and self._fault.does == "hold_command":
                await self._let_go.wait()
            if client.at_eof():
                return
            to_server.write(command)

    async def _replies(
        self,
        server: asyncio.StreamReader,
        asked: "asyncio.Queue[tuple[str, Fault | None]]",
        replies: "asyncio.Queue[tuple[float, bytes, Fault | None]]",
    ) -> None:
        """Read replies, each of the command that was asked longest ago; ends where one is lost."""
        while True:
            reply = await _value(server)
            label, fault = await asked.get()
            if fault is not None and fault.does != "hold_command":
                fault.strike(label)
                if fault.does == "lose_reply":
                    return
            replies.put_nowait((self._loop.time() + self.latency_s, reply, fault))

    async def _answers(
        self, to_client: asyncio.StreamWriter, replies: "asyncio.Queue[tuple[float, bytes, Fault | None]]"
    ) -> None:
        """Give replies back, in order; one that is held keeps those behind it."""
        while True:
            due_s, reply, fault = await replies.get()
            if fault is not None and fault.does == "hold_reply" and self._fault is fault:
                await self._let_go.wait()
            await asyncio.sleep(max(0.0, due_s - self._loop.time()))
            to_client.write(reply)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_STRIKE_TIMEOUT_S)

    def _call(self, work: Callable[[], T]) -> T:
        async def called() -> T:
            return work()

        return self._do(called())


async def _command(client: asyncio.StreamReader) -> tuple[bytes, str]:
    """One command as it stands on the wire, and its label."""
    head = await client.readuntil(b"\r\n")
    arguments = [await _value(client) for _ in range(int(head[1:]))]
    name = _text(arguments[0]).upper()
    if name == "EVALSHA":
        name = _SCRIPT_OF.get(_text(arguments[1]), name)
    elif name == "EVAL":
        digest = hashlib.sha1(_body(arguments[1]), usedforsecurity=False).hexdigest()
        name = _SCRIPT_OF.get(digest, name)
    return head + b"".join(arguments), name


async def _value(reader: asyncio.StreamReader) -> bytes:
    """One value of RESP 2 or 3 as it stands on the wire."""
    line = await reader.readuntil(b"\r\n")
    kind, length = line[:1], line[1:-2]
    if kind in (b"$", b"=", b"!"):
        return line + (await reader.readexactly(int(length) + 2) if int(length) >= 0 else b"")
    if kind in (b"*", b"~", b">", b"%"):
        values = max(0, int(length)) * (2 if kind == b"%" else 1)
        return line + b"".join([await _value(reader) for _ in range(values)])
    return line


def _body(value: bytes) -> bytes:
    return value.partition(b"\r\n")[2][:-2]


def _text(value: bytes) -> str:
    return _body(value).decode()
