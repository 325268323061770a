"""The scripts on Redis Cluster: `--on-cluster` runs any test of the store there, this one what they are made of."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway.billing.errors import LedgerUnavailable
from gateway.store.scripts import RedisScripts, Script
from tests.store.strict import OneNodeCluster, with_shebang

CORE = ("settle", "leases", "refund", "credits", "audit", "jobs", "reports", "scripts")


@pytest.mark.slow
def test_every_script_keeps_to_the_slot_and_the_keys_it_declares(repository: Path) -> None:
    """In a run of its own: `./run test tests/store --on-cluster` runs all of them."""
    files = [f"tests/store/test_{name}.py" for name in CORE]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--on-cluster", *files]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout


def test_a_cluster_refuses_a_script_that_leaves_its_slot(tmp_path: Path) -> None:
    """And only one with the prefix, or the run above would prove nothing."""
    server = OneNodeCluster(tmp_path)
    server.start()
    wide = Script("wide", "return {redis.call('EXISTS', '{other}key')}", "0" * 40)

    async def run_both() -> None:
        redis = Redis.from_url(server.url)
        scripts = RedisScripts(redis, 5)
        assert [0] == await scripts.run(wide, ["{one}key"], [])
        with pytest.raises(LedgerUnavailable):
            await scripts.run(with_shebang(wide), ["{one}key"], [])
        await redis.aclose()

    try:
        asyncio.run(run_both())
    finally:
        server.stop()
