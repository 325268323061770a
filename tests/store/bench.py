"""The store on a real Valkey, as plain test functions call it: one organisation with two teams.

organisation acme → team red → user an → key notebook
                             → (no user) key robot
                  → team blue → user binh → key desk
"""

import asyncio
import contextlib
import itertools
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, TypeVar, cast

from redis.asyncio import Redis

from gateway.billing.adjustment import Adjusted, Adjustment, NotAdjusted
from gateway.billing.budget import Budget, Calendar, Span, Spans, Window
from gateway.billing.credit import NotPaid, Paid, Payment
from gateway.billing.ledger import RELEASE, Books, Entry, Posting
from gateway.billing.limits import RATES, Rate
from gateway.billing.principal import Principal, Scope, ScopeKind
from gateway.billing.scope import ScopeSettings
from gateway.billing.usage import Usage
from gateway.store.adjustments import Adjustments
from gateway.store.admission import Decision, HoldRequest
from gateway.store.audit import Audit
from gateway.store.cells import TAG, read_cells
from gateway.store.connection import open_redis
from gateway.store.credits import Credits
from gateway.store.jobs import KEEP_MS, Job, Jobs
from gateway.store.keys import Keys
from gateway.store.leases import Leases
from gateway.store.ledger import Ledger
from gateway.store.packed import ScopeState, unpack_scope
from gateway.store.periods import counts_at_ms, period_of
from gateway.store.reports import Reports
from gateway.store.scopes import Scopes
from gateway.store.scripts import RedisScripts, ScriptRunner

T = TypeVar("T")

ORG = "acme"
ORGANISATION, RED, BLUE = Scope("organisation", ORG), Scope("team", "red"), Scope("team", "blue")
AN, BINH = Scope("user", "an"), Scope("user", "binh")
NOTEBOOK, ROBOT, DESK = Scope("key", "notebook"), Scope("key", "robot"), Scope("key", "desk")
SCOPES = (ORGANISATION, RED, BLUE, AN, BINH, NOTEBOOK, ROBOT, DESK)

BY_NOTEBOOK = Principal(ORG, "red", "an", "notebook")
BY_ROBOT = Principal(ORG, "red", None, "robot")
BY_DESK = Principal(ORG, "blue", "binh", "desk")

AXIS_OF: dict[ScopeKind, str] = {"organisation": "org", "team": "team", "user": "user", "key": "key"}
IN_UTC = Calendar(UTC)
DAY_MS = 24 * 3_600_000
_DEADLINE_AT = 24  # bytes into a packed hold (ADR 0003)
_ARRIVALS_AT = 176  # bytes into a packed scope
NEVER = Spans(Span(0, 0), Span(0, 0), Span(0, 0))
REFUND = Posting("refund", usage=Usage(units=1))


def plain_scripts(redis: Redis) -> ScriptRunner:
    """As the gateway runs them."""
    return RedisScripts(redis, 5)


def capture(cost_nano_usd: int, *flags: str) -> Posting:
    return Posting("capture", cost_nano_usd, Usage(prompt_tokens=10, completion_tokens=5), flags=flags)


@dataclass(frozen=True, slots=True)
class ToldCalendar(Calendar):
    """A calendar whose windows are told to it: what a day's turn does is seen without waiting for midnight."""

    spans: Spans = NEVER

    def spans_at(self, instant_ms: int) -> Spans:
        return self.spans


