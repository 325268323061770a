"""What sends one request upstream and yields its answer: the protocol, and its errors.

The rest of the gateway knows only this module, so the connection behind it can be exchanged. What matters for money is
said by the error: whether a byte of the request may have left (`NotSent` or not).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

Headers = Sequence[tuple[bytes, bytes]]


class UpstreamFault(Exception):
    """The upstream gave no usable answer. `reason` is short and safe to log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotSent(UpstreamFault):
    """No byte of the request was written: it was not billed, its hold may be released."""


class PoolExhausted(NotSent):
    """All connections are in use and none became free in time."""


class NoAnswer(UpstreamFault):
    """The request was written, at least in part, and no answer came: it may have been billed."""


class AnswerTimeout(NoAnswer):
    """The same, because time ran out."""


class BrokenOff(UpstreamFault):
    """The answer began and then stopped before its end."""


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One POST. `path` begins with a slash; `headers` are complete but for Host and Content-Length."""

    path: str
    headers: Headers
    body: bytes


class UpstreamAnswer(Protocol):
    """An answer whose head has arrived. It must be closed by the task that opened it, never cancelled."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Headers:
        """Names in lower case."""

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body's bytes as they arrive, no transfer coding; close it. Raises BrokenOff."""

    async def close(self) -> None:
        """Free the connection; safe at any point and more than once."""


class UpstreamLeg(Protocol):
    async def send(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Send the request once and wait for the head of the answer.

        Raises NotSent or NoAnswer. A deadline around it that strikes before a byte was written becomes NotSent, too.
        """

    async def close(self) -> None: ...


async def whole(chunks: AsyncIterator[bytes], bytes_max: int) -> bytes:
    """Read a body to its end. Raises BrokenOff: it ended early, or is above `bytes_max`."""
    parts, size = [], 0
    async for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > bytes_max:
            raise BrokenOff("answer too large")
    return b"".join(parts)
