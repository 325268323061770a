"""Searches through everybody's books by whoever reaches few of them: they take turns.

Who reaches one team or one key has no list of their own entries: they are looked for among all. That takes a second for
each 25,000 entries or so.

Laws:
- A process reads for one search at a time, a piece of it, and then for the next home's (`Reach.home`).
- A home has one search at a time. Up to `WAITING_MAX` of its requests wait behind it, and further ones are refused.
- So another home's search takes as many times longer as homes are searching, however many requests each has sent.
- Nothing is read for who has left, nor for who has closed their half of the connection: so do nearly all who leave.
- Who reaches the whole organisation reads what they asked for, and waits for nobody.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from starlette.requests import Request

from gateway.billing.errors import ConcurrencyLimitExceeded, InvalidRequest
from gateway.billing.principal import Scope
from gateway.store.ledger import Between, go_on
from gateway.web.exchange import ClientLeft

Check = Callable[[], Awaitable[None]]
"""Raises what ends a search that nobody waits for."""

WAITING_MAX = 4
_RETRY_AFTER_S = 1
_HALF_CLOSED = (
    "The sending half of this connection was closed, which counts as leaving where everybody's entries are to be "
    "searched. Keep it open until the answer is there."
)
_TOO_MANY = (
    "This needs a search through everybody's entries, and more of yours are under way than may wait for one another: "
    "one is made at a time. Wait for their answers."
)


async def check_there(request: Request) -> None:
    """Raises ClientLeft; InvalidRequest: they have closed their half of the connection."""
    if await request.is_disconnected():
        raise ClientLeft
    if request.state.connection.is_half_closed:
        raise InvalidRequest(_HALF_CLOSED)


class Searches:
    """All of one process."""

    def __init__(self) -> None:
        self._reading = asyncio.Lock()
        """Held while a piece is read. It goes to whoever waits the longest: homes take turns."""
        self._lines: dict[tuple[str, Scope], _Line] = {}

    @contextlib.asynccontextmanager
    async def by(self, org: str, home: Scope, check: Check) -> AsyncIterator[Between]:
        """Around a search: within, it is this one's turn. What it is given is awaited between two pieces: it gives the
        turn to the next home, and waits for one's own.

        Raises ConcurrencyLimitExceeded: too many of the home's requests wait; what `check` raises, before each piece.
        """
        if home.kind == "organisation":
            yield go_on
            return
        async with self._own_turn(org, home), contextlib.AsyncExitStack() as turn:

            async def next_piece() -> None:
                await turn.aclose()
                await turn.enter_async_context(self._reading)
                await check()

            await next_piece()
            yield next_piece

    @contextlib.asynccontextmanager
    async def _own_turn(self, org: str, home: Scope) -> AsyncIterator[None]:
        """Wait until no other search of the home is under way."""
        line = self._lines.setdefault((org, home), _Line())
        if line.requests > WAITING_MAX:
            raise ConcurrencyLimitExceeded(_TOO_MANY, retry_after_s=_RETRY_AFTER_S)
        line.requests += 1
        try:
            async with line.searching:
                yield
        finally:
            line.requests -= 1
            if not line.requests:
                del self._lines[org, home]


@dataclass(slots=True)
class _Line:
    """A home's requests: the one that searches, and those that wait."""

    requests: int = 0
    searching: asyncio.Lock = field(default_factory=asyncio.Lock)
