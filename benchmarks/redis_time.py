"""Server time of the two scripts that every call runs: `.venv/bin/python -m benchmarks.redis_time`.

A server of its own, without persistence and on a CPU of its own, is driven through `Ledger` as the gateway drives it:
calls below four scopes, each with budgets of a month and a day and limits of requests, tokens and calls at once; 16
admissions in one write, then their 16 settlements. The time of a script is Redis's own (`INFO commandstats`): all that
happens between a command that was read and its reply. CPU is that of the whole server process, sockets and all.

Every server at hand is measured in turn, round by round; the median of the rounds is shown. `--growth` shows what
becomes of the time as the books grow, beside small books in the same rounds.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any, TypeVar, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from benchmarks.processes import cpu_s_of
from benchmarks.report import Figure, Outcome, Row, text_of
from gateway.billing.budget import Budget, Calendar
from gateway.billing.ledger import Posting, Progress
from gateway.billing.limits import Limits
from gateway.billing.principal import Principal, Scope
from gateway.billing.scope import ScopeSettings
from gateway.billing.usage import Usage
from gateway.store.admission import Admitted, HoldRequest
from gateway.store.connection import open_redis
from gateway.store.embedded import server_program
from gateway.store.keys import Keys
from gateway.store.ledger import Ledger
from gateway.store.records import Fields
from gateway.store.scopes import Scopes
from gateway.store.scripts import Argument, RedisScripts, Reply, Script, load

T = TypeVar("T")

TARGET_US = 110
GROWTH_PERCENT_MAX = 5
AT_ONCE = 16
KEYS, TEAMS, ENTRIES = 100_000, 10_000, 300_000
ORG = "bench"
CALLER = Principal(ORG, "red", "an", "notebook")
BUDGETS = (Budget("month", 9_000 * 10**9), Budget("day", 9_000 * 10**9))
LIMITS = Limits(requests_per_minute=6_000_000, tokens_per_minute=900_000_000, concurrent_requests=10_000)
CHAT = HoldRequest("", "", CALLER, "chat", "gpt-4o-mini", 602_550, "v1", 1_017, so_far=Progress(2_550, Usage(17, 0)))
CAPTURE = Posting("capture", 4_350, Usage(prompt_tokens=17, completion_tokens=3))
_WARM_UP = 20 * AT_ONCE
_READY_S = 10
_COPIES_AT_ONCE = 1_000
_CPUS = sorted(os.sched_getaffinity(0))
_REPEAT_ENTRY = """
for _ = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2)) end
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """Microseconds a call: each script, and the CPU of the server process for both."""

    admit_us: float
    settle_us: float
    cpu_us: float

    @property
    def both_us(self) -> float:
        return self.admit_us + self.settle_us


@dataclass(frozen=True, slots=True)
class Books:
    """A server with books of some size, and who calls in turn."""

    name: str
    url: str
    pid: int
    callers: Sequence[Principal] = (CALLER,)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Server time of admit and settle.")
    parser.add_argument("--pairs", type=int, default=20_000, help="calls a round, each an admission and a settlement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--growth", action="store_true", help="also beside large books (some minutes)")
    options = parser.parse_args()
    print(text_of("redis", asyncio.run(scripts(options.pairs, options.rounds))))
    if options.growth:
        print(text_of("redis growth", asyncio.run(growth(options.pairs, options.rounds))))


async def scripts(pairs: int, rounds: int) -> Outcome:
    """Time and CPU of both scripts on every server at hand."""
    with ExitStack() as running_servers:
        books = [Books(name, *running_servers.enter_context(running(program))) for name, program in servers().items()]
        for each in books:
            await prepare(each)
        found = await compared(books, pairs, rounds)
    rows, targets = list[Row](), list[Figure]()
    for name, figures in found.items():
        rows.append(_row(name, figures))
        targets.append(Figure(f"{name}: both scripts, µs", figures.both_us, TARGET_US))
    return Outcome(rows, targets)


