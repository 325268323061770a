"""The leases of running calls: renewed by whoever runs them, ended by anyone once nobody does.

Calls that end within one interval are never renewed, and nothing is counted for them: most calls.
"""

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import Progress
from gateway.billing.prices import ModelPrice
from gateway.metrics import Metrics
from gateway.store.admission import HoldRequest
from gateway.store.leases import Leases
from gateway.upstream.leg import Cutoff
from gateway.wire.call import Call, CountPrompt, Measured, Outcome
from gateway.wire.charge import estimate, posting_of, prompt_tokens_of

log = logging.getLogger("gateway.leases")

_RENEWED_AT_ONCE = 64
_EXPIRED_AT_ONCE = 100
_LONGEST_LOOK_S = 1.0
_CUT_OFF_EACH_S = 1.0
_SOONER = 8
"""So much sooner than else is tried again what failed."""
_CLOCK_STEP_S = 1.0


@dataclass(slots=True)
class RunningCall:
    """A call on its way; `told` is what its lease was last renewed with. Its prompt is counted once, when it is due."""

    call: Call
    price: ModelPrice
    hold: HoldRequest
    meter: Measured
    admitted_at_s: float
    told: Progress
    cutoff: Cutoff | None = None
    prompt_tokens: int | None = None

    def count(self, outcome: Outcome, count: CountPrompt) -> None:
        """Bring `told` up to what was seen. Counts tokens: run it off the event loop."""
        posting = posting_of(self.call, self.price, self.hold.amount_nano_usd, outcome)
        if posting is None or posting.type == "release":
            if self.prompt_tokens is None:
                self.prompt_tokens = prompt_tokens_of(self.call, count)
            amount = self.hold.amount_nano_usd
            posting = estimate(self.call, self.price, amount, outcome, count, self.prompt_tokens)
        self.told = Progress(posting.cost_nano_usd, posting.usage)


class RunningCalls:
    """The calls of this process that hold money; renews their leases three times as often as they would end.

    One whose answer takes longer than `answer_s_max` seconds is cut off within another: an upstream that never ends
    would else keep its caller, a connection and the money for ever.
    """

    def __init__(self, leases: Leases, lease_s: float, count: CountPrompt, answer_s_max: float = math.inf) -> None:
        self._leases = leases
        self._count = count
        self._interval_s = lease_s / 3
        self._answer_s_max = answer_s_max
        self._running: dict[str, RunningCall] = {}

    def begin(
        self, call: Call, price: ModelPrice, hold: HoldRequest, meter: Measured, cutoff: Cutoff | None = None
    ) -> None:
        """From now on the hold's lease is renewed. `cutoff` ends the wait for the answer."""
        self._running[hold.hold_id] = RunningCall(call, price, hold, meter, time.monotonic(), hold.so_far, cutoff)

    def end(self, hold_id: str) -> None:
        """No more."""
        del self._running[hold_id]

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Counting has turns of its own: it may take long (megabytes for a second), and
        no lease must run out meanwhile, least of all of calls that were admitted since it began. What takes too long
        has other turns, for its bound is a person's patience."""
        await asyncio.gather(
            self._again_and_again(stop, self._interval_s, self._renew_all),
            self._again_and_again(stop, self._interval_s, self._count_all),
            self._again_and_again(stop, min(_CUT_OFF_EACH_S, self._answer_s_max), self._cut_off),
        )

    async def _again_and_again(
        self, stop: asyncio.Event, interval_s: float, work: Callable[[], Awaitable[None]]
    ) -> None:
        wait_s = interval_s
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait_s)
            wait_s = interval_s
            try:
                await work()
            except LedgerUnavailable:
                # Logged where it was found. A lease that was to be renewed for the first time has but one interval
                # left, and reapers that reach Redis themselves do not wait.
                wait_s = interval_s / _SOONER
            except Exception:  # one call that cannot be counted must not end the renewal of all others
                log.exception("renewing leases failed")

    async def _renew_all(self) -> None:
        """Put every lease off, with what was told last."""
        for org, due in self._due():
            await self._tell(org, due)

    async def _cut_off(self) -> None:
        """End what takes too long. Calls stand in the order they began in, so those that go on are not looked at."""
        too_long_s = time.monotonic() - self._answer_s_max
        late = itertools.takewhile(lambda running: running.admitted_at_s <= too_long_s, self._running.values())
        for running in tuple(late):
            if running.cutoff is not None:
                running.cutoff.strike()

    async def _count_all(self) -> None:
        """Count what every call has used by now, and tell it."""
        for org, due in self._due():
            outcomes: list[Outcome] = []
            for running in due:
                outcomes.append(running.meter.outcome())
                await asyncio.sleep(0)  # to read what was streamed takes a moment each; other calls go first
            await asyncio.to_thread(_count, due, outcomes, self._count)
            await self._tell(org, [running for running in due if running.hold.hold_id in self._running])

    def _due(self) -> list[tuple[str, list[RunningCall]]]:
        """Running calls by organisation, as many as one command takes; not those admitted less than an interval ago."""
        due_s = time.monotonic() - self._interval_s
        due = [running for running in self._running.values() if running.admitted_at_s <= due_s]
        due.sort(key=lambda running: running.hold.principal.org)
        batches: list[tuple[str, list[RunningCall]]] = []
        for org, of_org in itertools.groupby(due, key=lambda running: running.hold.principal.org):
            rest = list(of_org)
            while rest:
                batches.append((org, rest[:_RENEWED_AT_ONCE]))
                del rest[:_RENEWED_AT_ONCE]
        return batches

    async def _tell(self, org: str, due: Sequence[RunningCall]) -> None:
        expired = await self._leases.renew(org, [(running.hold.hold_id, running.told) for running in due])
        for hold_id in expired:
            if hold_id in self._running:
                log.warning(
                    "hold %s has expired while its call runs; its charge will be posted as a correction", hold_id
                )


