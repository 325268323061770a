"""TLS with verification, and users with a password and few rights, in every form of REDIS_URL that has a host."""

import asyncio
from pathlib import Path

import pytest

from gateway.billing.ledger import violations
from gateway.store.connection import UnfitRedis, check_fit, open_redis
from gateway.store.multiplex import MultiplexedScripts
from tests.e2e.waiting import until
from tests.servers import AUTHORITY, SERVICE, Server, cluster_arguments, confine, free_port, servers
from tests.store.bench import RED, capture, open_bench

pytestmark = pytest.mark.debian

CA = f"ssl_ca_certs={AUTHORITY}"


def refused(url: str) -> str:
    """Why the gateway would not start on it."""

    async def check() -> None:
        redis = open_redis(url, 2)
        try:
            await check_fit(redis)
        finally:
            await redis.aclose()

    with pytest.raises(UnfitRedis) as fault:
        asyncio.run(check())
    return str(fault.value)


def keep_books(url: str) -> None:
    """The gateway starts on it, and a call is held, settled and reported, by the shared connection."""
    with open_bench(url, scripts_on=lambda redis: MultiplexedScripts(redis, 5)) as (bench,):
        bench.run(check_fit(bench.redis))
        request = bench.call(1000)
        bench.run(bench.ledger.admit(request))
        bench.run(bench.ledger.settle(request, capture(7)))
        assert (7, 0) == bench.spent_and_held(RED)
        assert [] == violations(bench.books())
        assert isinstance(bench.scripts, MultiplexedScripts)
        bench.run(bench.scripts.close())


def test_one_server(tmp_path: Path) -> None:
    """Whoever the given authority has not signed is not talked to, nor is one with another's name."""
    with servers() as started:
        started.append(Server(tmp_path, tls=True))
        port = started[0].port
        user = confine(started[0])
        keep_books(f"rediss://{user}@localhost:{port}/0?{CA}")
        assert "certificate verify failed" in refused(f"rediss://{user}@localhost:{port}/0")
        assert "certificate" in refused(f"rediss://{user}@127.0.0.1:{port}/0?{CA}")
        assert "invalid username-password" in refused(f"rediss://books:wrong@localhost:{port}/0?{CA}")


def test_a_cluster(tmp_path: Path) -> None:
    """Its nodes go by their addresses, which this certificate does not name: only who signed it is looked at."""
    with servers() as started:
        node = Server(tmp_path, *cluster_arguments(), "--tls-cluster", "yes", tls=True)
        started.append(node)
        assert node.ask("CLUSTER ADDSLOTSRANGE", 0, 16383)
        until(lambda: node.ask("CLUSTER INFO")["cluster_state"] == "ok")
        user = confine(node)
        keep_books(f"rediss+cluster://{user}@localhost:{node.port}?ssl_check_hostname=no&{CA}")
        assert "certificate verify failed" in refused(f"rediss+cluster://{user}@localhost:{node.port}")


def test_sentinel(tmp_path: Path) -> None:
    """Sentinels have a user of their own, and TLS where the servers have it."""
    with servers() as started:
        master = Server(tmp_path / "master", tls=True)
        started.append(master)
        config = f"""
            tls-replication yes
            sentinel resolve-hostnames yes
            sentinel announce-hostnames yes
            sentinel monitor {SERVICE} localhost {master.port} 1
            """
        watcher = Server(tmp_path / "sentinel", "--sentinel", config=config, tls=True)
        started.append(watcher)
        user = confine(master)
        assert watcher.ask("ACL SETUSER", "watched", "on", ">asked", "+@all")
        assert watcher.ask("ACL SETUSER", "default", "off")
        url = f"rediss+sentinel://{user}@localhost:{watcher.port},localhost:{free_port()}/{SERVICE}?{CA}"
        keep_books(f"{url}&sentinel_username=watched&sentinel_password=asked")
        assert "no Sentinel that answers" in refused(url)
