"""What an exchange is told of its connection: one request, and the way back for its answer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gateway.web.errors import Header


class Line(Protocol):
    """One request on the client's connection, and the way back. `headers`: names in lower case, as they came."""

    method: str
    headers: Sequence[Header]
    fields: Mapping[bytes, bytes]
    """The headers by name; of those that may stand more than once, the first."""
    keep_alive: bool
    """Whether the connection serves another request after this one."""
    is_http_1_0: bool
    expects_continue: bool
    """Whether the client waits for "100 Continue" before it sends the body."""

    write: Callable[[bytes], None]
    """Hands bytes over; never waits."""

    @property
    def peer(self) -> str | None:
        """The address that is connected; None where it has none."""

    def is_full(self) -> bool:
        """Whether the client has stopped taking what was written."""

    async def emptied(self) -> None:
        """Wait until it takes more, or is gone."""

    def read_on(self, wanted: bool) -> None:
        """Read from the client, or stop for now."""

    def standing_headers(self) -> Sequence[Header]:
        """What every answer of this server says (its date)."""

    def end(self) -> None:
        """The answer is written: serve the next request, or close."""

    def abort(self) -> None:
        """Close at once; what was not sent is lost."""