def _count(due: Sequence[RunningCall], outcomes: Sequence[Outcome], count: CountPrompt) -> None:
    for running, outcome in zip(due, outcomes, strict=True):
        running.count(outcome, count)


class Reaper:
    """Ends holds that nobody renews; any number of gateways may run one.

    It expires nothing until one lease after it could reach Redis again (or its own or Redis's clock has leapt), for
    until then nobody may have been able to renew; and not before the postings in this machine's spool are made.
    """

    def __init__(
        self, leases: Leases, orgs: Sequence[str], metrics: Metrics, lease_s: float, replayed: asyncio.Event
    ) -> None:
        self._leases = leases
        self._orgs = orgs
        self._metrics = metrics
        self._lease_s = lease_s
        self._look_s = min(_LONGEST_LOOK_S, lease_s / 5)
        self._replayed = replayed
        self._seen: tuple[float, int] | None = None
        self._quiet_until_s = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set."""
        while not stop.is_set():
            try:
                await self._look()
            except LedgerUnavailable:
                self._seen = None  # logged where it was found
            except Exception:  # one hold that cannot be ended must not keep all others open
                log.exception("expiring holds failed")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._look_s)

    async def _look(self) -> None:
        now_ms = await self._leases.now_ms()
        if not self._saw_all_since(time.monotonic(), now_ms):
            self._quiet_until_s = time.monotonic() + self._lease_s
        if self._replayed.is_set() and time.monotonic() >= self._quiet_until_s:
            for org in self._orgs:
                await self._expire(org, now_ms)

    def _saw_all_since(self, now_s: float, redis_ms: int) -> bool:
        """Whether Redis answered the last look too, and neither clock has leapt or stood still since."""
        seen, self._seen = self._seen, (now_s, redis_ms)
        if seen is None:
            return False
        passed_s, passed_at_redis_s = now_s - seen[0], (redis_ms - seen[1]) / 1000
        return abs(passed_at_redis_s - passed_s) < _CLOCK_STEP_S and passed_s < self._look_s + self._lease_s / 2

    async def _expire(self, org: str, now_ms: int) -> None:
        """Page by page, until nothing is overdue or what is was renewed meanwhile."""
        expired = _EXPIRED_AT_ONCE
        while expired == _EXPIRED_AT_ONCE:
            expired = 0
            for hold in await self._leases.overdue(org, now_ms, _EXPIRED_AT_ONCE):
                settled, posting = await self._leases.expire(hold)
                expired += settled.changed
                if settled.changed:
                    self._metrics.observe_expiry(hold, posting, settled.crossings)
