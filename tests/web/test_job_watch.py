"""Waiting for jobs: ever less often, never longer than was said, and never given up for one poll that failed."""

import asyncio
from typing import cast

from gateway.billing.errors import LedgerUnavailable, UpstreamError
from gateway.billing.principal import Principal
from gateway.store.admission import HoldRequest
from gateway.store.jobs import Job
from gateway.web.job_watch import JobWatch
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
