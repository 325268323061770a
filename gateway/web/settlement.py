"""Work that must end even when nobody waits for it any more: calls on their way, and their settlements.

A task that owns an upstream connection or owes a posting is never cancelled. It is started here, so it is known; the
lifespan's end awaits all of them. A posting that Redis does not answer is sent again with the same id until it is
answered: the script makes that safe. Once it has waited for `wait_s` it is kept in the spool as well, so that it
outlives this process; nobody who waits for the posting waits longer than that.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Literal, TypeVar

from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import RELEASE, Posting
from gateway.metrics import Metrics
from gateway.store.admission import HoldRequest
from gateway.store.jobs import Job, Jobs
from gateway.store.ledger import Ledger, Settled
from gateway.store.scripts import Begun
from gateway.store.spool import LeftBehind, Spool
from gateway.store.spool_file import Owed
from gateway.wire.charge import disowned

log = logging.getLogger("gateway.settlement")

T = TypeVar("T")

Binding = Literal["own", "foreign", "later"]
"""Whose an image job is: its call's, another's that was answered the same pair before, or not known yet."""

_FIRST_RETRY_S = 0.05
_LONGEST_RETRY_S = 2.0
_REPLAY_INTERVAL_S = 2.0


class Tasks:
    """Detached tasks by which a call is brought to its end."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self.calls: set[asyncio.Task[None]] = set()
        """Those that serve a client."""
        self._to_hurry: set[Callable[[], None]] = set()
        self.hurried = False

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._create(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def start_call(self, call: Coroutine[Any, Any, None]) -> None:
        """The same for what serves a client: `calls_ended` waits for it."""
        task = self._create(call)
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)

    def _create(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        # To be asked which loop runs, Python 3.11 asks the system for the process's id, and that several times a call.
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.create_task(work)

    def on_hurry(self, callback: Callable[[], None]) -> None:
        """Call back when the grace time for open streams is over; at once where it is. `forget` takes that back."""
        self._to_hurry.add(callback)
        if self.hurried:
            callback()

    def forget(self, callback: Callable[[], None]) -> None:
        self._to_hurry.discard(callback)

    def hurry(self) -> None:
        """The grace time is over: every stream is to end now."""
        self.hurried = True
        for callback in tuple(self._to_hurry):
            callback()

    async def calls_ended(self, timeout_s: float) -> None:
        """Wait for all calls, but no longer; each ends soon after `hurry`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.calls:
                    await asyncio.wait(self.calls)

    async def finished(self, timeout_s: float) -> int:
        """Wait for all tasks, those they start meanwhile included; returns how many run on when the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._running or self.calls:
                    await asyncio.wait(self._running | self.calls)
        except TimeoutError:
            pass  # the caller is told how many
        return len(self._running) + len(self.calls)


class Patience:
    """Waits for replies, for each at most `wait_s`: one timer for all of them, where `asyncio.wait` makes one each."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, reply: "asyncio.Future[Any]") -> bool:
        """Whether it is done, failed or not, before its time is over."""
        loop = reply.get_loop()
        ended = loop.create_future()
        reply.add_done_callback(lambda _: None if ended.done() else ended.set_result(None))
        self._waiting.append((loop.time() + self._wait_s, ended))
        if self._timer is None:
            self._timer = loop.call_later(self._wait_s, self._expire, loop)
        await ended
        return reply.done()

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now_s = loop.time()
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= now_s):
            ended = self._waiting.popleft()[1]
            if not ended.done():
                ended.set_result(None)
        if self._waiting:
            self._timer = loop.call_at(self._waiting[0][0], self._expire, loop)


class Settlements:
    """Ends holds, for certain. `owed` counts the postings that no answer has confirmed yet."""

    def __init__(self, ledger: Ledger, jobs: Jobs, tasks: Tasks, metrics: Metrics, spool: Spool, wait_s: float) -> None:
        self._ledger = ledger
        self._jobs = jobs
        self._tasks = tasks
        self._metrics = metrics
        self._spool = spool
        self._wait_s = wait_s
        self._patience = Patience(wait_s)
        self.owed = 0
        self.replayed = asyncio.Event()
        """Set once the postings that earlier processes left in the spool are made."""

    async def settle(self, owed: Owed) -> Posting:
        """Post, again and again until Redis answers; returns when it is posted, or safe in the spool.

        Returns what is posted: with a flag more where a job turns out to be another call's.
        Who calls it is one of `Tasks`, so that nothing cancels it. Nearly every posting is answered at once, which
        needs no task of its own; whatever else becomes of it goes on in the background.
        """
        self._owe(1)
        began_s = time.perf_counter()
        begun = None if owed.jobs else self._begun(owed)
        if begun is not None and await self._patience.wait(begun.reply):
            if self._is_settled(owed, begun, began_s):
                self._owe(-1)
                return owed.posting
            begun = None
        posted = self._tasks.start(self._post(owed, begun, began_s))
        left_s = began_s + self._wait_s - time.perf_counter()
        if left_s > 0:
            await asyncio.wait({posted}, timeout=left_s)
        if posted.done():
            return posted.result()
        await self._keep(owed, posted)
        return owed.posting

    def release(self, hold: HoldRequest) -> asyncio.Task[Posting]:
        """Give a hold back; also one whose admission had no answer and may or may not stand."""
        return self._tasks.start(self.settle(Owed(hold, RELEASE)))

    async def replay(self, stop: asyncio.Event) -> None:
        """Until `stop` is set: make the postings of processes that ended before Redis answered them."""
        while not stop.is_set():
            try:
                made = [await self._post_again(left) for left in await self._spool.left_behind()]
                if all(made):
                    self.replayed.set()
            except Exception:  # whatever keeps the folder from being read, another look may find it gone
                log.exception("replaying the spool failed")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _REPLAY_INTERVAL_S)

    async def _post_again(self, left: LeftBehind) -> bool:
        """Whether all that could be read of a file is posted; where it is not, it is given back for another time."""
        try:
            for owed in left.content.owed:
                bindings = [await self._bind(job, owed.first_poll_ms) for job in owed.jobs]
                posting = disowned(owed.posting) if "foreign" in bindings else owed.posting
                self._told(owed, await self._ledger.settle(owed.hold, posting))
            aside = left.forget()
        except LedgerUnavailable:
            return False  # logged where it was found
        except Exception:  # a file that cannot be posted must not keep the others from being posted
            log.exception("replaying %s failed", left.file.name)
            return False
        finally:
            left.give_back()
        if left.content.torn_bytes:
            log.warning(
                "%s ended in %d bytes of a record that nobody relied on", left.file.name, left.content.torn_bytes
            )
        if left.content.owed:
            log.warning("%d postings that another process left in the spool are made", len(left.content.owed))
        if aside is not None:
            self._metrics.spool_unreadable.inc()
            log.error(
                "%s: %d records are damaged and %d are not understood; charges may be missing, so it is kept",
                aside,
                left.content.damaged,
                left.content.unreadable,
            )
        return True

    async def _keep(self, owed: Owed, posted: asyncio.Task[Posting]) -> None:
        try:
            number = await self._spool.keep(owed)
        except OSError:
            return  # told by `Spool.fault`; the posting goes on in memory
        self._metrics.spool_entries.inc()
        self._tasks.start(self._dropped(posted, number))

    async def _dropped(self, posted: asyncio.Task[Posting], number: int) -> None:
        await asyncio.wait({posted})
        await self._spool.drop(number)
        self._metrics.spool_entries.dec()

    async def _post(self, owed: Owed, begun: Begun | None, began_s: float) -> Posting:
        """`begun`: the first attempt, where its reply may still come."""
        try:
            if begun is not None:
                await asyncio.wait({begun.reply})
                if self._is_settled(owed, begun, began_s):
                    return owed.posting
            bindings = [(job, await self.try_to_bind(job, owed.first_poll_ms)) for job in owed.jobs]
            is_foreign = any(binding == "foreign" for _, binding in bindings)
            posting = disowned(owed.posting) if is_foreign else owed.posting
            settled = await until_answered(lambda: self._ledger.settle(owed.hold, posting, answer=owed.answer))
            self._metrics.observe_settlement(time.perf_counter() - began_s)
            self._told(owed, settled)
            for job, binding in bindings:
                if binding == "later":
                    await until_answered(partial(self._bind, job, owed.first_poll_ms))
            return posting
        finally:
            self._owe(-1)

    def _owe(self, change: int) -> None:
        self.owed += change
        self._metrics.settlements_owed.inc(change)

    def _begun(self, owed: Owed) -> Begun | None:
        """The first attempt; None where there can be none yet, or a fault of ours is in its way."""
        try:
            return self._ledger.begin_settle(owed.hold, owed.posting, answer=owed.answer)
        except Exception:  # money must not be lost by a fault of ours either: it is shown, and tried again
            log.exception("the first attempt of a settlement failed")
            return None

    def _is_settled(self, owed: Owed, begun: Begun, began_s: float) -> bool:
        try:
            settled = self._ledger.settled(begun, owed.hold, owed.posting)
            if settled is None:
                return False
            self._metrics.observe_settlement(time.perf_counter() - began_s)
            self._told(owed, settled)
        except Exception:  # as above: it is asked again what became of it
            log.exception("the reply to a settlement could not be read")
            return False
        return True

    async def try_to_bind(self, job: Job, first_poll_ms: int) -> Binding:
        """Bind an image job to its owner before its charge: who is charged can also be refunded.

        "later" where that failed: a Redis that is full takes settlements, which free memory, and no new jobs; there the
        charge goes first.
        """
        try:
            return await self._bind(job, first_poll_ms)
        except Exception as error:  # whatever it was: the charge goes first, and the job is bound after it
            if not isinstance(error, LedgerUnavailable):
                log.exception("job of request %s was not bound; trying again", job.hold.request_id)
            return "later"

    async def _bind(self, job: Job, first_poll_ms: int) -> Binding:
        if await self._jobs.bind(job, first_poll_ms):
            return "own"
        log.warning("request %s was answered with another call's job: polls go to that one", job.hold.request_id)
        return "foreign"

    def _told(self, owed: Owed, settled: Settled) -> None:
        for crossing in settled.crossings:
            self._metrics.observe_crossing(crossing)
        charged = owed.posting.cost_nano_usd
        if charged and settled.posted_nano_usd is None:
            # Redis lost the hold (restored from an old copy?), or this comes days late.
            self._metrics.quarantined.inc()
            log.error("hold %s is not known: %d nano-USD are in quarantine, not posted", owed.hold.hold_id, charged)
        elif charged and settled.posted_nano_usd != charged:
            log.error(
                "hold %s: %d nano-USD are not posted; the ledger has %s",
                owed.hold.hold_id,
                charged,
                settled.posted_nano_usd,
            )


class Ending:
    """The one end of one hold: whoever posts first decides, later postings are ignored."""

    def __init__(self, settlements: Settlements, hold: HoldRequest) -> None:
        self._settlements = settlements
        self._hold = hold
        self.posting: Posting | None = None

    async def post(
        self, posting: Posting, jobs: tuple[Job, ...] = (), first_poll_ms: int = 0, *, answer: bytes = b""
    ) -> None:
        """End the hold; returns when that is written to the ledger, or safe in the spool.

        `jobs`: the image jobs that were submitted, to be polled at `first_poll_ms`. `answer`: to be kept for a repeat.
        """
        if self.posting is None:
            self.posting = posting
            self.posting = await self._settlements.settle(Owed(self._hold, posting, jobs, first_poll_ms, answer))


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
