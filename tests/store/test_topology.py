"""The books are found wherever their master is: after a failover, in a cluster, and when it has moved."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, RedisError

from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import violations
from gateway.store.connection import UnfitRedis, check_fit, open_redis
from gateway.store.jobs import Job
from gateway.store.keys import Keys
from gateway.store.multiplex import MultiplexedScripts
from gateway.store.scripts import RedisScripts, Script, ScriptRunner
from gateway.store.topology import Address, FollowingConnection, FollowingPool, Misdirected, one_master
from tests.e2e.waiting import until
from tests.servers import Cluster, Server, Watched, cluster_arguments, servers
from tests.store.bench import ORG, RED, capture, open_bench

COUNT = Script("count", "return {redis.call('INCR', KEYS[1])}", "0" * 40)
COUNTED = Keys(ORG).hold("counted")
NOTHING = Keys(ORG).nothing
Runner = Callable[[Redis], ScriptRunner]
RUNNERS: tuple[Runner, ...] = (lambda redis: RedisScripts(redis, 5), lambda redis: MultiplexedScripts(redis, 5))
BOTH = pytest.mark.parametrize("runner", RUNNERS, ids=["pooled", "multiplexed"])


@pytest.fixture
def started() -> Iterator[list[Server]]:
    with servers() as started:
        yield started


@pytest.fixture
def watched(tmp_path: Path, started: list[Server]) -> Watched:
    return Watched(tmp_path, started)


@pytest.fixture
def cluster(tmp_path: Path, started: list[Server]) -> Cluster:
    return Cluster(tmp_path, started)


def with_redis(redis: Redis, runner: Runner, work: Callable[[Redis, ScriptRunner], Awaitable[None]]) -> None:
    async def run() -> None:
        scripts = runner(redis)
        try:
            await work(redis, scripts)
        finally:
            if isinstance(scripts, MultiplexedScripts):
                await scripts.close()
            await redis.aclose()

    asyncio.run(run())


class Told:
    """A topology that is told where the master is."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.address: Address | None = None
        self.doubts = 0

    async def locate(self) -> Address:
        self.address = ("127.0.0.1", self.server.port)
        return self.address

    def doubt(self, moved: MovedError | None = None) -> None:
        self.doubts += 1

    async def aclose(self) -> None:
        pass


@BOTH
def test_a_master_that_was_demoted_is_left_at_once(tmp_path: Path, started: list[Server], runner: Runner) -> None:
    """It says READONLY and has done nothing: each of many at once is done by the new master, once."""
    first, second = Server(tmp_path / "a"), Server(tmp_path / "b")
    started += [first, second]
    told = Told(first)

    async def work(redis: Redis, scripts: ScriptRunner) -> None:
        assert [1] == await scripts.run(COUNT, [COUNTED], [])
        assert first.ask("REPLICAOF", "127.0.0.1", second.port)
        until(lambda: first.ask("INFO", "replication")["master_link_status"] == "up")
        told.server = second
        replies = await asyncio.gather(*(scripts.run(COUNT, [COUNTED], []) for _ in range(50)))
        assert list(range(1, 51)) == sorted(reply[0] for reply in replies)  # type: ignore[type-var]
        assert b"50" == await redis.get(COUNTED)
        assert told.doubts

    with_redis(open_following(told), runner, work)


