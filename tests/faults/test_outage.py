"""Redis cannot be reached while calls end: clients feel nothing, the spool has their charges, the books catch up."""

import json
import resource
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.e2e.client import CHAT, Answer, send
from tests.e2e.waiting import until
from tests.faults.effort import OUTAGE_S
from tests.faults.proxy import RedisProxy
from tests.faults.reckoning import (
    Figures,
    gauge,
    reckon,
    spooled_bytes,
    wait_until_nothing_is_held,
    wait_until_nothing_is_owed,
)
from tests.stack import Admin, Process, Stack, chat

pytestmark = pytest.mark.slow

LEASE_S = 1.0
STREAMS = 30
EVENTS = 24
CAUGHT_UP_S = 10


def test_an_outage_is_not_felt_by_streams_and_leaves_exact_books(
    stack: Stack, proxy: RedisProxy, figures: Figures
) -> None:
    """Many leases long; streams that were admitted before it end all through it, each with its last byte, while new
    calls are refused and free. Once Redis is back, every charge is posted and no spool file has anything left."""
    gateway = stack.gateway(proxy.url, lease_s=str(LEASE_S))
    admin = Admin(gateway.url)
    key = admin.key("steady")["key"]
    with ThreadPoolExecutor(STREAMS) as pool:
        running = [pool.submit(send, gateway.url, CHAT, body, key) for body in bodies_ending_all_through()]
        stack.emulator.get("/__withheld", params={"at_least": str(STREAMS)})
        proxy.refuse()
        stack.emulator.post("/__release")
        refused = list(refusals_until_done(gateway, key, running))
    assert {(503, "ledger_unavailable")} == {(answer.status, answer.error["code"]) for answer in refused}
    assert [True] * STREAMS == [call.result().body.endswith(b"data: [DONE]\n\n") for call in running]
    # Beside them only releases of admissions that were cut off on their way.
    assert STREAMS <= gauge(admin, "gateway_spool_entries") == gauge(admin, "gateway_settlements_owed")
    proxy.accept()
    took_s = wait_until_nothing_is_owed(admin, CAUGHT_UP_S)
    until(lambda: spooled_bytes(stack) == 0)
    reckoning = reckon(stack)
    assert [] == reckoning.faults()
    assert STREAMS == len(reckoning.exact()) == len(reckoning.lines)
    late_ms = longest_wait_ms(gateway)
    what = f"Redis away for {OUTAGE_S:.0f} s, {len(refused)} calls refused, ends late by {late_ms:.0f} ms at most"
    figures.add(what, reckoning, [took_s])


def test_a_spool_that_a_crash_tore_keeps_all_but_its_last_record(
    stack: Stack, proxy: RedisProxy, figures: Figures
) -> None:
    """The kill came in the middle of a write: whole records are posted exactly, and the hold of the torn one, which
    nobody was told to be safe, expires as an estimate."""
    gateway = stack.gateway(proxy.url, lease_s=str(LEASE_S))
    key = Admin(gateway.url).key("torn")["key"]
    spool_during_an_outage(stack, proxy, gateway, key, calls=4)
    gateway.signal(signal.SIGKILL)
    gateway.wait()
    (path,) = (stack.data_dir / "spool").glob("*.spool")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 10)
    proxy.accept()
    restarted = stack.gateway(proxy.url, lease_s=str(LEASE_S))
    took_s = wait_until_nothing_is_held(stack, LEASE_S)
    until(lambda: spooled_bytes(stack) == 0)
    assert f"{path} ended in " in restarted.output
    reckoning = reckon(stack)
    assert [] == reckoning.faults()
    assert (3, 1) == (len(reckoning.exact()), len(reckoning.estimated()))
    figures.add("spool torn in its last record", reckoning, [took_s])


def test_a_disk_that_is_full_makes_the_gateway_not_ready_and_loses_nothing(
    stack: Stack, proxy: RedisProxy, figures: Figures
) -> None:
    """No byte can be written to any file: whoever spreads the load hears of it. Calls that end just then, without Redis
    too, are posted from memory; room on the disk makes the gateway ready again by itself."""
    gateway = stack.gateway(proxy.url)
    admin = Admin(gateway.url)
    key = admin.key("full")["key"]
    resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    health = admin.http.get("/readyz")
    assert (503, True, False) == (health.status_code, health.json()["redis"], health.json()["spool"])
    spool_during_an_outage(stack, proxy, gateway, key, calls=4)
    assert 0 == spooled_bytes(stack)
    proxy.accept()
    took_s = wait_until_nothing_is_owed(admin, CAUGHT_UP_S)
    resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert 200 == admin.http.get("/readyz").status_code
    reckoning = reckon(stack)
    assert [] == reckoning.faults()
    assert 4 == len(reckoning.exact()) == len(reckoning.lines)
    figures.add("disk full and Redis away", reckoning, [took_s])


def bodies_ending_all_through() -> Iterator[dict[str, object]]:
    """Streams that begin when they are released; the longest then lasts as long as the outage is to be."""
    for number in range(1, STREAMS + 1):
        gap_s = OUTAGE_S * number / STREAMS / EVENTS
        yield chat(f"Stream {number} [[fault:withhold;tokens={EVENTS};gap={gap_s:.4f}]]")


def refusals_until_done(gateway: Process, key: str, running: list[Future[Answer]]) -> Iterator[Answer]:
    """What new calls are answered as long as the others run."""
    while not all(call.done() for call in running):
        yield send(gateway.url, CHAT, chat("New"), key)


def spool_during_an_outage(stack: Stack, proxy: RedisProxy, gateway: Process, key: str, calls: int) -> None:
    """Calls that were admitted before Redis goes, and have their whole answers while it is away."""
    with ThreadPoolExecutor(calls) as pool:
        running = [pool.submit(send, gateway.url, CHAT, chat("[[fault:withhold]]"), key) for _ in range(calls)]
        stack.emulator.get("/__withheld", params={"at_least": str(calls)})
        proxy.refuse()
        stack.emulator.post("/__release")
        assert [True] * calls == [call.result().body.endswith(b"data: [DONE]\n\n") for call in running]


def longest_wait_ms(gateway: Process) -> float:
    """By the log: how much longer a call took than its upstream, at most."""
    lines = [json.loads(line) for line in gateway.output.splitlines() if line.startswith('{"at"')]
    served = [line for line in lines if line["event"] == "call" and line["status"] == 200]
    assert STREAMS == len(served)
    return max(float(line["duration_ms"] - line["upstream_ms"]) for line in served)
