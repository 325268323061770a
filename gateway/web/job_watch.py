"""Asking about image jobs on behalf of who waits for their pictures: until they are there, or once, at this moment."""

import asyncio
import contextlib
import random
from collections.abc import Sequence

from gateway.billing.errors import LedgerUnavailable, UpstreamError
from gateway.store.jobs import Job
from gateway.web.polls import JobDesk

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0
_GROWTH = 1.5
_SPREAD = 0.2
"""Pauses differ by so much either way, so that jobs submitted together are not asked about together for ever."""


class JobWatch:
    """Asks about jobs, ever less often, for `wait_s` seconds at most. What is left then is the background poller's."""

    def __init__(self, desk: JobDesk, wait_s: float) -> None:
        self._desk = desk
        self.wait_s = wait_s

    async def ended(self, jobs: Sequence[Job], request_id: str, stop: asyncio.Event) -> list[Job]:
        """The jobs as they are once all have ended, the time is over, or `stop` is set."""
        deadline_s = asyncio.get_running_loop().time() + self.wait_s
        return await asyncio.gather(*(self._ended(job, f"{request_id}-poll", deadline_s, stop) for job in jobs))

    async def _ended(self, job: Job, request_id: str, deadline_s: float, stop: asyncio.Event) -> Job:
        loop = asyncio.get_running_loop()
        pause_s = _FIRST_PAUSE_S
        while job.state == "pending" and not stop.is_set() and loop.time() < deadline_s:
            spread_s = pause_s * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311  # nobody gains by guessing it
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), min(spread_s, deadline_s - loop.time()))
                break
            job = await self._asked(job, request_id, deadline_s + _LONGEST_PAUSE_S - loop.time())
            pause_s = min(pause_s * _GROWTH, _LONGEST_PAUSE_S)
        return job

    async def _asked(self, job: Job, request_id: str, within_s: float) -> Job:
        with contextlib.suppress(UpstreamError, LedgerUnavailable):  # whatever it was, the job is asked about again
            return await self._desk.act(job, await self._desk.ask(job, request_id, within_s))
        return job


class JobGlance:
    """Asks at once about jobs that somebody looks at, each at most once in `pause_s`."""

    def __init__(self, desk: JobDesk, pause_s: float = 1.0) -> None:
        self._desk = desk
        self._pause_s = pause_s
        self._asked_at_s: dict[str, float] = {}

    async def now(self, jobs: Sequence[Job], request_id: str) -> tuple[Job, ...]:
        """The jobs as they are now; one that was asked about a moment ago, or in vain, stays as it is known."""
        now_s = asyncio.get_running_loop().time()
        self._asked_at_s = {job: at_s for job, at_s in self._asked_at_s.items() if now_s - at_s < self._pause_s}
        return tuple(await asyncio.gather(*(self._seen(job, f"{request_id}-poll", now_s) for job in jobs)))

    async def _seen(self, job: Job, request_id: str, now_s: float) -> Job:
        if job.state != "pending" or job.digest in self._asked_at_s:
            return job
        self._asked_at_s[job.digest] = now_s
        with contextlib.suppress(UpstreamError, LedgerUnavailable):  # the background poller asks again
            return await self._desk.act(job, await self._desk.ask(job, request_id, _GLANCE_S))
        return job


_GLANCE_S = 5.0
"""Who looks waits no longer for the upstream."""
