"""Scripts: sent by digest, known again after a restart, and content with the keys they declare."""

import asyncio
import os
import signal

import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from gateway.billing.adjustment import Adjustment
from gateway.billing.audit import Difference
from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import NOT_TOLD, violations
from gateway.billing.price_schedule import DatedPrice, PriceSchedule
from gateway.billing.prices import ModelPrice
from gateway.billing.reconciliation import Figure
from gateway.billing.scope import ScopeSettings
from gateway.billing.upstream_account import AccountChange
from gateway.store.adjustments import Adjustments
from gateway.store.admission import Admitted
from gateway.store.archive import Archive, Archiver, RawEntry
from gateway.store.audit import Findings
from gateway.store.bookkeeping import Bookkeeping
from gateway.store.changes import Change, Changes
from gateway.store.connection import open_redis
from gateway.store.embedded import EmbeddedRedis
from gateway.store.leases import Leases
from gateway.store.ledger import Ledger
from gateway.store.prices import PriceBooks
from gateway.store.quarantine import Quarantine
from gateway.store.reconciliations import Reconciliations
from gateway.store.scripts import SCRIPTS, RedisScripts, Script, TranslatedFaults, load, with_constants
from gateway.store.secrets import Secrets
from gateway.store.upstream_account import UpstreamAccounts
from tests.store.bench import DAY_MS, NOTEBOOK, ORG, RED, Bench, capture
from tests.store.strict import DeclaredKeysOnly, StrictScripts

TEAM_RED = ScopeSettings("team", "red")


async def entries_of(archiver: Archiver) -> list[RawEntry]:
    return [raw async for raw in archiver.entries()]


def test_every_key_a_script_touches_is_declared(bench: Bench, valkey: EmbeddedRedis) -> None:
    """On Redis Cluster an undeclared key may lie in another slot; here the server's own access rules refuse it."""
    confined = StrictScripts(bench.redis, valkey.url)
    for part in (bench.scopes, bench.jobs, bench.reports, bench.credits):
        part._scripts = confined
    bench.ledger._scripts = confined
    bench.org, bench.keys = "walled", type(bench.keys)("walled")
    bench.lay_out()
    bench.limit(bench.run(bench.scopes.page("walled", "team", after="", limit=1))[0][0].scope, 5)
    assert "refunded" == bench.refund(bench.submitted_job(100))
    bench.run(bench.jobs.finish(bench.submitted_job(100, jobid="2"), "success"))
    running = bench.call(1)
    bench.admit(running)
    bench.run(Leases(bench.redis, confined, bench.ledger, 30).renew("walled", [(running.hold_id, NOT_TOLD)]))
    early = bench.call(1)
    bench.settle(early)
    bench.run(bench.jobs.claim_due("walled", 5))
    bench.run(bench.reports.catch_up("walled"))
    bench.prepaid(RED, 100)
    bench.run(UpstreamAccounts(bench.redis, confined).enter("walled", AccountChange("a1", "top_up", 100)))
    reconciliations = Reconciliations(bench.redis, confined, bench.reports)
    bench.run(reconciliations.reconcile("walled", Figure("f1", 0, DAY_MS, 100)))
    bench.run(
        Adjustments(confined, bench.calendar).post("walled", Adjustment("a2", RED, 1, "", ""), TEAM_RED, bench.now_ms())
    )
    lost = bench.call(1)
    bench.settle(lost, capture(1))
    assert bench.run(Quarantine(bench.redis, confined).dismiss("walled", lost.hold_id, "admin"))
    books = Bookkeeping(bench.redis, confined, bench.reports, "walled")
    sheet = bench.keys.sheet("day", "2026-11", "team", "red")
    wrong = [Difference("team red", "spent", 1, 1), Difference("", "2026-11-21|m|chat|requests", 1, 1, sheet=sheet)]
    bench.run(books.repair(Findings(differences=wrong)))
    entries = bench.run(entries_of(Archiver(bench.redis, "walled")))
    bench.run(books.trim(bench.now_ms() + 1, Archive(entries=entries)))
    listed = PriceSchedule([DatedPrice("m", "image", 0, ModelPrice("m", "image", unit_pico_usd=1))])
    bench.run(PriceBooks(bench.redis, confined).seed("walled", listed))
    notebook = bench.run(bench.scopes.read("walled", NOTEBOOK))
    bench.run(Secrets(bench.redis, confined).rotate("walled", notebook, "digest-of-the-new", 0, None))
    bench.run(
        Changes(bench.redis, confined, kept=0).begin("walled", Change("r", "admin", "admin", "create", "teams", ""))
    )
    assert set(SCRIPTS) == confined.ran
    bench.run(confined.redis.aclose())
    bench.run(bench.redis.acl_deluser("confined"))


