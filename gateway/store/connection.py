"""Open Redis and refuse a server that cannot keep books."""

from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError
from redis.maint_notifications import MaintNotificationsConfig

from gateway.store.keys import DEFAULT_ORG, SCHEMA, SCHEMA_VERSION, Keys
from gateway.store.redis_url import RedisUrl, parse_redis_url
from gateway.store.scripts import TranslatedFaults
from gateway.store.topology import (
    ClusterTopology,
    FollowingConnection,
    FollowingPool,
    FollowingTLSConnection,
    Misdirected,
    SentinelTopology,
    Topology,
    untagged,
)

_CONNECTIONS_MAX = 64
_CONNECT_TIMEOUT_S = 2.0
_SENTINEL_TIMEOUT_S = 1.0
"""Short: while one Sentinel says nothing, the next is not asked."""
_NEVER_AGAIN = Retry(NoBackoff(), 0)
_NO_ANSWER = (RedisError, RedisClusterException, OSError, TimeoutError)


class UnfitRedis(RuntimeError):
    """The server cannot be used; the text says why and what to change."""


class SilentRedis(UnfitRedis):
    """It gives no answer: nobody knows what it is like."""


def open_redis(url: str, timeout_s: float, password: str = "", org: str = DEFAULT_ORG) -> Redis:
    """A client that never retries on its own: a command whose answer was lost may have been applied.

    `url` is one of the forms of `redis_url`. `password` is for a URL that has none; the URL's own wins. In a cluster
    the client is that of one organisation, `org`: of the master that has its slot.

    Raises UnfitRedis: the URL is of a form this version does not know.
    """
    try:
        wanted = parse_redis_url(url)
        options = {**_options(timeout_s, password), **wanted.options}
        pool = _following_pool(wanted, options, org) if wanted.hosts else BlockingConnectionPool(**options)
        # Connects to nothing yet; an option that redis-py does not have is a TypeError.
        pool.make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, RedisClusterException):
        # Its text may repeat the URL, and that may hold a password.
        raise UnfitRedis(
            "REDIS_URL cannot be read; right ones are redis://user:password@host:6379/0, rediss://… (TLS), "
            "unix:///path/to/socket, redis+sentinel://host:26379,host2:26379/mymaster/0 and "
            "redis+cluster://host:6379,host2:6379"
        ) from None
    return Redis.from_pool(pool)  # it owns the pool: closing the client closes every connection


async def check_fit(redis: Redis) -> None:
    """Refuse an evicting server and a foreign schema; claim the schema of an empty one.

    Raises UnfitRedis: also when there is no answer.
    """
    if await refuse_unfit(redis):
        return  # a full Redis with books in it is not written to: it can still be checked and trimmed
    try:
        await untagged(redis).set(SCHEMA, SCHEMA_VERSION, nx=True)
    except _NO_ANSWER as error:
        raise _unanswered(error) from error
    await refuse_unfit(redis)  # another version of the gateway may have been faster


async def refuse_unfit(redis: Redis) -> bool:
    """The same without a claim: whether there are books.

    Raises UnfitRedis: also when there is no answer.
    """
    try:
        await _refuse_single_node(redis)
        policies = await _eviction_policies(redis)
        stored = await untagged(redis).get(SCHEMA)
    except _NO_ANSWER as error:
        raise _unanswered(error) from error
    for policy in policies - {"noeviction"}:
        raise UnfitRedis(
            f"Redis would evict keys (maxmemory-policy {policy}), and with them balances; set it to noeviction"
        )
    if stored is not None and stored != SCHEMA_VERSION.encode():
        raise UnfitRedis(f"Redis holds books of schema {stored!r}, this gateway keeps schema {SCHEMA_VERSION}")
    return stored is not None


async def memory_use(redis: Redis) -> tuple[int, int]:
    """Bytes that Redis uses, and the most it may (0: no bound). Raises LedgerUnavailable."""
    with TranslatedFaults():
        memory = await redis.info("memory")
    return int(memory["used_memory"]), int(memory.get("maxmemory", 0))


def _options(timeout_s: float, password: str) -> dict[str, Any]:
    return {
        "password": password or None,
        "max_connections": _CONNECTIONS_MAX,
        "timeout": timeout_s,
        "retry": _NEVER_AGAIN,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": _CONNECT_TIMEOUT_S,
        # With it, redis-py would hand out idle connections that have ended since: after a restart of Redis each of
        # them would refuse one call more.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _following_pool(wanted: RedisUrl, options: dict[str, Any], org: str) -> FollowingPool:
    # What was misdirected was not done, and alone may be sent again.
    options["retry"] = Retry(NoBackoff(), 1, supported_errors=(Misdirected,))
    return FollowingPool(
        _sentinel(wanted, options) if wanted.kind == "sentinel" else _cluster(wanted, options, org),
        connection_class=FollowingTLSConnection if wanted.tls else FollowingConnection,
        **options,
    )


def _sentinel(wanted: RedisUrl, options: dict[str, Any]) -> Topology:
    to_sentinels = {
        **{name: value for name, value in options.items() if name.startswith("ssl_")},
        **wanted.sentinel_options,
        "ssl": wanted.tls,
        "retry": _NEVER_AGAIN,
        "socket_timeout": _SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": _SENTINEL_TIMEOUT_S,
        "maint_notifications_config": options["maint_notifications_config"],
    }
    return SentinelTopology(Sentinel(wanted.hosts, sentinel_kwargs=to_sentinels), wanted.service)  # type: ignore[no-untyped-call]


def _cluster(wanted: RedisUrl, options: dict[str, Any], org: str) -> Topology:
    cluster = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in wanted.hosts],
        ssl=wanted.tls,
        # Slots that nobody has are other organisations' or few jobs' worry.
        require_full_coverage=False,
        # Only single commands that may be repeated go this way; the second follows the newer map.
        **{name: value for name, value in options.items() if name != "timeout"} | {"retry": Retry(NoBackoff(), 1)},
    )
    return ClusterTopology(cluster, Keys(org).leases)


def _unanswered(error: Exception) -> SilentRedis:
    return SilentRedis(f"Redis gives no answer ({error}); is REDIS_URL right, and is the server running?")


async def _refuse_single_node(redis: Redis) -> None:
    """Raises UnfitRedis: the URL is that of one server, which has but a part of the keys, and not for ever."""
    if not isinstance(redis.connection_pool, FollowingPool):
        cluster = await redis.info("cluster")
        if cluster.get("cluster_enabled"):
            raise UnfitRedis("REDIS_URL names one node of a cluster; write redis+cluster://host:6379 to reach them all")


async def _eviction_policies(redis: Redis) -> set[str]:
    """Those of all masters."""
    anywhere = untagged(redis)
    if isinstance(anywhere, RedisCluster):
        found = await anywhere.info("memory", target_nodes=RedisCluster.PRIMARIES)
        memories = found.values() if "maxmemory_policy" not in found else [found]
    else:
        memories = [await redis.info("memory")]
    return {memory.get("maxmemory_policy", "noeviction") for memory in memories}
