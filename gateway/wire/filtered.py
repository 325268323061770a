"""A stream of chat events as OpenAI's clients want it: with roles, without usage, with the cost, or as it is."""

import re

import msgspec

from gateway.billing.money import format_usd
from gateway.wire.event_cutter import EventCutter, Piece, ends_event
from gateway.wire.headers import StreamMask
from gateway.wire.presentation import Presentation, usage_with_cost
from gateway.wire.roles import Roles
from gateway.wire.sse import EVENT_BYTES_MAX, EventParser
from gateway.wire.strictjson import encode


class Filtered:
    """Passes a stream on as it comes, event by event (`wire.presentation.View`).

    Laws:
    - An event passes at the moment it is whole; one that the upstream never finished is not shown at all.
    - An event longer than `event_bytes_max` passes as it is, whatever it holds.
    - Only with the cost does anything whole wait: [DONE], and the usage that gets the cost as its members.
    - The roles are all that is added to an event; `wire.roles` has the laws of it.
    """

    def __init__(self, presentation: Presentation, secret: bytes, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._asked = presentation
        self._mask = StreamMask(secret)
        self._roles = Roles(presentation.choices)
        self._cutter = EventCutter(event_bytes_max)
        self._held_bytes_max = event_bytes_max
        self._held: list[bytes] = []  # what waits for the cost: events and comments of the stream's end
        self._held_bytes = 0
        self._dropped = False  # whether the last event was
        self._tail = b""  # the last few bytes that were shown

    def feed(self, chunk: bytes) -> bytes:
        data = self._mask.feed(chunk)
        first = b""
        if not self._cutter.is_between_events and b"\n\n" in data:
            border = data.index(b"\n\n") + 2
            first, data = self._take_all(data[:border]), data[border:]
        plain = self._plain_bytes(data) if self._cutter.is_between_events else 0
        if not plain:
            return first + self._take_all(data)
        self._dropped = False
        return first + self._show(data[:plain]) + self._take_all(data[plain:])

    def end(self, cost_nano_usd: int, *, whole: bool) -> bytes:
        pieces = self._cutter.feed(self._mask.rest())
        unfinished = self._cutter.rest()
        if whole or not unfinished.is_event:
            pieces.append(unfinished)
        shown = b"".join([self._take(piece) for piece in pieces if piece.data])
        return shown + self._closing(cost_nano_usd) if self._asked.with_cost else shown

    def _plain_bytes(self, data: bytes) -> int:
        """How many of the first bytes are whole events of which none may be the usage, or wait: nearly always all.

        They need not be cut: what costs little for one event adds up over the hundreds of a burst.
        """
        if self._held or b"\r" in data or not self._roles.all_told:
            return 0
        end = len(data)
        if data.count(b'"usage"') != data.count(b'"usage":null') or (self._asked.with_cost and _DONE in data):
            notable = _NOTABLE.search(data)
            end = notable.start() if notable else end
        border = data.rfind(b"\n\n", 0, end)
        return border + 2 if border >= 0 else 0

    def _take_all(self, data: bytes) -> bytes:
        return b"".join([self._take(piece) for piece in self._cutter.feed(data)]) if data else b""

    def _take(self, piece: Piece) -> bytes:
        """What of it may be shown now."""
        if not piece.is_event:
            return self._take_late(piece.data)
        event = _data_of(piece.data)
        of_usage = event is not None and is_usage(event)
        self._dropped = of_usage and not self._asked.with_usage
        if self._dropped:
            return b""
        if self._asked.with_cost and (event == _DONE or (of_usage and self._asked.cost_in_usage)):
            self._hold(piece.data)
            return b""
        if event is None:
            return self._show(piece.data)
        return self._show(
            self._let_go() + self._roles.told(piece.data, event)
        )  # the stream goes on behind what looked like its end

    def _take_late(self, data: bytes) -> bytes:
        """What belongs to the event before it goes where that went."""
        if data == b"\n" and self._dropped:
            return b""
        if data == b"\n" and self._held:
            self._held[-1] += data
            return b""
        return self._show(data)

    def _show(self, data: bytes) -> bytes:
        """Pass something on, behind what waits."""
        if self._held:
            self._hold(data)
            return self._let_go() if self._held_bytes > self._held_bytes_max else b""
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        return data

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)

    def _let_go(self) -> bytes:
        held = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        return held

    def _closing(self, cost_nano_usd: int) -> bytes:
        """What waited, with the cost: as a comment before [DONE], or at the end where there is none."""
        comment = b": cost_usd=%b\n\n" % format_usd(cost_nano_usd).encode()
        closing = b"" if not self._tail or ends_event(self._tail) else b"\n\n"
        for waited in self._held:
            event = _data_of(waited)
            if event == _DONE:
                closing += comment + waited
                comment = b""
            elif event is not None and is_usage(event):
                closing += _usage_event(event, cost_nano_usd)
            else:
                closing += waited
        return closing + comment


_DONE = b"[DONE]"
_NOTABLE = re.compile(rb'"usage"(?!:null)|\[DONE\]')
_TAIL_BYTES = 4


class _UsageChunk(msgspec.Struct):
    choices: list[msgspec.Raw]
    usage: dict[str, msgspec.Raw]


_usage_chunks = msgspec.json.Decoder(_UsageChunk)


def is_usage(event: bytes) -> bool:
    """Whether it is the chunk without choices that has the usage: what OpenAI's clients ask for by `include_usage`."""
    if b'"usage"' not in event:
        return False
    try:
        return not _usage_chunks.decode(event).choices
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _usage_event(event: bytes, cost_nano_usd: int) -> bytes:
    members = msgspec.json.decode(event, type=dict[str, msgspec.Raw])
    usage = msgspec.json.decode(members["usage"], type=dict[str, msgspec.Raw])
    shown = encode({**members, "usage": usage_with_cost(usage, cost_nano_usd)})
    return b"data: " + shown.replace(b"\n", b" ") + b"\n\n"  # the data may have come over several lines


def _data_of(event: bytes) -> bytes | None:
    """The data of one event with or without its blank line; None where it has none, as a comment."""
    parser = EventParser(len(event))
    finished = parser.feed(event)
    return finished[-1] if finished else parser.unfinished()
