"""How and when the bytes of an answer go out; what they are is settled before (`shapes`).

The call's tokens are charged event by event, right before an event is written: a client that leaves pays for
what was generated until then, and generation stops.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable, Iterator

from gateway.emulator.answers import Event
from gateway.emulator.exchange import Exchange
from gateway.emulator.faults import Faults

DELIVERY_FAULTS = frozenset({"withhold_after", "gap", "reset_at", "reset_byte", "one_byte", "split", "gzip"})


class Gate:
    """Answers wait here until they are released."""

    def __init__(self) -> None:
        self.withheld = 0
        self.changed = asyncio.Event()
        self._opened = asyncio.Event()

    async def wait(self, exchange: Exchange) -> None:
        """Until the next release, or until the client leaves."""
        self._count(1)
        try:
            await exchange.until(self._opened)
        finally:
            self._count(-1)

    def release(self) -> int:
        """Let all that wait now go; those that come later wait for the next release. Returns how many go."""
        released = self.withheld
        self._opened.set()
        self._opened = asyncio.Event()
        return released

    def _count(self, change: int) -> None:
        self.withheld += change
        self.changed.set()
        self.changed = asyncio.Event()


async def hold_back(exchange: Exchange, faults: Faults, gate: Gate) -> None:
    """The faults before the first byte: `delay`, then `withhold`."""
    await exchange.pause(faults.seconds("delay"))
    if "withhold" in faults:
        await gate.wait(exchange)


async def deliver(
    exchange: Exchange,
    events: Iterable[Event],
    faults: Faults,
    gate: Gate,
    gap_s: float,
    generated: Callable[[Event], None],
) -> bool:
    """Write the events of a body whose headers are sent; True when it was ended properly.

    `generated` is called for each event before its bytes are written.
    """
    writer = _Writer(exchange, faults)
    withhold_after, reset_at = faults.integer("withhold_after"), faults.integer("reset_at")
    for index, event in enumerate(events):
        if index == reset_at:
            break
        if index == withhold_after:
            await gate.wait(exchange)
        elif index:
            await exchange.pause(gap_s)
        if exchange.left.is_set():
            return False
        generated(event)
        if not await writer.write(event.wire):
            break
    else:
        if await writer.end() and reset_at is None and "reset_byte" not in faults:
            await exchange.finish()
            return True
    exchange.break_off()
    return False


class _Writer:
    """Writes as `gzip`, `split`, `one_byte` and `reset_byte` ask."""

    def __init__(self, exchange: Exchange, faults: Faults) -> None:
        self._exchange = exchange
        self._piece_bytes = 1 if "one_byte" in faults else faults.integer("split")
        self._body_bytes_max = faults.integer("reset_byte")
        self._gzip = zlib.compressobj(wbits=31) if "gzip" in faults else None
        self._rest = b""
        self._written = False

    async def write(self, data: bytes) -> bool:
        """False when the connection is to be broken now."""
        if self._gzip is not None:
            data = self._gzip.compress(data) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
        return await self._send(self._pieces(data))

    async def end(self) -> bool:
        """Write what is still buffered; False as in `write`."""
        tail = self._gzip.flush() if self._gzip is not None else b""
        pieces = [*self._pieces(tail), self._rest] if self._piece_bytes else [tail]
        return await self._send(filter(None, pieces))

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        if self._piece_bytes is None:
            yield data
            return
        data = self._rest + data
        whole = len(data) - len(data) % self._piece_bytes
        self._rest = data[whole:]
        for start in range(0, whole, self._piece_bytes):
            yield data[start : start + self._piece_bytes]

    async def _send(self, pieces: Iterable[bytes]) -> bool:
        for piece in pieces:
            if self._written:
                # A turn of the loop between two writes: the bytes leave apart, and a client that leaves
                # is seen. None after the last, or a client content with [DONE] would count as gone.
                await asyncio.sleep(0)
            self._written = True
            if self._body_bytes_max is not None and self._exchange.sent_bytes + len(piece) > self._body_bytes_max:
                await self._exchange.write(piece[: self._body_bytes_max - self._exchange.sent_bytes])
                return False
            await self._exchange.write(piece)
        return True
