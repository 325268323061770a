"""Open Redis and refuse a server that cannot keep books."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from gateway.store.keys import SCHEMA, SCHEMA_VERSION
from gateway.store.scripts import TranslatedFaults

_SCHEMES = ("redis://", "rediss://", "unix://")
_CONNECTIONS_MAX = 64
_CONNECT_TIMEOUT_S = 2.0


class UnfitRedis(RuntimeError):
    """The server cannot be used; the text says why and what to change."""


def open_redis(url: str, timeout_s: float, password: str = "") -> Redis:
    """A client that never retries on its own: a command whose answer was lost may have been applied.

    `password` is for a URL that has none; the URL's own wins.

    Raises UnfitRedis: the URL is of a form this version does not know.
    """
    if not url.startswith(_SCHEMES):
        raise UnfitRedis(f"REDIS_URL must begin with one of {', '.join(_SCHEMES)}")
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            password=password or None,
            max_connections=_CONNECTIONS_MAX,
            timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout_s,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            # With it, redis-py would hand out idle connections that have ended since: after a restart of Redis each of
            # them would refuse one call more.
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
    except ValueError:
        # Its text may repeat the URL, and that may hold a password.
        raise UnfitRedis("REDIS_URL cannot be read; a right one is redis://user:password@host:6379/0") from None
    return Redis.from_pool(pool)  # it owns the pool: closing the client closes every connection


async def check_fit(redis: Redis) -> None:
    """Refuse an evicting server and a foreign schema; claim the schema of an empty one.

    Raises UnfitRedis: also when there is no answer.
    """
    try:
        memory = await redis.info("memory")
    except (RedisError, OSError, TimeoutError) as error:
        raise UnfitRedis(f"Redis gives no answer ({error}); is REDIS_URL right, and is the server running?") from error
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise UnfitRedis(
            f"Redis would evict keys (maxmemory-policy {policy}), and with them balances; set it to noeviction"
        )
    stored = await redis.get(SCHEMA)
    if stored is None:  # a full Redis with books in it is not written to: it can still be checked and trimmed
        await redis.set(SCHEMA, SCHEMA_VERSION, nx=True)
        stored = await redis.get(SCHEMA)
    if stored != SCHEMA_VERSION.encode():
        raise UnfitRedis(f"Redis holds books of schema {stored!r}, this gateway keeps schema {SCHEMA_VERSION}")


async def memory_use(redis: Redis) -> tuple[int, int]:
    """Bytes that Redis uses, and the most it may (0: no bound). Raises LedgerUnavailable."""
    with TranslatedFaults():
        memory = await redis.info("memory")
    return int(memory["used_memory"]), int(memory.get("maxmemory", 0))
