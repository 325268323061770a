"""Teams, users and keys for the load, each with budgets and limits that are checked on every call and never reached.

Written by the gateway's own store, many in one round trip: a hundred thousand of them over HTTP take minutes.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import cast

from redis.asyncio import Redis

from gateway.billing.budget import Budget
from gateway.billing.limits import Limits
from gateway.billing.principal import SECRET_CHARS, Scope, digest_of, make_sub_key
from gateway.billing.scope import ScopeSettings
from gateway.store.scopes import Scopes
from gateway.store.scripts import Argument, Reply, Script

_ORG = "default"
_BUDGETS = (Budget("month", 9_000_000_000_000), Budget("day", 9_000_000_000_000))
_LIMITS = Limits(requests_per_minute=6_000_000, tokens_per_minute=900_000_000, concurrent_requests=10_000)
_AT_ONCE = 500


async def lay_out(redis_url: str, *, teams: int = 1, keys: int = 1) -> list[str]:
    """Create teams with a user each and deal out keys to them; budgets and limits at all four scopes.

    Returns the sub-keys. The organisation must exist: the gateway's first start makes it.
    """
    redis = Redis.from_url(redis_url)
    scopes = Scopes(redis, PipelinedScripts(redis))
    stored = await scopes.read(_ORG, Scope("organisation", _ORG))
    await scopes.replace(_ORG, stored, replace(stored.settings, budgets=_BUDGETS, limits=_LIMITS))
    secrets = [make_sub_key(_ORG, f"{number:0{SECRET_CHARS}d}") for number in range(keys)]
    for some in _in_batches(range(teams)):
        await asyncio.gather(*(scopes.create(_ORG, _team(number)) for number in some))
        await asyncio.gather(*(scopes.create(_ORG, _user(number)) for number in some))
    for some in _in_batches(range(keys)):
        created = (scopes.create(_ORG, _key(n, n % teams), secret_digest=digest_of(secrets[n])) for n in some)
        await asyncio.gather(*created)
    await redis.aclose()
    return secrets


class PipelinedScripts:
    """A `ScriptRunner` that sends all scripts of one turn of the loop in one round trip.

    Only for scripts that Redis knows already: the gateway has made its organisation by the same one.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: list[tuple[asyncio.Future[Reply], tuple[object, ...]]] = []

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((reply, (script.digest, len(keys), *keys, *args)))
        if len(self._waiting) == 1:
            await asyncio.sleep(0)  # the others of this turn put theirs beside it
            await self._send()
        return await reply

    async def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        pipeline = self._redis.pipeline(transaction=False)
        for _, command in waiting:
            pipeline.execute_command("EVALSHA", *command)
        replies = await pipeline.execute(raise_on_error=False)
        for (waiter, _), reply in zip(waiting, replies, strict=True):
            if isinstance(reply, Exception):
                waiter.set_exception(reply)
            else:
                waiter.set_result(cast(Reply, reply))


def _in_batches(numbers: range) -> Iterator[Iterable[int]]:
    for start in numbers[::_AT_ONCE]:
        yield numbers[start : start + _AT_ONCE]


def _team(number: int) -> ScopeSettings:
    return ScopeSettings("team", f"team-{number}", budgets=_BUDGETS, limits=_LIMITS)


def _user(number: int) -> ScopeSettings:
    return ScopeSettings("user", f"user-{number}", team=f"team-{number}", budgets=_BUDGETS, limits=_LIMITS)


def _key(number: int, team: int) -> ScopeSettings:
    return ScopeSettings(
        "key", f"key-{number}", team=f"team-{team}", user=f"user-{team}", budgets=_BUDGETS, limits=_LIMITS
    )
