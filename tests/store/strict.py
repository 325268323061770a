"""Where scripts are held to what a cluster asks of them: `pytest tests/store --on-cluster`.

The server is a cluster of one node, and each script begins with `#!lua`: Redis then refuses a script that reaches into
another slot than that of its keys. It does not refuse an undeclared key of the same slot, so the user that runs a
script may touch no key but those that the run declares.
"""

import asyncio
import functools
import hashlib
import socket
from collections.abc import Sequence

import redis
from redis.asyncio import Redis

from gateway.store.embedded import EmbeddedRedis
from gateway.store.scripts import Argument, RedisScripts, Reply, Script
from tests.e2e.waiting import until

_SLOTS = 16384


class DeclaredKeysOnly:
    """A `ScriptRunner` whose user may touch nothing but the keys that each run declares; so one run at a time."""

    def __init__(self, admin: Redis, url: str) -> None:
        self._admin = admin
        self._alone = asyncio.Lock()
        self.redis = Redis.from_url(url, username="confined", password="made-up")
        self._scripts = RedisScripts(self.redis, 5)
        self.ran: set[str] = set()

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        async with self._alone:
            await self._admin.acl_setuser(
                "confined", enabled=True, passwords="+made-up", categories=["+@all"], keys=list(keys), reset_keys=True
            )
            self.ran.add(script.name)
            return await self._scripts.run(script, keys, args)


class StrictScripts(DeclaredKeysOnly):
    """The same with scripts that a cluster keeps within one slot."""

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        return await super().run(with_shebang(script), keys, args)


@functools.cache
def with_shebang(script: Script) -> Script:
    source = "#!lua\n" + script.source
    return Script(script.name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class OneNodeCluster(EmbeddedRedis):
    """The embedded server as the only node of a cluster, all slots its own."""

    def start(self) -> None:
        super().start()
        with redis.Redis.from_url(self.url) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, _SLOTS - 1)
            until(lambda: _is_up(client))

    def _arguments(self) -> list[str]:
        # Of an option given twice the last counts. A node of a cluster cannot do without ports.
        return [
            *super()._arguments(),
            *("--cluster-enabled", "yes", "--bind", "127.0.0.1"),
            *("--port", str(_free_port()), "--cluster-port", str(_free_port())),
        ]


def _is_up(client: redis.Redis) -> bool:
    info = client.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
    return b"cluster_state:ok" in info


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