class Bench:
    """Synchronous face of the store; `org` keeps two organisations apart on one server."""

    def __init__(
        self,
        url: str,
        runner: asyncio.Runner,
        org: str = ORG,
        *,
        calendar: Calendar = IN_UTC,
        scripts_on: Callable[[Redis], ScriptRunner] = plain_scripts,
    ) -> None:
        self.runner = runner
        self.org = org
        self.keys = Keys(org)
        self.redis: Redis = open_redis(url, 5, org=org)
        self.scripts = scripts_on(self.redis)
        self.calendar = calendar
        self.scopes = Scopes(self.redis, self.scripts)
        self.jobs = Jobs(self.redis, self.scripts)
        self.credits = Credits(self.scripts)
        self.adjustments = Adjustments(self.scripts, calendar)
        self.ledger = self.ledger_of(self.calendar)
        self.reports = Reports(self.redis, self.scripts, self.ledger, self.calendar)
        self.leases = Leases(self.redis, self.scripts, self.ledger, lease_s=30)
        self.audit = Audit(self.redis, self.ledger, self.reports, calendar, org)
        self._numbers = itertools.count(1)

    def run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.runner.run(awaited())

    def listed(self, found: AsyncIterator[T]) -> list[T]:
        async def collected() -> list[T]:
            return [one async for one in found]

        return self.run(collected())

    def together(self, works: Sequence[Awaitable[T]]) -> list[T]:
        """All at once; their results in order."""

        async def gathered() -> list[T]:
            return await asyncio.gather(*works)

        return self.run(gathered())

    def ledger_of(self, calendar: Calendar) -> Ledger:
        return Ledger(self.redis, self.scripts, calendar, lease_s=30)

    def at_windows(self, *, days_ago: int = 0, starts_ms: int | None = None) -> Ledger:
        """A ledger that believes day, week and month began some days ago (or at `starts_ms`), and end tomorrow."""
        now_ms = self.now_ms()
        start_ms = now_ms - 1 - days_ago * DAY_MS if starts_ms is None else starts_ms
        span = Span(start_ms, now_ms + DAY_MS)
        return self.ledger_of(ToldCalendar(UTC, 0, Spans(span, span, span)))

    def lay_out(self) -> None:
        """Create the organisation, teams, users and keys of this module's docstring, none with a budget.

        The price list in force is called v1.
        """
        self.put(ScopeSettings("organisation", self.org, timezone="UTC"))
        self.run(self.redis.set(self.keys.price_lists, "9007199254740991 v1\n"))
        for team in (RED, BLUE):
            self.put(ScopeSettings("team", team.id))
        self.put(ScopeSettings("user", "an", team="red"))
        self.put(ScopeSettings("user", "binh", team="blue"))
        self.put(ScopeSettings("key", "notebook", team="red", user="an"))
        self.put(ScopeSettings("key", "robot", team="red"))
        self.put(ScopeSettings("key", "desk", team="blue", user="binh"))

    def put(self, settings: ScopeSettings) -> None:
        self.run(self.scopes.create(self.org, settings))

    def change(self, scope: Scope, **changes: Any) -> None:
        """Change a scope's settings, as PATCH does."""
        old = self.run(self.scopes.read(self.org, scope))
        values = {name: getattr(old.settings, name) for name in ScopeSettings.__dataclass_fields__}
        assert self.run(self.scopes.replace(self.org, old, ScopeSettings(**{**values, **changes})))

    def limit(self, scope: Scope, limit_nano_usd: int, window: Window = "total") -> None:
        self.change(scope, budgets=(Budget(window, limit_nano_usd),))

    def call(
        self,
        amount_nano_usd: int,
        who: Principal = BY_NOTEBOOK,
        *,
        hold_id: str = "",
        model: str = "gpt-4o-mini",
        kind: str = "chat",
        tokens: int = 0,
        images: int = 0,
        tags: tuple[str, ...] = (),
    ) -> HoldRequest:
        hold_id = hold_id or f"h{next(self._numbers)}"
        owner = Principal(self.org, who.team, who.user, who.key)
        request = HoldRequest(hold_id, f"req-{hold_id}", owner, kind, model, amount_nano_usd, "v1", tokens, images)
        return request._replace(tags=tags)

    def admit(self, request: HoldRequest) -> Decision:
        return self.run(self.ledger.admit(request))

    def fill_until(self, scope: Scope, rate: Rate, full_until_ms: int) -> None:
        """Make a bucket one that is refilled at that time, wherever the clock was when it was filled."""

        async def fill() -> None:
            name = self.keys.state(scope)
            packed = bytearray(cast(bytes, await self.redis.get(name)))
            struct.pack_into("<d", packed, _ARRIVALS_AT + 8 * RATES.index(rate), full_until_ms)
            await self.redis.set(name, bytes(packed))

        self.run(fill())

    def lapse(self, request: HoldRequest) -> None:
        """Let the hold's lease be over: as if a minute had passed since its deadline."""

        async def set_back() -> None:
            name, past_ms = self.keys.hold(request.hold_id), await self.scopes.now_ms() - 60_000
            packed = bytearray(cast(bytes, await self.redis.get(name)))
            struct.pack_into("<d", packed, _DEADLINE_AT, past_ms)
            await self.redis.set(name, bytes(packed))
            await self.redis.zadd(self.keys.leases, {request.hold_id: past_ms})

        self.run(set_back())

    def settle(self, request: HoldRequest, posting: Posting = RELEASE) -> bool:
        return self.run(self.ledger.settle(request, posting)).changed

    def pay(
        self, scope: Scope, amount_nano_usd: int, *, source: Scope | None = None, payment_id: str = ""
    ) -> Paid | NotPaid:
        """A credit, or a transfer from `source`; each with an id of its own unless one is given."""
        return self.run(self.paying(scope, amount_nano_usd, source=source, payment_id=payment_id))

    async def paying(
        self, scope: Scope, amount_nano_usd: int, *, source: Scope | None = None, payment_id: str = ""
    ) -> Paid | NotPaid:
        payment = Payment(payment_id or f"c{next(self._numbers)}", scope, amount_nano_usd, source, "November", "admin")
        target, giver = [(await self.scopes.get(self.org, one))[0] if one else None for one in (scope, source)]
        assert target
        return await self.credits.pay(self.org, payment, target, giver)

    def adjust(
        self, scope: Scope, amount_nano_usd: int, *, at_ms: int | None = None, adjustment_id: str = ""
    ) -> Adjusted | NotAdjusted:
        """A correction made by hand, for the instant `at_ms` (now)."""
        adjustment = Adjustment(
            adjustment_id or f"a{next(self._numbers)}", scope, amount_nano_usd, "why", "admin", at_ms
        )
        target = self.run(self.scopes.get(self.org, scope))[0]
        return self.run(self.adjustments.post(self.org, adjustment, target, self.now_ms()))

    def prepaid(self, scope: Scope, amount_nano_usd: int = 0) -> None:
        """Give a scope a prepaid budget and so much credit."""
        self.change(scope, budgets=(Budget("prepaid"),))
        if amount_nano_usd:
            assert isinstance(self.pay(scope, amount_nano_usd), Paid)

    def credit(self, scope: Scope) -> tuple[int, int, int]:
        """Paid in, spent, held."""
        credit = self.state(scope).credit
        return credit.paid_in_nano_usd, credit.spent_nano_usd, credit.held_nano_usd

    def submitted_job(
        self, cost_nano_usd: int, who: Principal = BY_NOTEBOOK, jobid: str = "1", tags: tuple[str, ...] = ()
    ) -> Job:
        """An image job, charged and bound to its owner."""
        request = self.call(cost_nano_usd, who, model="realvision", kind="image", tags=tags)
        self.admit(request)
        job = Job(jobid, f"signature-{jobid}", request, self.now_ms())
        self.run(self.jobs.bind(job, self.now_ms()))
        self.settle(request, Posting("capture", cost_nano_usd, Usage(units=1)))
        return job

    def refund(self, job: Job) -> str:
        return self.run(self.ledger.refund(job, REFUND, KEEP_MS)).outcome

    def state(self, scope: Scope) -> ScopeState:
        return self.run(self.scopes.get(self.org, scope))[1]

    def states(self, scopes: Sequence[Scope]) -> list[ScopeState]:
        packed = self.run(self.redis.mget([self.keys.state(scope) for scope in scopes]))
        return [unpack_scope(cast(bytes, value)) for value in packed]

    def spent_and_held(self, scope: Scope, window: Window = "total") -> tuple[int, int]:
        balance = self.state(scope).balance(window, self.calendar.spans_at(self.now_ms()))
        return balance.spent_nano_usd, balance.held_nano_usd

    def entries(self) -> list[Entry]:
        return self.run(self.ledger.entries(self.org))

    def now_ms(self) -> int:
        return self.run(self.scopes.now_ms())

    def everything(self) -> dict[bytes, bytes]:
        """All keys and their values: equal before and after what must write nothing."""

        async def dump() -> dict[bytes, bytes]:
            keys = cast(list[bytes], await self.redis.keys("*"))
            return {key: cast(bytes, await self.redis.dump(key)) for key in sorted(keys)}

        return self.run(dump())

    def books(self) -> Books:
        """Everything the invariants are about, the reports brought up to date."""
        return self.run(self._books())

    async def _books(self) -> Books:
        scopes = (Scope("organisation", self.org), *SCOPES[1:])
        packed = cast(list[bytes | None], await self.redis.mget([self.keys.state(scope) for scope in scopes]))
        states = {scope: unpack_scope(value) for scope, value in zip(scopes, packed, strict=True) if value}
        entries = await self.ledger.entries(self.org)
        return Books(
            entries=entries,
            holds=await self.ledger.open_holds(self.org),
            spent={scope: state.spent_nano_usd for scope, state in states.items()},
            held={scope: state.held_nano_usd for scope, state in states.items()},
            credit={scope: state.credit for scope, state in states.items()},
            reported=await self._reported(entries),
            tagged=await self._tagged(entries),
        )

    async def _tagged(self, entries: Sequence[Entry]) -> dict[str, int]:
        costs: dict[str, int] = defaultdict(int)
        async for cell in read_cells(self.redis, self.keys, TAG, "day", self._days_of(entries), None):
            costs[cell.id] += cell.measures.cost_nano_usd
        return costs

    def _days_of(self, entries: Sequence[Entry]) -> list[str]:
        return sorted({period_of(self.calendar, counts_at_ms(self.calendar, entry), "day") for entry in entries})

    async def _reported(self, entries: Sequence[Entry]) -> dict[Scope, int]:
        days = self._days_of(entries)
        reported: dict[Scope, int] = defaultdict(int)

        async def read(kind: ScopeKind, axis: str) -> None:
            async for cell in read_cells(self.redis, self.keys, axis, "day", days, None):
                if cell.id:
                    reported[Scope(kind, cell.id)] += cell.measures.cost_nano_usd

        await self.reports.catch_up(self.org)
        await asyncio.gather(*(read(kind, axis) for kind, axis in AXIS_OF.items()))
        return reported


@contextlib.contextmanager
def open_bench(
    url: str, *orgs: str, scripts_on: Callable[[Redis], ScriptRunner] = plain_scripts
) -> Iterator[list[Bench]]:
    """A laid-out bench for each organisation, closed with the block."""
    with asyncio.Runner() as runner:
        benches = [Bench(url, runner, org, scripts_on=scripts_on) for org in orgs or (ORG,)]
        for bench in benches:
            bench.lay_out()
        yield benches
        for bench in benches:
            bench.run(bench.redis.aclose())
