"""Image jobs: accepted and charged, pending for a while, then done or failed.

A failed job's bill line is voided by the poll that first reports the failure, so that whoever has seen the
failure and whoever has not agree with the bill.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from gateway.emulator.bill import Bill, Line
from gateway.emulator.contract import ImageRequest
from gateway.emulator.faults import Faults
from gateway.emulator.options import EmulatorOptions

JOBS_MAX = 100_000
NEVER = 10**18


@dataclass(slots=True)
class Job:
    """One image job, and the bill line to void when it fails."""

    jobid: int
    signature: str
    request: ImageRequest
    bill: Bill
    line: Line
    pending_polls: int
    ready_at_s: float
    fails: bool
    is_elsewhere: bool = False
    polls: int = 0
    state: str = "pending"

    def poll(self, now_s: float) -> str:
        """Ask once more: `pending`, `success` or `error`. Once it is over it stays as it ended."""
        self.polls += 1
        if self.state == "pending" and self.polls > self.pending_polls and now_s >= self.ready_at_s:
            self.state = "error" if self.fails else "success"
            if self.fails:
                self.bill.void(self.line)
        return self.state


class Jobs:
    """All jobs by their number; the oldest are forgotten beyond `JOBS_MAX`."""

    def __init__(self, options: EmulatorOptions) -> None:
        self._options = options
        self._next_id = options.first_job_id
        self._jobs: dict[int, Job] = {}

    def submit(self, request: ImageRequest, bill: Bill, line: Line, faults: Faults) -> Job:
        """Accept a job and charge it."""
        jobid, self._next_id = self._next_id, self._next_id + 1
        pending_polls = faults.integer("job_pending")
        if pending_polls is None:
            pending_polls = self._options.job_pending_polls
        job = Job(
            jobid,
            secrets.token_hex(8),
            request,
            bill,
            line,
            NEVER if "job_never" in faults else pending_polls,
            time.monotonic() + self._options.job_pending_s,
            "job_fails" in faults,
            "job_elsewhere" in faults,
        )
        self._jobs[jobid] = job
        if len(self._jobs) > JOBS_MAX:
            del self._jobs[next(iter(self._jobs))]
        bill.generate_image(line, jobid)
        return job

    def find(self, jobid: str, signature: str) -> Job | None:
        """The job of this pair, None when it is unknown or the signature is another's."""
        job = self.by_number(jobid)
        if job is None or not secrets.compare_digest(job.signature.encode(), signature.encode(errors="replace")):
            return None
        return job

    def by_number(self, jobid: str) -> Job | None:
        return self._jobs.get(int(jobid)) if jobid.isascii() and jobid.isdigit() and len(jobid) < 20 else None
