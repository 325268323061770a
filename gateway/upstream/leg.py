"""What sends one request upstream and yields its answer: the protocol, and its errors.

The rest of the gateway knows only this module, so the connection behind it can be exchanged. What matters for money is
said by the error: whether a byte of the request may have left (`NotSent` or not).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

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


class Stalled(BrokenOff):
    """Nothing more of it came in time."""


class CutOff(BrokenOff):
    """It was stopped by us: its `Cutoff` was struck."""


class Cutoff:
    """By which a call's wait for the upstream is ended from outside, once."""

    __slots__ = ("_act", "struck")

    def __init__(self) -> None:
        self.struck = False
        self._act: Callable[[], None] | None = None

    def strike(self) -> None:
        """Whoever waits hears of it: NotSent, AnswerTimeout or CutOff, by how far the call has come."""
        if not self.struck:
            self.struck = True
            if self._act is not None:
                self._act()

    def arm(self, act: Callable[[], None]) -> None:
        """For a leg: what is to be done from now on, should it be struck; at once where it has been."""
        self._act = act
        if self.struck:
            act()

    def disarm(self) -> None:
        """For a leg: nothing of its waits for this call any more."""
        self._act = None


class UpstreamRequest(NamedTuple):
    """One POST. `path` begins with a slash.

    `headers` are those that calls share, complete but for Host, Content-Length and the X-Request-Id of this one.
    """

    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    request_id: bytes
    body: bytes


class UpstreamAnswer(Protocol):
    """An answer whose head has arrived. It must be closed by the task that opened it, never cancelled."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Headers:
        """Names in lower case."""

    async def read(self) -> bytes:
        """What has arrived of the body since the last time, without transfer coding; waits for more, b"" at its end.

        Raises BrokenOff, or what of its kind it was.
        """

    def has_more(self) -> bool:
        """Whether more of the body is there already: `read` would not wait for it."""

    async def close(self) -> None:
        """Free the connection; safe at any point and more than once."""


class UpstreamLeg(Protocol):
    async def send(self, request: UpstreamRequest, cutoff: Cutoff) -> UpstreamAnswer:
        """Send the request once and wait for the head of the answer.

        Raises NotSent or NoAnswer, also when it is cut off; the answer's `read` then raises CutOff.
        """

    async def close(self) -> None: ...


async def whole(answer: UpstreamAnswer, bytes_max: int) -> bytes:
    """Read a body to its end. Raises BrokenOff: it ended early, or is above `bytes_max`."""
    parts, size = [], 0
    while chunk := await answer.read():
        parts.append(chunk)
        size += len(chunk)
        if size > bytes_max:
            raise BrokenOff("answer too large")
    return b"".join(parts)