@BOTH
def test_a_server_that_stays_demoted_is_refused_as_not_done(
    tmp_path: Path, started: list[Server], runner: Runner
) -> None:
    """It is asked once more, not for ever; when it is the master again, it is believed."""
    server = Server(tmp_path)
    started.append(server)

    async def work(_redis: Redis, scripts: ScriptRunner) -> None:
        assert [1] == await scripts.run(COUNT, [COUNTED], [])
        assert server.ask("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(LedgerUnavailable) as refused:
            await scripts.run(COUNT, [COUNTED], [])
        assert not refused.value.maybe_applied
        assert server.ask("REPLICAOF", "NO", "ONE")
        assert [2] == await scripts.run(COUNT, [COUNTED], [])

    with_redis(open_following(Told(server)), runner, work)


@BOTH
def test_a_node_that_has_left_its_cluster_is_left(tmp_path: Path, started: list[Server], runner: Runner) -> None:
    """It says CLUSTERDOWN and would for ever: others have its slots."""
    first, second = Server(tmp_path / "a", *cluster_arguments()), Server(tmp_path / "b")
    started += [first, second]
    assert first.ask("CLUSTER ADDSLOTSRANGE", 0, 16383)
    until(lambda: first.ask("CLUSTER INFO")["cluster_state"] == "ok")
    told = Told(first)

    async def work(_redis: Redis, scripts: ScriptRunner) -> None:
        assert [1] == await scripts.run(COUNT, [COUNTED], [])
        assert first.ask("CLUSTER DELSLOTSRANGE", 0, 16383)
        told.server = second
        assert [1] == await scripts.run(COUNT, [COUNTED], [])
        assert told.doubts

    with_redis(open_following(told), runner, work)


def test_commands_that_any_server_answers_go_to_the_new_master(tmp_path: Path, started: list[Server]) -> None:
    """TIME, INFO and SCAN never say that they are on the wrong server: a connection to it is not used again."""
    first, second = Server(tmp_path / "a"), Server(tmp_path / "b")
    started += [first, second]
    told = Told(first)

    async def work(redis: Redis, _scripts: ScriptRunner) -> None:
        await asyncio.gather(*(redis.set(f"{COUNTED}:{number}", 1) for number in range(8)))
        assert first.ask("REPLICAOF", "127.0.0.1", second.port)
        told.server = second
        with pytest.raises(RedisError):
            async with one_master(redis, NOTHING):
                await redis.set(COUNTED, 1)  # finds out
        infos = await asyncio.gather(*(redis.info("server") for _ in range(8)))
        assert {second.port} == {info["tcp_port"] for info in infos}

    with_redis(open_following(told), RUNNERS[0], work)


@BOTH
def test_sentinel_tells_who_is_the_master_after_a_failover(watched: Watched, runner: Runner) -> None:
    """The master is killed; while nobody is in its place calls are refused, then they go on by themselves."""

    async def work(redis: Redis, scripts: ScriptRunner) -> None:
        assert [1] == await scripts.run(COUNT, [COUNTED], [])
        await check_fit(redis)
        assert 1 == await redis.wait(1, 5000)
        await asyncio.to_thread(until, watched.is_replicated)
        await asyncio.to_thread(watched.master.kill)
        with pytest.raises(LedgerUnavailable):
            await scripts.run(COUNT, [COUNTED], [])
        await asyncio.to_thread(until, watched.is_promoted)
        assert [2] == await scripts.run(COUNT, [COUNTED], [])
        assert b"2" == await redis.get(COUNTED)

    with_redis(open_redis(watched.url, 5), runner, work)


@BOTH
def test_in_a_cluster_an_organisation_is_followed_to_where_it_moves(cluster: Cluster, runner: Runner) -> None:
    """MOVED means not done: fifty at once are done once each, and whatever has no key of its own goes there too."""
    target = cluster.other(ORG)

    async def work(redis: Redis, scripts: ScriptRunner) -> None:
        await check_fit(redis)
        assert [1] == await scripts.run(COUNT, [COUNTED], [])
        await asyncio.to_thread(cluster.move, ORG, target)
        replies = await asyncio.gather(*(scripts.run(COUNT, [COUNTED], []) for _ in range(50)))
        assert list(range(2, 52)) == sorted(reply[0] for reply in replies)  # type: ignore[type-var]
        assert target.port == (await redis.info("server"))["tcp_port"]
        await check_fit(redis)

    with_redis(open_redis(cluster.url, 5, org=ORG), runner, work)


@pytest.mark.parametrize("whole", [True, False], ids=["transaction", "pipeline"])
def test_commands_sent_together_are_done_together_where_the_books_are(cluster: Cluster, *, whole: bool) -> None:
    """Refused together by who has them no more, clock and all, then done once."""

    async def work(redis: Redis, _scripts: ScriptRunner) -> None:
        for number, target in enumerate((cluster.owner(ORG), cluster.other(ORG)), 1):
            await asyncio.to_thread(cluster.move, ORG, target)
            pipeline = redis.pipeline(transaction=whole)
            pipeline.incr(COUNTED)
            pipeline.time()
            pipeline.get(COUNTED)
            counted, _, read = await pipeline.execute()
            assert (number, str(number).encode()) == (counted, read)

    with_redis(open_redis(cluster.url, 5, org=ORG), RUNNERS[0], work)


@BOTH
def test_while_its_keys_are_moved_one_by_one_a_call_is_refused_as_not_done(cluster: Cluster, runner: Runner) -> None:
    """Some keys are here, some there: neither side runs a script. The move's end is noticed by itself."""
    target = cluster.other(ORG)

    async def work(redis: Redis, scripts: ScriptRunner) -> None:
        assert [1] == await scripts.run(COUNT, [COUNTED, NOTHING], [])
        owner = await asyncio.to_thread(cluster.begin_move, ORG, target)
        for moved in (False, True):
            if moved:
                await asyncio.to_thread(cluster.move_keys, ORG, owner, target)
            with pytest.raises(LedgerUnavailable) as refused:
                await scripts.run(COUNT, [COUNTED, NOTHING], [])
            assert not refused.value.maybe_applied
            with pytest.raises(RedisError):
                async with one_master(redis, NOTHING):
                    pass
        await asyncio.to_thread(cluster.end_move, ORG, target)
        assert [2] == await scripts.run(COUNT, [COUNTED, NOTHING], [])

    with_redis(open_redis(cluster.url, 5, org=ORG), runner, work)


def test_pages_that_were_read_from_two_masters_are_refused(cluster: Cluster) -> None:
    """A cursor means nothing to another server, and that one would not say so."""
    target = cluster.other(ORG)

    async def work(redis: Redis, _scripts: ScriptRunner) -> None:
        async with one_master(redis, NOTHING):
            await redis.set(COUNTED, 1)
        with pytest.raises(Misdirected):
            async with one_master(redis, NOTHING):
                await asyncio.to_thread(cluster.move, ORG, target)

    with_redis(open_redis(cluster.url, 5, org=ORG), RUNNERS[0], work)


@BOTH
def test_in_a_cluster_a_replica_takes_its_masters_place(
    cluster: Cluster, tmp_path: Path, started: list[Server], runner: Runner
) -> None:
    """Who was killed cannot say where the books are: the map is read again."""
    master = cluster.owner(ORG)
    replica = cluster.add_replica(tmp_path / "replica", master)
    started.append(replica)

    async def work(redis: Redis, scripts: ScriptRunner) -> None:
        assert [1] == await scripts.run(COUNT, [COUNTED], [])
        assert 1 == await redis.wait(1, 5000)
        await asyncio.to_thread(master.kill)
        with pytest.raises(LedgerUnavailable):
            await scripts.run(COUNT, [COUNTED], [])
        await asyncio.to_thread(until, lambda: replica.ask("ROLE")[0] == "master")
        others = [node for node in cluster.nodes if node is not master]
        await asyncio.to_thread(until, lambda: all(knows(node, replica) for node in others))
        assert [2] == await scripts.run(COUNT, [COUNTED], [])

    with_redis(open_redis(cluster.url, 5, org=ORG), runner, work)


def knows(node: Server, master: Server) -> bool:
    return any(each[2][1] == master.port for each in node.ask("CLUSTER SLOTS"))


def test_a_node_of_the_cluster_that_would_evict_is_refused(cluster: Cluster) -> None:
    """Also one that has none of the organisation's slots: tomorrow it may, and pointers of jobs lie on it today."""
    assert cluster.other(ORG).ask("CONFIG SET", "maxmemory-policy", "allkeys-lru")

    async def work(redis: Redis, _scripts: ScriptRunner) -> None:
        with pytest.raises(UnfitRedis, match=r"allkeys-lru.*noeviction"):
            await check_fit(redis)

    with_redis(open_redis(cluster.url, 5, org=ORG), RUNNERS[0], work)


def test_a_single_servers_url_is_refused_for_a_cluster(cluster: Cluster) -> None:
    """It would find the books only until they move; the text says what to write instead."""
    for node in cluster.nodes:

        async def work(redis: Redis, _scripts: ScriptRunner) -> None:
            with pytest.raises(UnfitRedis, match=r"redis\+cluster://"):
                await check_fit(redis)

        with_redis(open_redis(node.url, 5), RUNNERS[0], work)


def test_organisations_on_different_masters_keep_their_books(cluster: Cluster) -> None:
    """Each client is that of its organisation; jobs are found by any, for their pointers lie anywhere."""
    names = [f"org{number}" for number in range(50)]
    orgs = [next(name for name in names if cluster.owner(name) is node) for node in cluster.nodes]
    with open_bench(cluster.url, *orgs) as benches:
        for number, bench in enumerate(benches, 1):
            request = bench.call(1000, hold_id=f"h{number}")
            bench.run(bench.ledger.admit(request))
            job = Job(f"{number}", "signed", request, bench.now_ms())
            assert bench.run(bench.jobs.bind(job, 0))
            bench.run(bench.ledger.settle(request, capture(number)))
            assert (number, 0) == bench.spent_and_held(RED)
            assert job == bench.run(bench.jobs.find(f"{number}", "signed"))
            assert [] == violations(bench.books())


def open_following(told: Told) -> Redis:
    again = Retry(NoBackoff(), 1, supported_errors=(Misdirected,))
    return Redis.from_pool(FollowingPool(told, connection_class=FollowingConnection, retry=again))
