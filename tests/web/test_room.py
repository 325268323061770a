"""How many bytes of large bodies are in hand, in all and of each caller; and that they are given back."""

import asyncio

import pytest

from gateway.billing.errors import GatewayError, InvalidRequest, Overloaded, RequestTimeout, RequestTooLarge
from gateway.web.exchange import ClientLeft
from gateway.web.room import SMALL_BODY_BYTES, Room
from tests.web.test_exchange import Wire

LARGE = SMALL_BODY_BYTES + 1


def refused(room: Room, *sizes: tuple[str, int]) -> list[str]:
    """Who hears that there is no room, of those who come one after the other, each with one body."""
    return [whose for whose, size_bytes in sizes if room.place_of(whose).resize(size_bytes)]


def test_one_caller_has_half() -> None:
    """The other half is there for everybody else."""
    room = Room(4 * LARGE, LARGE)
    assert ["an", "vu"] == refused(room, *[("an", LARGE)] * 3, *[("bo", LARGE)] * 2, ("vu", LARGE))
    assert 4 * LARGE == room.taken_bytes


def test_a_body_at_its_bound_has_room() -> None:
    """However narrow it is set: one that is alone is never refused."""
    assert [] == refused(Room(LARGE, LARGE), ("an", LARGE))


def test_what_is_small_takes_nothing() -> None:
    """Nor does what is small by now: its place is given back."""
    room = Room(LARGE, LARGE)
    assert [] == refused(room, *[("an", SMALL_BODY_BYTES)] * 100)
    place = room.place_of("an")
    place.resize(LARGE)
    place.resize(SMALL_BODY_BYTES)
    assert 0 == room.taken_bytes


def test_a_refusal_takes_nothing_and_says_when_to_come_again() -> None:
    """What the body had before, it keeps until it leaves."""
    room = Room(2 * LARGE, LARGE)
    place = room.place_of("an")
    place.resize(LARGE)
    refusal = place.resize(LARGE + 1)
    assert isinstance(refusal, Overloaded)
    assert (1, LARGE) == (refusal.retry_after_s, room.taken_bytes)
    place.leave()
    place.leave()
    assert 0 == room.taken_bytes


def test_a_body_takes_what_has_come_of_it() -> None:
    """Not what it declares: who only says that it will send much keeps nobody out."""

    async def scenario() -> list[int]:
        room = Room(10 * LARGE, 10 * LARGE)
        exchange = Wire([(b"content-type", b"application/json"), (b"content-length", b"%d" % (9 * LARGE))]).exchange()
        reading = asyncio.create_task(exchange.json_body(10 * LARGE, 5, room, "an"))
        await asyncio.sleep(0)
        taken = [room.taken_bytes]
        for part in (SMALL_BODY_BYTES, 1, LARGE):
            exchange.body_came(b"x" * part)
            taken.append(room.taken_bytes)
        exchange.request_ended()
        await reading
        exchange.sent_on(LARGE)
        taken.append(room.taken_bytes)
        exchange.close()
        return [*taken, room.taken_bytes]

    assert [0, 0, LARGE, 2 * LARGE, LARGE, 0] == asyncio.run(scenario())


def test_a_body_without_room_is_not_read_on() -> None:
    """What had come of it is dropped at once."""

    async def scenario() -> list[bool]:
        room, wire = Room(LARGE, LARGE), Wire()
        room.place_of("bo").resize(LARGE)
        exchange = wire.exchange()
        reading = asyncio.create_task(exchange.json_body(9 * LARGE, 5, room, "an"))
        await asyncio.sleep(0)
        exchange.body_came(b"x" * LARGE)
        with pytest.raises(Overloaded):
            await reading
        return wire.reading

    assert [True, False] == asyncio.run(scenario())


def test_a_body_that_was_there_before_it_was_wanted_needs_room_as_well() -> None:
    """A packet is larger than what is small."""
    room = Room(LARGE, LARGE)
    room.place_of("bo").resize(LARGE)
    with pytest.raises(Overloaded):
        asyncio.run(Wire().exchange(b"x" * LARGE, b"").json_body(9 * LARGE, 5, room, "an"))


@pytest.mark.parametrize("fault", [RequestTimeout, RequestTooLarge, InvalidRequest, ClientLeft])
def test_however_it_ends_its_place_is_given_back(fault: type[Exception]) -> None:
    """The edge closes each exchange, also behind a crash."""

    async def scenario() -> tuple[int, int]:
        room = Room(9 * LARGE, 9 * LARGE)
        exchange = Wire().exchange()
        reading = asyncio.create_task(exchange.json_body(2 * LARGE, 0.01, room, "an"))
        await asyncio.sleep(0)
        exchange.hasten()  # what came of it earns it no more time
        exchange.body_came(b"x" * LARGE)
        taken = room.taken_bytes
        if fault is RequestTooLarge:
            exchange.body_came(b"x" * 2 * LARGE)
        elif fault is InvalidRequest:
            exchange.body_broke(InvalidRequest("It broke off."))
        elif fault is ClientLeft:
            exchange.lost()
        with pytest.raises((GatewayError, ClientLeft)) as raised:
            await reading
        assert fault is raised.type
        exchange.close()
        return taken, room.taken_bytes

    assert (LARGE, 0) == asyncio.run(scenario())
