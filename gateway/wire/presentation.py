"""How a caller wants the answer to a chat call shown, and the view that shows it so.

MiniToolAI always answers with a stream of events that ends in its usage and [DONE]. A `View` turns its bytes into
what the client gets: the same bytes (`AsSent`), a stream with an event less or a comment more
(`wire.filtered.Filtered`), or one object (`wire.folded.Folded`). No view bills anything: it is told what it came to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from gateway.billing.errors import InvalidRequest
from gateway.billing.money import format_usd
from gateway.wire.headers import StreamMask
from gateway.wire.strictjson import JSONObject

INCLUDE_COST = "x-gateway-include-cost"


@dataclass(frozen=True, slots=True)
class Presentation:
    """What a caller asked for beside the answer itself.

    `folded`: one object in place of a stream. `with_usage`: the chunk with the usage is shown. `with_cost`: so is the
    cost, as a comment of a stream; `cost_in_usage`: and as members of the usage. `choices`: so many a chat
    answer in OpenAI's shape has, and each begins with its role; 0 on MiniToolAI's own path, where nothing is added to
    it. Of pictures: how many `images`, and whether `in_base64`.
    """

    folded: bool = False
    with_usage: bool = True
    with_cost: bool = False
    cost_in_usage: bool = False
    choices: int = 0
    images: int = 1
    in_base64: bool = False

    @property
    def words(self) -> str:
        """The same in words, equal for equal presentations of one request; empty where nothing else was asked for.

        What the request's own body says (`choices`) is left to it.
        """
        asked = (
            ("folded", self.folded),
            ("without usage", not self.with_usage),
            ("with cost", self.with_cost),
            ("cost in usage", self.cost_in_usage),
            (f"{self.images} images", self.images > 1),
            ("in base64", self.in_base64),
        )
        return ", ".join(word for word, holds in asked if holds)


AS_SENT = Presentation()
WITH_COST = Presentation(with_cost=True)


def native_presentation(fields: JSONObject, *, with_cost: bool) -> Presentation:
    """On MiniToolAI's own path, whatever the body says: it always streams, and its bytes are not changed."""
    return WITH_COST if with_cost else AS_SENT


def wants_cost(sent: list[bytes]) -> bool:
    """What the values of `x-gateway-include-cost` ask for. Raises InvalidRequest."""
    if not sent:
        return False
    wanted = _WISHES.get(sent[0].strip().lower()) if len(sent) == 1 else None
    if wanted is None:
        raise InvalidRequest(f"{INCLUDE_COST} is sent once, as 1 or 0.", param=INCLUDE_COST)
    return wanted


_WISHES = {b"1": True, b"true": True, b"0": False, b"false": False}


class View(Protocol):
    """Shows one answer, whose bytes may be split anywhere; nothing it shows holds the organisation's key."""

    def feed(self, chunk: bytes) -> bytes:
        """What may go to the client now."""

    def end(self, cost_nano_usd: int, *, whole: bool) -> bytes:
        """The rest, once it is known what the call cost; `whole`: whether the answer came to its own end."""


class AsSent(StreamMask):
    """Byte for byte."""

    def end(self, cost_nano_usd: int, *, whole: bool) -> bytes:
        """The few bytes that might have begun the organisation's key."""
        return self.rest()


def usage_with_cost(usage: Mapping[str, msgspec.Raw], cost_nano_usd: int) -> dict[str, object]:
    """A usage as it was sent, and what the call cost by the ledger."""
    return {**usage, "cost_usd": format_usd(cost_nano_usd), "cost_nano_usd": cost_nano_usd}
