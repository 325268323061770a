"""Room for large bodies: how many bytes of them one process has in hand, in all and of each caller.

Connections and bodies are bounded each by itself, but a thousand bodies at their bound are more than any machine has.
So what has come of a large body is charged here as it comes, not as it was declared, until it is done with. A small one
is not: its connection's bound is bound enough, and the ordinary call pays nothing for this.
"""

import asyncio
from collections.abc import Callable

from gateway.billing.errors import GatewayError, Overloaded

SMALL_BODY_BYTES = 65_536
"""A body is charged from here on."""

_RETRY_AFTER_S = 1
_FULL = "This gateway has as many large requests in hand as it takes; try again. Nothing was billed."
_FULL_OF_ONE = (
    "You have as many large requests on their way as one caller may; wait for their answers. Nothing was billed."
)


class Room:
    """Counts bytes. One caller may have half of them, and always one body of `body_bytes_max`.

    `on_change` is told how many bytes more are taken, or, below zero, fewer.

    `turn` is held by whoever reads a very large body: it then takes several times its bytes, and so one at a time does.
    """

    def __init__(
        self, bytes_max: int, body_bytes_max: int, on_change: Callable[[int], None] = lambda more_bytes: None
    ) -> None:
        self.taken_bytes = 0
        self.turn = asyncio.Lock()
        self._bytes_max = bytes_max
        self._bytes_of_one_max = max(bytes_max // 2, body_bytes_max)
        self._on_change = on_change
        self._of: dict[str, int] = {}

    def place_of(self, whose: str) -> "Place":
        """For one body of this caller."""
        return Place(self, whose)

    def take(self, whose: str, more_bytes: int) -> GatewayError | None:
        """Take so many bytes more, or give back, where it is less than none; or take nothing, and say why not."""
        of_one = self._of.get(whose, 0) + more_bytes
        if more_bytes > 0:
            if of_one > self._bytes_of_one_max:
                return Overloaded(_FULL_OF_ONE, retry_after_s=_RETRY_AFTER_S)
            if self.taken_bytes + more_bytes > self._bytes_max:
                return Overloaded(_FULL, retry_after_s=_RETRY_AFTER_S)
        self.taken_bytes += more_bytes
        self._on_change(more_bytes)
        self._of[whose] = of_one
        if not of_one:
            del self._of[whose]
        return None


class Place:
    """What one body takes of the room."""

    __slots__ = ("_room", "_size_bytes", "_whose")

    def __init__(self, room: Room, whose: str) -> None:
        self._room = room
        self._whose = whose
        self._size_bytes = 0

    def resize(self, size_bytes: int) -> GatewayError | None:
        """So much of the body is in hand by now; a small one takes nothing. Returns why there is no room for it."""
        size_bytes = size_bytes if size_bytes > SMALL_BODY_BYTES else 0
        refusal = self._room.take(self._whose, size_bytes - self._size_bytes)
        if refusal is None:
            self._size_bytes = size_bytes
        return refusal

    def leave(self) -> None:
        """The body is done with; safe more than once."""
        self.resize(0)
