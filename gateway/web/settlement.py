"""Work that must end even when nobody waits for it any more: calls on their way, and their settlements.

A task that owns an upstream connection or owes a posting is never cancelled. It is started here, so it is known; the
lifespan's end awaits all of them. A posting that Redis does not answer is sent again with the same id until it is
answered: the script makes that safe.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import RELEASE, Posting
from gateway.metrics import Metrics
from gateway.store.admission import HoldRequest
from gateway.store.jobs import Job, Jobs
from gateway.store.ledger import Ledger

log = logging.getLogger("gateway.settlement")

T = TypeVar("T")

_FIRST_RETRY_S = 0.05
_LONGEST_RETRY_S = 2.0


class Tasks:
    """Detached tasks by which a call is brought to its end."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._hurry: set[Callable[[], None]] = set()
        self.hurried = False

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def on_hurry(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when the grace time for open streams is over; returns what takes that back."""
        self._hurry.add(callback)
        if self.hurried:
            callback()
        return lambda: self._hurry.discard(callback)

    @contextlib.asynccontextmanager
    async def unless_hurried(self) -> AsyncIterator["Deadline"]:
        """Run a block that ends with TimeoutError when the grace time is over, or earlier if its deadline is moved."""
        async with asyncio.timeout(None) as timeout:
            deadline = Deadline(timeout)
            forget = self.on_hurry(lambda: deadline.at_most(0))
            try:
                yield deadline
            finally:
                forget()

    def hurry(self) -> None:
        """The grace time is over: every stream is to end now."""
        self.hurried = True
        for callback in tuple(self._hurry):
            callback()

    async def finished(self, timeout_s: float) -> int:
        """Wait for all tasks, those they start meanwhile included; returns how many run on when the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._running:
                    await asyncio.wait(self._running)
        except TimeoutError:
            pass  # the caller is told how many
        return len(self._running)


class Deadline:
    """The end of a block's time, which only ever moves forward in the queue: the earliest wish wins."""

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout

    def at_most(self, seconds: float) -> None:
        """End the block no later than so many seconds from now."""
        when = asyncio.get_running_loop().time() + seconds
        current = self._timeout.when()
        if not self._timeout.expired() and (current is None or when < current):
            self._timeout.reschedule(when)


class Settlements:
    """Ends holds, for certain. `owed` counts the postings that no answer has confirmed yet."""

    def __init__(self, ledger: Ledger, jobs: Jobs, tasks: Tasks, metrics: Metrics) -> None:
        self._ledger = ledger
        self._jobs = jobs
        self._tasks = tasks
        self._metrics = metrics
        self.owed = 0

    def settle(self, hold: HoldRequest, posting: Posting) -> asyncio.Task[None]:
        """Post in the background, again and again until Redis answers."""
        return self._tasks.start(self._settle(hold, posting))

    def settle_job(self, hold: HoldRequest, posting: Posting, job: Job, first_poll_ms: int) -> asyncio.Task[None]:
        """The same for an image job, which is bound to its owner first: who is charged can also be refunded.

        A Redis that is full takes settlements, which free memory, and no new jobs: there the charge goes first.
        """

        async def bind_and_settle() -> None:
            try:
                bound = await self._jobs.bind(job, first_poll_ms)
            except Exception as error:  # whatever it was: the charge goes first, and the job is bound after it
                if not isinstance(error, LedgerUnavailable):
                    log.exception("job of request %s was not bound; trying again", hold.request_id)
                await self._settle(hold, posting)
                bound = await until_answered(lambda: self._jobs.bind(job, first_poll_ms))
            else:
                await self._settle(hold, posting)
            if not bound:
                log.warning("request %s was answered with another call's job: polls go to that one", hold.request_id)

        return self._tasks.start(bind_and_settle())

    def release(self, hold: HoldRequest) -> asyncio.Task[None]:
        """Give a hold back; also one whose admission had no answer and may or may not stand."""
        return self.settle(hold, RELEASE)

    async def _settle(self, hold: HoldRequest, posting: Posting) -> None:
        self.owed += 1
        with self._metrics.settlements_owed.track_inprogress(), self._metrics.settlement_lag.time():
            settled = await until_answered(lambda: self._ledger.settle(hold, posting))
        self.owed -= 1
        for crossing in settled.crossings:
            self._metrics.observe_crossing(crossing)
        if posting.cost_nano_usd and settled.posted_nano_usd != posting.cost_nano_usd:
            # Redis lost the hold (restored from an old copy?) or it ended otherwise: this charge stands in no ledger.
            log.error(
                "hold %s: %d nano-USD are not posted; the ledger has %s",
                hold.hold_id,
                posting.cost_nano_usd,
                settled.posted_nano_usd,
            )


class Ending:
    """The one end of one hold: whoever posts first decides, later postings are ignored."""

    def __init__(self, settlements: Settlements, hold: HoldRequest, wait_s: float) -> None:
        self._settlements = settlements
        self._hold = hold
        self._wait_s = wait_s
        self.posting: Posting | None = None

    async def post(self, posting: Posting) -> None:
        """End the hold; returns when that is written, or after `wait_s` while it goes on in the background."""
        if self.posting is None:
            self.posting = posting
            await self._bounded(self._settlements.settle(self._hold, posting))

    async def post_job(self, posting: Posting, job: Job, first_poll_ms: int) -> None:
        """End the hold of a submitted image job."""
        if self.posting is None:
            self.posting = posting
            await self._bounded(self._settlements.settle_job(self._hold, posting, job, first_poll_ms))

    async def _bounded(self, task: asyncio.Task[None]) -> None:
        await asyncio.wait({task}, timeout=self._wait_s)


async def until_answered(attempt: Callable[[], Awaitable[T]]) -> T:
    """Repeat something idempotent until the ledger answers."""
    pause_s = _FIRST_RETRY_S
    while True:
        try:
            return await attempt()
        except LedgerUnavailable:
            pass
        except Exception:  # money must not be lost by a fault of ours either: it is shown, and tried again
            log.exception("a settlement failed; trying again in %.2f s", pause_s)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_RETRY_S)
