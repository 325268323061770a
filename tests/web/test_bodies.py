"""Large bodies are read beside other calls, and the very large ones one behind the other."""

import asyncio
from collections.abc import Generator
from types import SimpleNamespace
from typing import cast

import pytest

from gateway.billing.errors import InvalidJSON
from gateway.billing.principal import Principal
from gateway.web.bodies import read_fields
from gateway.web.room import Room
from gateway.web.services import Services
from gateway.wire.strictjson import JSONObject, decode_in_steps
from tests.web.test_exchange import Wire

M = 1024 * 1024
BODIES_BYTES_MAX = 32 * M
PICTURE = b'{"picture":"' + 20 * M * b"a" + b'"}'


def reading(body: bytes, services: Services, who: str = "an") -> asyncio.Task[JSONObject]:
    """A body that is there, being read."""
    return asyncio.create_task(read_fields(Wire().exchange(body, b""), services, Principal("o", "t", who, "k")))


def new_services() -> Services:
    """As much of them as reading a body needs; every key is good."""

    async def check_state(_principal: Principal) -> None:
        pass

    limits = SimpleNamespace(body_bytes_max=BODIES_BYTES_MAX, body_timeout_s=60)
    room, auth = Room(4 * BODIES_BYTES_MAX, BODIES_BYTES_MAX), SimpleNamespace(check_state=check_state)
    return cast(Services, SimpleNamespace(limits=limits, room=room, auth=auth))


def test_others_have_two_turns_between_the_steps_of_a_large_body() -> None:
    """In the first what has come for other calls is read, in the second it is passed on."""

    async def turns_of_others() -> int:
        turns, large = 0, reading(PICTURE, new_services())
        while not large.done():
            await asyncio.sleep(0)
            turns += 1
        assert ["picture"] == list(await large)
        return turns

    steps = sum(1 for _ in decode_in_steps(PICTURE))
    assert steps >= 20
    assert asyncio.run(turns_of_others()) >= 2 * steps


def test_one_very_large_body_is_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes several times its bytes while it is read (ADR 0041); it ends before the next one begins, also where it
    ends with a refusal."""
    steps: list[str] = []

    def noted(body: bytes) -> Generator[None, None, JSONObject]:
        steps.append("begins")
        try:
            return (yield from decode_in_steps(body))
        finally:
            steps.append("ends")

    async def read_all(*bodies: bytes) -> list[type]:
        services = new_services()
        tasks = [reading(body, services, who=f"user-{number}") for number, body in enumerate(bodies)]
        return [type(found) for found in await asyncio.gather(*tasks, return_exceptions=True)]

    monkeypatch.setattr("gateway.web.bodies.decode_in_steps", noted)
    very_large = b'{"a":"' + 2 * M * b"a" + b'"}'
    assert [dict, InvalidJSON, dict] == asyncio.run(read_all(very_large, very_large[:-1], very_large))
    assert 3 * ["begins", "ends"] == steps
