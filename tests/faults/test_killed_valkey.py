"""Valkey is killed (SIGKILL) at admission, in mid-stream and at settlement, and comes back with what is on its disk."""

import contextlib
import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import redis

from gateway.store.embedded import EmbeddedRedis
from tests.e2e.client import CHAT, send, stream
from tests.e2e.waiting import until
from tests.faults.effort import REPEATS
from tests.faults.proxy import Does, Fault, RedisProxy
from tests.faults.reckoning import Figures, reckon, wait_until_nothing_is_held, wait_until_nothing_is_owed
from tests.faults.steps import CALLERS, calling, struck_together
from tests.stack import Admin, Stack, chat

pytestmark = pytest.mark.slow

LEASE_S = 1.0
CALLS = 4


@pytest.mark.parametrize("does", ["hold_command", "hold_reply"])
@pytest.mark.parametrize("step", ["admit", "settle"])
def test_a_valkey_killed_at_a_step_of_a_call_comes_back_with_the_books(
    stack: Stack, server: EmbeddedRedis, proxy: RedisProxy, figures: Figures, does: Does, step: str
) -> None:
    """Whether the step was done and not answered, or not done. A call that was not known to be admitted is refused and
    free; one that was is answered, and charged exactly when Valkey is back."""
    gateway = stack.gateway(proxy.url, lease_s=str(LEASE_S))
    admin = Admin(gateway.url)
    key = admin.key("struck")["key"]
    assert admin.http.get("/readyz").is_success
    took_s = []
    for _ in range(REPEATS):
        with ThreadPoolExecutor(CALLS) as pool:
            each = [partial(send, gateway.url, CHAT, chat(f"Call {n}"), key) for n in range(CALLS)]
            calls = struck_together(stack, proxy, pool, Fault(does, of=(step,)), each)
            kill(server)
            proxy.refuse()  # what was held is lost
            assert [503 if step == "admit" else 200] * CALLS == [call.result().status for call in calls]
        proxy.let_go()
        server.start()
        proxy.accept()
        until(lambda: send(gateway.url, CHAT, chat("Back?"), key).status == 200)
        took_s.append(wait_until_nothing_is_held(stack, LEASE_S))
        wait_until_nothing_is_owed(admin)  # or what is sent again meets the next round's fault
    reckoning = reckon(stack)
    assert [] == reckoning.faults()
    assert set() == reckoning.estimated()
    assert REPEATS * (1 if step == "admit" else CALLS + 1) == len(reckoning.lines) == len(reckoning.exact())
    what = "carried out" if does == "hold_reply" else "not carried out"
    figures.add(f"Valkey killed at {step}, {what}", reckoning, took_s)


def test_a_valkey_killed_in_mid_stream_is_not_felt_by_the_stream(
    stack: Stack, server: EmbeddedRedis, figures: Figures
) -> None:
    """Streams that were admitted before go on; some end while it is away, some after its return; all are exact."""
    gateway = stack.gateway(lease_s=str(LEASE_S))
    key = Admin(gateway.url).key("struck")["key"]
    took_s = []
    for _ in range(REPEATS):
        with contextlib.ExitStack() as streams:
            body = chat("Streaming [[fault:withhold_after=3]]")
            before = [streams.enter_context(stream(gateway.url, CHAT, body, key)) for _ in range(CALLS)]
            for answer in before:
                answer.read_event()
            kill(server)
            until(lambda: send(gateway.url, CHAT, chat("Anyone?"), key).status == 503)
            for ended in before[: CALLS // 2]:
                stack.emulator.post("/__release")
                assert ended.read_rest().endswith(b"data: [DONE]\n\n")
            server.start()
            for ended in before[CALLS // 2 :]:
                assert ended.read_rest().endswith(b"data: [DONE]\n\n")
        took_s.append(wait_until_nothing_is_held(stack, LEASE_S))
    reckoning = reckon(stack)
    assert [] == reckoning.faults()
    assert REPEATS * CALLS == len(reckoning.exact()) == len(reckoning.lines)
    figures.add("Valkey killed in mid-stream", reckoning, took_s)


def test_an_embedded_valkey_killed_again_and_again_under_load_keeps_the_books(
    emulator_url: str, figures: Figures
) -> None:
    """At moments that a seed chooses, while callers send chats and images without a pause; the gateway brings it back
    each time. Each call was either served and charged exactly, or refused and free."""
    chance = random.Random(20261122)  # noqa: S311  # a plan that repeats, not a secret
    with embedded_stack(emulator_url) as stack:
        gateway = stack.gateway(redis_url="", lease_s=str(LEASE_S))
        admin = Admin(gateway.url)
        key = admin.key("struck")["key"]
        with calling(gateway, key) as statuses:
            for _ in range(REPEATS):
                served, wanted = statuses.count(200), chance.randrange(1, 3 * CALLERS)
                until(lambda served=served, wanted=wanted: statuses.count(200) >= served + wanted)  # type: ignore[misc]
                kill_embedded(stack)
        assert {200, 503} == set(statuses)
        took_s = wait_until_nothing_is_held(stack, LEASE_S)
        wait_until_nothing_is_owed(admin)  # what expired before its settlement was tried again has been corrected
        reckoning = reckon(stack)
        assert [] == reckoning.faults()
        assert set() == reckoning.estimated()
        assert statuses.count(200) == len(reckoning.exact()) == len(reckoning.lines)
        figures.add(f"embedded Valkey killed {REPEATS} times under load", reckoning, [took_s])


@contextlib.contextmanager
def embedded_stack(emulator_url: str) -> Iterator[Stack]:
    """For one gateway that runs its own Valkey in the stack's data directory."""
    with contextlib.ExitStack() as processes:
        stack = Stack("", emulator_url, processes)
        processes.callback(stack.emulator.close)
        stack.redis_url = f"unix://{stack.data_dir / 'redis' / 'redis.sock'}"
        stack.emulator.post("/__reset")
        yield stack


def kill(server: EmbeddedRedis) -> None:
    assert server.pid
    os.kill(server.pid, signal.SIGKILL)
    server.stop()


def kill_embedded(stack: Stack) -> None:
    """Returns once another answers in its place."""
    killed = pid_of_embedded(stack)
    assert killed
    os.kill(killed, signal.SIGKILL)
    until(lambda: pid_of_embedded(stack) not in (None, killed))


def pid_of_embedded(stack: Stack) -> int | None:
    with redis.Redis.from_url(stack.redis_url) as client, contextlib.suppress(redis.RedisError):
        return int(client.info("server")["process_id"])
    return None
