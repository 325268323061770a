"""Fifty clients at a time leave in the middle of their streams: all are billed exactly, nothing is used up by it."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.client import CHAT, send, stream
from tests.faults.effort import REPEATS
from tests.faults.reckoning import Figures, reckon, wait_until_nothing_is_held
from tests.stack import Admin, Process, Stack, chat

pytestmark = pytest.mark.slow

CLIENTS = 50
CONNECTIONS = 2 * CLIENTS
"""Of them half may be drained at a time."""
BODY = chat("Please stay [[fault:tokens=40;gap=0.003]]")
ROUNDS = 2 + REPEATS
WARM_ROUNDS = 2
GROWTH_BYTES_MAX = 12 * 1024 * 1024


def test_clients_that_leave_anywhere_are_billed_exactly_and_cost_no_connection(stack: Stack, figures: Figures) -> None:
    """Each stream is read on to its usage. Then as many calls as there are connections run at once and the next finds
    none; memory does not grow from round to round."""
    chance = random.Random(20261122)  # noqa: S311  # a plan that repeats, not a secret
    gateway = stack.gateway(upstream_connections_max=str(CONNECTIONS), upstream_connect_timeout_s="0.5")
    key = Admin(gateway.url).key("leavers")["key"]
    events = send(gateway.url, CHAT, BODY, key).body.count(b"\n\n")
    resident_bytes = []
    for _ in range(ROUNDS):
        chunks = [chance.randrange(events) for _ in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as pool:
            left = [pool.submit(leave_after, gateway, key, read) for read in chunks]
        assert [None] * CLIENTS == [client.result() for client in left]
        stack.bill()
        wait_until_nothing_is_held(stack, 0)
        resident_bytes.append(resident_bytes_of(gateway))
    reckoning = reckon(stack)
    assert [] == reckoning.faults()
    assert 1 + ROUNDS * CLIENTS == len(reckoning.exact()) == len(reckoning.lines)
    assert resident_bytes[-1] - resident_bytes[WARM_ROUNDS - 1] < GROWTH_BYTES_MAX, resident_bytes
    assert_no_connection_is_lost(stack, gateway, key)
    growth_kib = (resident_bytes[-1] - resident_bytes[WARM_ROUNDS - 1]) // 1024
    figures.add(f"{CLIENTS} clients leave, {ROUNDS} times; memory {growth_kib:+} KiB", reckoning)


def leave_after(gateway: Process, key: str, read: int) -> None:
    """Read so many events of a stream, and go."""
    with stream(gateway.url, CHAT, BODY, key) as answer:
        for _ in range(read):
            answer.read_event()


def assert_no_connection_is_lost(stack: Stack, gateway: Process, key: str) -> None:
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        running = [pool.submit(send, gateway.url, CHAT, chat("[[fault:withhold]]"), key) for _ in range(CONNECTIONS)]
        stack.emulator.get("/__withheld", params={"at_least": str(CONNECTIONS)})
        assert "overloaded" == send(gateway.url, CHAT, chat("One too many"), key).error["code"]
        stack.emulator.post("/__release")
        assert [200] * CONNECTIONS == [call.result().status for call in running]


def resident_bytes_of(gateway: Process) -> int:
    """What the process has in memory now."""
    status = Path(f"/proc/{gateway.pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024
