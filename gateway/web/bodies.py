"""Reading a call's body: bounded, decoded once, and however large it is, other calls go on meanwhile."""

import asyncio
from typing import cast

from gateway.billing.principal import Principal
from gateway.web.exchange import Exchange
from gateway.web.services import Services
from gateway.wire.strictjson import JSONObject, decode, decode_in_steps

_READ_AT_ONCE_BYTES = 128 * 1024
"""So much is decoded, inspected and encoded in about a millisecond."""

_READ_ALONE_BYTES = 1024 * 1024
"""Above, a body and what is made of it take so much memory that one is read at a time."""


async def read_fields(exchange: Exchange, services: Services, principal: Principal) -> JSONObject:
    """The body as a JSON object.

    Raises what `Exchange.json_body` raises; what `strictjson.decode` does; for a large one what `check_state` raises.
    """
    limits = services.limits
    whose = f"user {principal.user}" if principal.user else f"key {principal.key}"
    if exchange.may_be_large():
        # Admission would refuse such a key as well, but until then its body would have taken others' room.
        await services.auth.check_state(principal)
    body = await exchange.json_body(limits.body_bytes_max, limits.body_timeout_s, services.room, whose)
    if len(body) <= _READ_AT_ONCE_BYTES:
        return decode(body)
    if len(body) <= _READ_ALONE_BYTES:
        return await _decoded_between_others(body)
    async with services.room.turn:
        return await _decoded_between_others(body)


async def _decoded_between_others(body: bytes) -> JSONObject:
    """A large body took a while to arrive and takes one to read, and then to inspect: other calls go in between."""
    steps = decode_in_steps(body)
    while True:
        await _let_others_go()
        try:
            next(steps)
        except StopIteration as end:
            await _let_others_go()
            return cast(JSONObject, end.value)


async def _let_others_go() -> None:
    """In one turn of the loop what has arrived for other calls is read, in the next one it is passed on."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