async def growth(pairs: int, rounds: int, scale: float = 1) -> Outcome:
    """Time of both scripts as the books of the bundled server grow; `scale` shrinks them all."""
    keys, teams, entries = (int(count * scale) for count in (KEYS, TEAMS, ENTRIES))
    with ExitStack() as running_servers:
        small, many_keys, many_teams, long_ledger = (
            Books(name, *running_servers.enter_context(running(server_program())), callers)
            for name, callers in (
                ("1 key", [CALLER]),
                (f"{keys:,} keys", [Principal(ORG, "red", "an", f"key-{n}") for n in range(keys)]),
                (f"{teams:,} teams", [Principal(ORG, f"team-{n}", f"user-{n}", f"key-{n}") for n in range(teams)]),
                (f"{entries:,} entries", [CALLER]),
            )
        )
        for each in (small, many_keys, many_teams, long_ledger):
            await prepare(each)
        await lengthen(long_ledger, entries)
        found = await compared([small, many_keys, many_teams, long_ledger], pairs, rounds)
    base = found.pop(small.name)
    rows = [_row(small.name, base), *(_row(name, figures) for name, figures in found.items())]
    targets = [
        Figure(f"{name}: both scripts, grown by %", 100 * (figures.both_us / base.both_us - 1), GROWTH_PERCENT_MAX)
        for name, figures in found.items()
    ]
    return Outcome(rows, targets)


def _row(name: str, figures: Figures) -> Row:
    return {
        "side": name,
        "admit µs": figures.admit_us,
        "settle µs": figures.settle_us,
        "both µs": figures.both_us,
        "CPU µs/call": figures.cpu_us,
    }


async def compared(books: Sequence[Books], pairs: int, rounds: int) -> dict[str, Figures]:
    """Medians of rounds in which each has its turn; by their names."""
    found: dict[str, list[Figures]] = {each.name: [] for each in books}
    for _ in range(rounds):
        for each in books:
            found[each.name].append(await measure(each, pairs))
    return {
        name: Figures(*(statistics.median(column) for column in zip(*map(_columns, figures), strict=True)))
        for name, figures in found.items()
    }


def _columns(figures: Figures) -> tuple[float, float, float]:
    return figures.admit_us, figures.settle_us, figures.cpu_us


def servers() -> dict[str, str]:
    """Name and program of every server at hand: the one the gateway brings along, and Debian's."""
    found = {"bundled": server_program(), "redis-server": shutil.which("redis-server")}
    return {name: program for name, program in found.items() if program}


async def prepare(books: Books) -> None:
    """One organisation, team, user and key, with budgets and limits each; and copies of them for every other caller."""
    async with connected(books.url) as redis:
        scopes = Scopes(redis, RedisScripts(redis, 60))
        await redis.set(Keys(ORG).price_lists, "9007199254740991 v1\n")
        for settings in (
            ScopeSettings("organisation", ORG, timezone="UTC"),
            ScopeSettings("team", CALLER.team),
            ScopeSettings("user", cast(str, CALLER.user), team=CALLER.team),
            ScopeSettings("key", CALLER.key, team=CALLER.team, user=CALLER.user),
        ):
            await scopes.create(ORG, replace(settings, budgets=BUDGETS, limits=LIMITS))
        for script in ("admit", "settle"):
            await redis.script_load(load(script).source)
        # Copies of a scope that was called today: a first call of the day has windows to turn.
        await measure(Books(books.name, books.url, books.pid), AT_ONCE)
        packed = cast(bytes, await redis.get(Keys(ORG).state(Scope("key", CALLER.key))))
        missing = {Keys(ORG).state(scope) for caller in books.callers for scope in caller.scopes()}
        missing -= {Keys(ORG).state(scope) for scope in CALLER.scopes()}
        names = sorted(missing)
        for first in range(0, len(names), _COPIES_AT_ONCE):
            await redis.mset(dict.fromkeys(names[first : first + _COPIES_AT_ONCE], packed))


async def lengthen(books: Books, count: int) -> None:
    """Make a ledger so many entries longer, by copies of its last."""
    await measure(books, AT_ONCE)
    async with connected(books.url) as redis:
        rows = cast(list[tuple[bytes, Fields]], await redis.xrevrange(Keys(ORG).ledger, count=1))
        values = [part for pair in rows[0][1].items() for part in pair]
        for first in range(0, count, _COPIES_AT_ONCE):
            copies = min(_COPIES_AT_ONCE, count - first)
            await cast(Awaitable[object], redis.eval(_REPEAT_ENTRY, 1, Keys(ORG).ledger, copies, *values))


