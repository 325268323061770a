"""Waiting for jobs: ever less often, never longer than was said, and never given up for one poll that failed."""

import asyncio
from dataclasses import replace
from typing import cast

from gateway.billing.errors import LedgerUnavailable, UpstreamError
from gateway.billing.principal import Principal
from gateway.store.admission import HoldRequest
from gateway.store.jobs import Job
from gateway.web.job_watch import JobGlance, JobWatch
from gateway.web.polls import JobDesk, PollAnswer

HOLD = HoldRequest("req-1", "req-1", Principal("o", "t", None, "k"), "image", "realvision", 3, "v1")
JOBS = [Job(str(number), "s", HOLD, 1, share_nano_usd=1, number=number) for number in range(3)]


class Desk:
    """A desk whose jobs end at their third poll; the first two meet what may befall one."""

    def __init__(self) -> None:
        self.polls: dict[str, int] = {}
        self.waits_s: list[float] = []

    async def ask(self, job: Job, _request_id: str, within_s: float) -> PollAnswer:
        self.waits_s.append(within_s)
        number = self.polls[job.jobid] = self.polls.get(job.jobid, 0) + 1
        if number == 1:
            raise UpstreamError("no answer")
        return PollAnswer(200, [], b"")

    async def act(self, job: Job, _answer: PollAnswer) -> Job:
        if self.polls[job.jobid] == 2:
            raise LedgerUnavailable("away")
        return Job(job.jobid, job.signature, job.hold, 1, "success", image_url=f"https://a.example/{job.jobid}")


def ended(desk: Desk, wait_s: float, *, stopped: bool = False) -> list[Job]:
    async def story() -> list[Job]:
        stop = asyncio.Event()
        if stopped:
            stop.set()
        return await JobWatch(cast(JobDesk, desk), wait_s).ended(JOBS, "req-1", stop)

    return asyncio.run(story())


def test_a_poll_that_fails_is_asked_again() -> None:
    """By the upstream, or because Redis was away: the job's end is heard of all the same, each in its place."""
    desk = Desk()
    assert [f"https://a.example/{number}" for number in range(3)] == [job.image_url for job in ended(desk, 60)]
    assert {"0": 3, "1": 3, "2": 3} == desk.polls


def test_what_has_not_ended_in_time_is_left_as_it_is() -> None:
    """The last look is at the deadline, and may not take for ever either."""
    desk = Desk()
    assert ["pending"] * 3 == [job.state for job in ended(desk, 0.05)]
    assert {"0": 1, "1": 1, "2": 1} == desk.polls
    assert max(desk.waits_s) <= 5.05


def test_who_is_told_to_stop_asks_nobody() -> None:
    """The gateway shuts down, or the client has left."""
    desk = Desk()
    assert JOBS == ended(desk, 60, stopped=True)
    assert {} == desk.polls


def glanced(desk: Desk, *, times: int, pause_s: float) -> list[tuple[Job, ...]]:
    async def story() -> list[tuple[Job, ...]]:
        glance = JobGlance(cast(JobDesk, desk), pause_s)
        return [await glance.now(JOBS, "req-1") for _ in range(times)]

    return asyncio.run(story())


def test_a_glance_shows_what_is_so_at_this_moment() -> None:
    """A poll that fails leaves the job as it was known, whoever's fault it is; the next look asks again."""
    states = [[job.state for job in jobs] for jobs in glanced(Desk(), times=3, pause_s=0)]
    assert [["pending"] * 3, ["pending"] * 3, ["success"] * 3] == states


def test_who_looks_again_at_once_asks_nobody() -> None:
    """A page that is loaded again and again is no burden to MiniToolAI; each job counts for itself."""
    desk = Desk()
    assert 3 * [tuple(JOBS)] == glanced(desk, times=3, pause_s=3600)
    assert {"0": 1, "1": 1, "2": 1} == desk.polls


def test_a_glance_asks_about_all_at_once_and_of_none_that_has_ended() -> None:
    """Ten pictures take no longer than one: the first is answered only when the last was asked about."""
    asked: list[str] = []
    all_asked = asyncio.Event()

    class Meeting(Desk):
        async def ask(self, job: Job, _request_id: str, within_s: float) -> PollAnswer:
            asked.append(job.jobid)
            if len(asked) == 2:
                all_asked.set()
            await all_asked.wait()
            return PollAnswer(200, [], b"")

        async def act(self, job: Job, _answer: PollAnswer) -> Job:
            return replace(job, state="success")

    async def story() -> tuple[Job, ...]:
        jobs = [*JOBS[:2], replace(JOBS[2], state="error")]
        return await asyncio.wait_for(JobGlance(cast(JobDesk, Meeting())).now(jobs, "req-1"), 20)

    assert ["success", "success", "error"] == [job.state for job in asyncio.run(story())]
    assert ["0", "1"] == asked
