"""The books get another master in the middle of calls: a failover of Sentinel's, and a cluster's slot that moves."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.books import ORG
from tests.e2e.client import CHAT, OpenAnswer, send, stream
from tests.e2e.waiting import until
from tests.faults.reckoning import Figures, open_holds, reckon, wait_until_nothing_is_held, wait_until_nothing_is_owed
from tests.faults.steps import CALLERS, calling
from tests.servers import SERVICE, Cluster, Watched, servers
from tests.stack import UPSTREAM_KEY, Admin, Process, Stack, chat

pytestmark = pytest.mark.slow

LEASE_S = 10.0
"""Longer than any of it takes, so that each call ends its own hold."""
STREAMS = 4


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with servers() as started:
        yield Watched(tmp_path, started)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with servers() as started:
        yield Cluster(tmp_path, started)


def test_streams_outlive_the_master_that_held_them(watched: Watched, emulator_url: str, figures: Figures) -> None:
    """Killed in mid-stream, once its replica has their holds: they end as ever, and the new master has every charge.
    Until there is one, new calls are refused and free."""
    with stack_on(watched.url, emulator_url) as stack:
        gateway, admin, key = gateway_on(stack)
        with streams_half_way(stack, gateway, key) as streams:
            until(watched.is_replicated)
            watched.master.kill()
            assert 503 == send(gateway.url, CHAT, chat("Anyone?"), key).status
            until(watched.is_promoted)
            assert STREAMS == open_holds(stack)
            until(lambda: send(gateway.url, CHAT, chat("Back?"), key).status == 200)
            stack.emulator.post("/__release")
            for answer in streams:
                assert answer.read_rest().endswith(b"data: [DONE]\n\n")
        reckoned(stack, admin, figures, STREAMS + 1, "master killed in mid-stream, failover by Sentinel")


def test_a_failover_that_is_agreed_on_loses_nothing_under_load(
    watched: Watched, emulator_url: str, figures: Figures
) -> None:
    """Callers that never pause, while the master hands over: it stops, its replica has all, and takes its place."""
    with stack_on(watched.url, emulator_url) as stack:
        gateway, admin, key = gateway_on(stack)
        with calling(gateway, key) as statuses:
            until(lambda: statuses.count(200) >= CALLERS)
            assert watched.sentinel.ask("SENTINEL FAILOVER", SERVICE, "COORDINATED")
            until(watched.is_promoted)
            served = statuses.count(200)
            until(lambda: statuses.count(200) >= served + CALLERS)
        assert set(statuses) <= {200, 503}
        reckoned(stack, admin, figures, statuses.count(200), "failover by Sentinel, agreed on, under load")


def test_a_slot_that_moves_under_load_is_followed(cluster: Cluster, emulator_url: str, figures: Figures) -> None:
    """In one step, which no caller notices; back key by key, which refuses calls meanwhile and settles those that run.
    Each call was either served and charged exactly, or refused and free."""
    home, target = cluster.owner(ORG), cluster.other(ORG)
    with stack_on(cluster.url, emulator_url) as stack:
        gateway, admin, key = gateway_on(stack)
        with streams_half_way(stack, gateway, key) as streams, calling(gateway, key) as statuses:
            until(lambda: statuses.count(200) >= CALLERS)
            cluster.move(ORG, target)
            moved = len(statuses)
            until(lambda: len(statuses) >= moved + 2 * CALLERS)
            assert {200} == set(statuses)
            owner = cluster.begin_move(ORG, home)
            until(lambda: 503 in statuses)
            stack.emulator.post("/__release")
            for answer in streams:
                assert answer.read_rest().endswith(b"data: [DONE]\n\n")
            cluster.move_keys(ORG, owner, home)
            cluster.end_move(ORG, home)
            served = statuses.count(200)
            until(lambda: statuses.count(200) >= served + CALLERS)
        assert {200, 503} == set(statuses)
        reckoned(stack, admin, figures, STREAMS + statuses.count(200), "slot moved twice under load")


@contextlib.contextmanager
def stack_on(url: str, emulator_url: str) -> Iterator[Stack]:
    with contextlib.ExitStack() as processes:
        stack = Stack(url, emulator_url, processes)
        processes.callback(stack.emulator.close)
        stack.emulator.post("/__reset")
        processes.callback(stack.emulator.post, "/__release")
        yield stack


def gateway_on(stack: Stack) -> tuple[Process, Admin, str]:
    """A gateway, its administrator and a sub-key."""
    gateway = stack.gateway(lease_s=str(LEASE_S))
    admin = Admin(gateway.url)
    return gateway, admin, admin.key("moved")["key"]


@contextlib.contextmanager
def streams_half_way(stack: Stack, gateway: Process, key: str) -> Iterator[list[OpenAnswer]]:
    """Streams that have begun and wait for the upstream."""
    with contextlib.ExitStack() as streams:
        body = chat("Streaming [[fault:withhold_after=3]]")
        begun = [streams.enter_context(stream(gateway.url, CHAT, body, key)) for _ in range(STREAMS)]
        for answer in begun:
            answer.read_event()
        yield begun


def reckoned(stack: Stack, admin: Admin, figures: Figures, served: int, what: str) -> None:
    """Every call that was served is charged exactly, every other is free, and whoever verifies finds nothing; told as
    `what`."""
    wait_until_nothing_is_owed(admin)
    took_s = wait_until_nothing_is_held(stack, LEASE_S)
    reckoning = reckon(stack)
    assert [] == reckoning.faults()
    assert set() == reckoning.estimated()
    assert served == len(reckoning.exact()) == len(reckoning.lines)
    verify = Process("ledger", "verify", env={"REDIS_URL": stack.redis_url, "MINITOOLAI_API_KEY": UPSTREAM_KEY})
    assert 0 == verify.wait(), verify.output
    figures.add(what, reckoning, [took_s])