def test_the_wall_of_that_test_stands(bench: Bench, valkey: EmbeddedRedis) -> None:
    """A script that touches one key more is refused, or the test above would prove nothing."""
    confined = DeclaredKeysOnly(bench.redis, valkey.url)
    nosy = Script("nosy", "return redis.call('GET', 'undeclared')", "0" * 40)
    with pytest.raises(LedgerUnavailable):
        bench.run(confined.run(nosy, ["declared"], []))
    bench.run(confined.redis.aclose())
    bench.run(bench.redis.acl_deluser("confined"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_it_takes_and_gives(name: str) -> None:
    """KEYS, ARGV and Returns in its head; the digest is that of its source, as Redis will count it."""
    source = load(name).source
    for word in (f"-- {name}: ", "-- KEYS", "-- ARGV", "-- Returns"):
        assert word in source
    assert load(name) == load(name)


def test_constants_stand_in_a_script_as_their_values() -> None:
    """A local that a function uses costs every run an object; text, comments and other names stay as they are."""
    source = (
        "local A, B_MS = -1, 24 * 3600  -- B_MS\nlocal f = A + B_MS\nlocal C = f()\nlocal g = 'A' .. AB .. C -- A\n"
    )
    expected = "-- B_MS\nlocal f = -1 + (24 * 3600)\nlocal C = f()\nlocal g = 'A' .. AB .. C -- A\n"
    assert expected == with_constants(source)


def test_a_constant_of_two_values_is_none() -> None:
    """The parts of a script share their names: the later would silently stand for the earlier."""
    with pytest.raises(ValueError, match="A is defined twice"):
        with_constants("local A, B = 1, 'x'\nlocal A = 2\n")


def test_a_redis_that_forgot_its_scripts_is_told_again(bench: Bench) -> None:
    """After a restart, a failover or SCRIPT FLUSH the next call works as any other, and is counted once."""
    first, second = bench.call(10), bench.call(20)
    bench.admit(first)
    bench.run(bench.redis.script_flush())
    assert isinstance(bench.admit(second), Admitted)
    bench.run(bench.redis.script_flush())
    assert bench.settle(second, capture(20))
    assert (20, 10) == bench.spent_and_held(RED)
    assert [] == violations(bench.books())


def test_a_redis_that_does_not_answer_is_given_up(bench: Bench, valkey: EmbeddedRedis) -> None:
    """Within the bound; what it was asked may have been done all the same, so it is asked again by the same id."""
    hasty = Ledger(bench.redis, RedisScripts(bench.redis, 0.05), bench.calendar, 30)
    bench.admit(bench.call(1))
    assert valkey.pid is not None
    request = bench.call(100)
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        with pytest.raises(LedgerUnavailable) as refused:
            bench.run(hasty.admit(request))
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    assert 2 == refused.value.retry_after_s
    bench.admit(request)
    assert (0, 101) == bench.spent_and_held(RED)


def test_a_closed_port_is_the_ledger_that_cannot_be_reached(bench: Bench) -> None:
    """Connection errors of redis-py never leave the store; nothing is tried again behind our back."""
    away = open_redis("redis://127.0.0.1:1", 2)
    with pytest.raises(LedgerUnavailable):
        bench.run(RedisScripts(away, 2).run(load("claim_jobs"), ["k"], [1, 1]))
    bench.run(away.aclose())


@pytest.mark.parametrize(
    "fault", [RedisConnectionError("gone"), ResponseError("LOADING"), OSError("no route"), TimeoutError()]
)
def test_every_fault_of_a_read_is_the_ledgers(bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    """503 wherever it is met: the socket and the clock fail in other ways than redis-py does."""

    async def fail(*_args: object, **_kwargs: object) -> None:
        raise fault

    for command in ("mget", "get", "zcard", "zrange", "zrangebylex", "xrange", "time"):
        monkeypatch.setattr(bench.redis, command, fail)
    for read in (
        bench.scopes.get(ORG, RED),
        bench.scopes.page(ORG, "team", after="", limit=1),
        bench.scopes.now_ms(),
        bench.ledger.entries(ORG),
        bench.ledger.open_hold_count(ORG),
        bench.ledger.open_holds(ORG),
        bench.jobs.find("1", "s"),
        bench.reports.catch_up(ORG),
    ):
        with pytest.raises(LedgerUnavailable) as unavailable:
            bench.run(read)
        assert fault is unavailable.value.__cause__


def test_a_mistake_of_ours_is_not_redis_away() -> None:
    """Else a bug would be served as an outage, and looked for in the wrong place."""
    with pytest.raises(KeyError), TranslatedFaults():
        raise KeyError


def test_a_connection_that_ends_just_before_it_is_written_to_is_an_outage(valkey: EmbeddedRedis) -> None:
    """uvloop, on which the gateway runs, says so in a way of its own; the call must hear 503 all the same."""

    async def write_too_late() -> None:
        _, writer = await asyncio.open_unix_connection(valkey.url.removeprefix("unix://"))
        writer.transport.abort()
        with TranslatedFaults():
            while True:
                writer.writelines([b"PING\r\n"])
                await asyncio.sleep(0)

    with pytest.raises(LedgerUnavailable) as caught:
        uvloop.run(write_too_late())
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_fault_of_our_own_is_no_outage() -> None:
    """It is to be found in the log and mended, not waited for."""
    with pytest.raises(RuntimeError, match="mine"), TranslatedFaults():
        raise RuntimeError("mine")