async def measure(books: Books, pairs: int) -> Figures:
    """The time of `pairs` calls, after some that warm up."""
    async with connected(books.url) as redis:
        batches = Batches(redis)
        ledger = Ledger(redis, batches, Calendar(UTC), lease_s=30)
        await _drive(ledger, batches, books.callers, _WARM_UP)
        began_s = cpu_s_of(books.pid)
        admitting_us, settling_us = await _drive(ledger, batches, books.callers, pairs)
        cpu_us = 1e6 * (cpu_s_of(books.pid) - began_s)
    return Figures(admitting_us / pairs, settling_us / pairs, cpu_us / pairs)


async def _drive(ledger: Ledger, batches: "Batches", callers: Sequence[Principal], pairs: int) -> tuple[int, int]:
    """Microseconds of all admissions and of all settlements; each call is of the next caller."""
    admitting_us = settling_us = 0
    for first in range(0, pairs, AT_ONCE):
        calls = [_call(callers[number % len(callers)]) for number in range(first, min(first + AT_ONCE, pairs))]
        decisions, spent_us = await batches.run_all([ledger.admit(call) for call in calls])
        admitting_us += spent_us
        settled, spent_us = await batches.run_all([ledger.settle(call, CAPTURE) for call in calls])
        settling_us += spent_us
        if not all(isinstance(decision, Admitted) for decision in decisions) or not all(one.changed for one in settled):
            raise RuntimeError(f"not admitted, or not settled: {decisions}, {settled}")
    return admitting_us, settling_us


def _call(caller: Principal) -> HoldRequest:
    name = f"req-{os.urandom(12).hex()}"
    return CHAT._replace(hold_id=name, request_id=name, principal=caller)


class Batches:
    """A `ScriptRunner` that sends in one write what was asked for at once, and learns what it cost the server."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._asked: list[tuple[Script, Sequence[str], Sequence[Argument], asyncio.Future[Reply]]] = []

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asked.append((script, keys, args, reply))
        return await reply

    async def run_all(self, works: Sequence[Coroutine[Any, Any, T]]) -> tuple[list[T], int]:
        """Results of works that run one script each, and the scripts' time (µs)."""
        tasks = [asyncio.ensure_future(work) for work in works]
        await asyncio.sleep(0)  # each task now waits for the reply of its script
        asked, self._asked = self._asked, []
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.info("commandstats")
        for script, keys, args, _ in asked:
            pipeline.execute_command("EVALSHA", script.digest, len(keys), *keys, *args)
        pipeline.info("commandstats")
        before, *replies, after = await pipeline.execute()
        for (*_, reply), value in zip(asked, replies, strict=True):
            reply.set_result(value)
        return list(await asyncio.gather(*tasks)), _scripts_us(after) - _scripts_us(before)


def _scripts_us(stats: dict[str, dict[str, int]]) -> int:
    return stats.get("cmdstat_evalsha", {"usec": 0})["usec"]


@contextmanager
def running(program: str) -> Iterator[tuple[str, int]]:
    """URL and pid of a new server on the last CPU; this process on the others meanwhile. Its data go with it."""
    with tempfile.TemporaryDirectory(prefix="redis-time-") as folder:
        path = f"{folder}/redis.sock"
        arguments = ["--port", "0", "--unixsocket", path, "--dir", folder, "--save", "", "--appendonly", "no"]
        process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
        try:
            os.sched_setaffinity(process.pid, _CPUS[-1:])
            os.sched_setaffinity(0, _CPUS[:-1] or _CPUS)
            yield f"unix://{path}", process.pid
        finally:
            os.sched_setaffinity(0, _CPUS)
            process.kill()
            process.wait()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Redis]:
    """A client of a server that may still be starting. Raises redis-py's errors: it does not come up."""
    redis = open_redis(url, 60)
    try:
        await _answers(redis)
        yield redis
    finally:
        await redis.aclose()


async def _answers(redis: Redis) -> None:
    deadline_s = time.monotonic() + _READY_S
    while True:
        try:
            await redis.ping()
            return
        except (RedisError, OSError):
            if time.monotonic() > deadline_s:
                raise
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    main()
