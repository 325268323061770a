"""Image jobs: whose they are, and which are still to be polled.

A job is bound to the hold that paid for it, once: who submits later and is answered the same pair takes nothing over.
Its submission's answer waits for the binding a moment (`settle_wait_s`) and no longer, so while Redis does not answer
a client may know of a job that the gateway does not know yet. Jobs are found by a digest of (jobid, signature): who
does not know the pair finds nothing. A job that nobody polls to its end is due again and again, ever more rarely,
until it is abandoned.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal, cast

from redis.asyncio import Redis

from gateway.store.admission import HoldRequest
from gateway.store.keys import Keys, job_digest, job_pointer
from gateway.store.records import hold_facts, hold_of
from gateway.store.scripts import ScriptRunner, TranslatedFaults, load
from gateway.store.topology import untagged

KEEP_MS = 7 * 24 * 3600 * 1000
"""How long a job can be polled through the gateway."""
_CLAIM_MS = 60_000

JobState = Literal["pending", "success", "error", "abandoned"]


@dataclass(frozen=True, slots=True)
class Job:
    """One submitted image. `hold` is what paid for it."""

    jobid: str
    signature: str
    hold: HoldRequest
    submitted_at_ms: int
    state: JobState = "pending"

    @property
    def digest(self) -> str:
        return job_digest(self.jobid, self.signature)


class Jobs:
    def __init__(self, redis: Redis, scripts: ScriptRunner) -> None:
        self._redis = redis
        self._scripts = scripts
        self._claim = load("claim_jobs")
        self._unstored: dict[str, Job] = {}
        """Jobs that Redis has not taken yet; their clients may poll them here all the same."""

    async def bind(self, job: Job, first_poll_ms: int) -> bool:
        """Remember a job as pending, due at `first_poll_ms`; True as well when this very job was bound before.

        False: the upstream gave its pair to another call already, whose job it stays. Raises LedgerUnavailable.
        """
        keys, digest, about = Keys(job.hold.principal.org), job.digest, _stored(job)
        self._unstored[digest] = job
        with TranslatedFaults():
            await untagged(self._redis).set(job_pointer(digest), keys.org, px=KEEP_MS, nx=True)
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hsetnx(keys.job(digest), "about", about)
            pipeline.hsetnx(keys.job(digest), "state", "pending")
            pipeline.pexpire(keys.job(digest), KEEP_MS)
            pipeline.zadd(keys.jobs_due, {digest: first_poll_ms}, nx=True)
            pipeline.hget(keys.job(digest), "about")
            *_, bound = await pipeline.execute()
        self._unstored.pop(digest, None)
        return cast(bytes, bound).decode() == about

    async def find(self, jobid: str, signature: str) -> Job | None:
        """The job of this pair, in whatever organisation, or None: a pair never submitted through this gateway."""
        digest = job_digest(jobid, signature)
        return self._unstored.get(digest) or await self._find(digest)

    async def _find(self, digest: str) -> Job | None:
        with TranslatedFaults():
            org = cast(bytes | None, await untagged(self._redis).get(job_pointer(digest)))
            if org is None:
                return None
            stored, state = await self._redis.hmget(Keys(org.decode()).job(digest), ["about", "state"])
        if stored is None or state is None:
            return None
        return _job(json.loads(stored), cast(JobState, cast(bytes, state).decode()))

    async def claim_due(self, org: str, count: int) -> list[Job]:
        """Jobs to be polled now; for a minute nobody else is given them."""
        reply = await self._scripts.run(self._claim, [Keys(org).jobs_due], [count, _CLAIM_MS])
        digests = [cast(bytes, member).decode() for member in reply]
        found = {digest: await self._find(digest) for digest in digests}
        for digest, job in found.items():
            if job is None:
                await self._forget(org, digest)
        return [job for job in found.values() if job is not None]

    async def poll_again(self, job: Job, at_ms: int) -> None:
        """Make a claimed job due again. A job that ended meanwhile stays ended."""
        with TranslatedFaults():
            await self._redis.zadd(Keys(job.hold.principal.org).jobs_due, {job.digest: at_ms}, xx=True)

    async def finish(self, job: Job, state: JobState) -> None:
        """End a job that needs no refund: nobody polls it on the gateway's behalf any more."""
        org = job.hold.principal.org
        with TranslatedFaults():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hset(Keys(org).job(job.digest), "state", state)
            pipeline.pexpire(Keys(org).job(job.digest), KEEP_MS)  # were it gone meanwhile, this would stay for ever
            await pipeline.execute()
        await self._forget(org, job.digest)

    async def _forget(self, org: str, digest: str) -> None:
        with TranslatedFaults():
            await self._redis.zrem(Keys(org).jobs_due, digest)


def _stored(job: Job) -> str:
    about = {
        "jobid": job.jobid,
        "signature": job.signature,
        "submitted_at_ms": job.submitted_at_ms,
        **hold_facts(job.hold),
    }
    return json.dumps(about, separators=(",", ":"))


def _job(about: dict[str, Any], state: JobState) -> Job:
    return Job(about["jobid"], about["signature"], hold_of(about), about["submitted_at_ms"], state)
