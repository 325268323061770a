"""Where the master is that keeps the books, when Sentinel or a cluster decides that: connections that go there.

redis-py asks Sentinel and reads a cluster's map; what it would do with the answer does not suit books. Its cluster
client sends TIME to any node, and transactions and scripts need one clock and one server. But all keys of an
organisation lie in one slot (`store.keys`), so one master keeps its books at any time, in a cluster as behind Sentinel:
an ordinary client with an ordinary pool, whose connections ask for that master whenever they connect (ADR 0028).
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Protocol, cast

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.exceptions import ClusterDownError, MovedError, ReadOnlyError
from redis.exceptions import ConnectionError as RedisConnectionError

Address = tuple[str, int]


class Topology(Protocol):
    """Who knows where the master is."""

    address: Address | None
    """Where it was when it was last asked for."""

    async def locate(self) -> Address:
        """Ask where it is now. Raises redis-py's errors and OSError: nobody knows."""

    def doubt(self, moved: MovedError | None = None) -> None:
        """What was located does not answer, or says that the books are elsewhere: `moved`, where it says so itself."""

    async def aclose(self) -> None: ...


MISDIRECTED = ("MOVED", "READONLY", "CLUSTERDOWN", "MASTERDOWN")
"""How a server's refusal begins that is not the master here: another is, it was once, or it has left the cluster."""


class Misdirected(RedisConnectionError):
    """The server does not keep these books (any more); it has done nothing, so the command may be sent again."""


class FollowingPool(BlockingConnectionPool):
    """A pool whose connections lead to the master that `topology` names, and leave it when it is that no more."""

    def __init__(self, topology: Topology, **options: Any) -> None:
        super().__init__(topology=topology, **options)
        self.topology = topology

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        # Not every command finds out that its server is not the right one: TIME, INFO and SCAN succeed anywhere.
        if connection.is_connected and cast(FollowingConnection, connection).address != self.topology.address:
            await connection.disconnect()
        await super().ensure_connection(connection)

    async def aclose(self) -> None:
        await super().aclose()
        await self.topology.aclose()


class FollowingConnection(Connection):
    """Asks for the master whenever it connects, and ends when its server says that it is not."""

    def __init__(self, *, topology: Topology, **options: Any) -> None:
        super().__init__(**options)
        self._topology = topology

    @property
    def address(self) -> Address:
        return self.host, self.port

    async def _connect(self) -> None:
        """To whoever is the master; where that one cannot be reached, once more if another has taken its place."""
        self.host, self.port = await self._topology.locate()
        try:
            await super()._connect()  # type: ignore[no-untyped-call]
        except (OSError, TimeoutError):
            self._topology.doubt()
            before, (self.host, self.port) = self.address, await self._topology.locate()
            if self.address == before:
                self._topology.doubt()
                raise
            await super()._connect()  # type: ignore[no-untyped-call]

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """See redis-py. Raises Misdirected: it was not done, nor was anything of its transaction.

        Of a pipeline that is no transaction a part may have been; so those may only read.
        """
        try:
            return await super().read_response(*args, **options)
        except (MovedError, ReadOnlyError, ClusterDownError) as error:
            self._topology.doubt(error if isinstance(error, MovedError) else None)
            await self.disconnect(nowait=True)
            raise Misdirected(str(error)) from error


class FollowingTLSConnection(FollowingConnection, SSLConnection):
    """The same over TLS."""


class SentinelTopology:
    """The master of a service, as the first Sentinel that answers names it."""

    def __init__(self, sentinel: Sentinel, service: str) -> None:
        self.address: Address | None = None
        self._sentinel = sentinel
        self._service = service

    async def locate(self) -> Address:
        try:
            host, port = await self._sentinel.discover_master(self._service)
        except MasterNotFoundError:
            # Its text is a page about clients.
            raise RedisConnectionError(f"no Sentinel that answers has a live master for {self._service}") from None
        self.address = (str(host), int(port))
        return self.address

    def doubt(self, moved: MovedError | None = None) -> None:
        """Nothing to do: Sentinel is asked each time."""

    async def aclose(self) -> None:
        await self._sentinel.aclose()


class ClusterTopology:
    """The master that has the slot of `key`. The map is read again when that one cannot be reached."""

    def __init__(self, cluster: RedisCluster, key: str) -> None:
        self.address: Address | None = None
        self.cluster = cluster
        """For keys without a tag: they lie in any slot."""
        self._key = key
        self._moved: MovedError | None = None
        self._outdated = False

    async def locate(self) -> Address:
        await self.cluster.initialize()
        if self._outdated:
            await self.cluster.nodes_manager.initialize()
            self._outdated = False
        if (moved := self._moved) is not None:
            self._moved = None
            await self.cluster.nodes_manager.move_slot(moved)
        node = self.cluster.get_node_from_key(self._key)
        assert node is not None  # noqa: S101  # only a replica that was asked for can be missing
        self.address = (node.host, int(node.port))
        return self.address

    def doubt(self, moved: MovedError | None = None) -> None:
        """Who says MOVED knows more than a map read from any node; who does not answer leaves only the map."""
        if moved is not None and moved.host:
            self._moved = moved
        else:
            self._outdated = True

    async def aclose(self) -> None:
        await self.cluster.aclose()


@contextlib.asynccontextmanager
async def one_master(redis: Redis, nothing: str) -> AsyncIterator[None]:
    """Around reads of one organisation that make sense only together, such as all pages of a SCAN.

    SCAN succeeds on any server and tells what that one has. So a key of the organisation that does not exist
    (`nothing`) is asked for before and after: it is refused where the organisation is not, or not whole.
    Raises Misdirected at the end: the books have moved meanwhile; read them again.
    """
    pool = redis.connection_pool
    if not isinstance(pool, FollowingPool):
        yield
        return
    await redis.exists(nothing)
    began_at = pool.topology.address
    yield
    await redis.exists(nothing)
    if pool.topology.address != began_at:
        raise Misdirected("the books moved to another master while they were read")


def untagged(redis: Redis) -> "Redis | RedisCluster":
    """The client for single commands on keys without a tag."""
    topology = getattr(redis.connection_pool, "topology", None)
    return topology.cluster if isinstance(topology, ClusterTopology) else redis
