"""Image jobs: whose they are, and which are still to be polled.

A job is bound to the hold that paid for it, once: who submits later and is answered the same pair takes nothing over.
Nor does it end it: each change names the call and the image it is for (lua/_job.lua), and an ended job stays ended.
One hold may pay for several, each with its share; they are found by the hold too, until they are forgotten, and the
holds by their key: who left before the answer never saw an id.
Its submission's answer waits for the binding a moment (`settle_wait_s`) and no longer, so while Redis does not answer
a client may know of a job that the gateway does not know yet. Jobs are found by a digest of (jobid, signature): who
does not know the pair finds nothing. A job that nobody polls to its end is due again and again, ever more rarely,
until it is abandoned.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from redis.asyncio import Redis

from gateway.billing.principal import Principal
from gateway.store.admission import HoldRequest
from gateway.store.keys import Keys, job_digest, job_pointer
from gateway.store.records import hold_facts, hold_of
from gateway.store.scripts import ScriptRunner, TranslatedFaults, load
from gateway.store.topology import untagged

KEEP_MS = 7 * 24 * 3600 * 1000
"""How long a job can be polled through the gateway."""
_CLAIM_MS = 60_000
_FIELDS = ["about", "state", "image_url", "refunded"]
_REFUNDED = b"refunded"
"""Stands beside the digests of a hold's jobs: what was given back of it (lua/refund.lua)."""

LISTED_MAX = 1000
"""So many calls are listed of one key."""

JobState = Literal["pending", "success", "error", "abandoned", "foreign"]
"""How far it is. "foreign" stands in no record: the pair that this image's submission was answered is another's."""


@dataclass(frozen=True, slots=True)
class Job:
    """One submitted image. `hold` is what paid for it: `share_nano_usd` of it, or all of it where that is None.

    `number` is its place among the images of its call. `image_url` is told once it ended well ("" where the upstream
    named none), `refunded_nano_usd` is what came back because it failed.
    """

    jobid: str
    signature: str
    hold: HoldRequest
    submitted_at_ms: int
    state: JobState = "pending"
    share_nano_usd: int | None = None
    number: int = 0
    image_url: str = ""
    refunded_nano_usd: int = 0

    @property
    def digest(self) -> str:
        return job_digest(self.jobid, self.signature)


class Jobs:
    def __init__(self, redis: Redis, scripts: ScriptRunner) -> None:
        self._redis = redis
        self._scripts = scripts
        self._bind, self._claim, self._end = load("bind_job"), load("claim_jobs"), load("end_job")
        self._unstored: dict[str, Job] = {}
        """Jobs that Redis has not taken yet; their clients may poll them here all the same."""

    async def bind(self, job: Job, first_poll_ms: int) -> bool:
        """Remember a job as pending, due at `first_poll_ms`; True as well when this very job was bound before.

        False: the upstream gave its pair to another call already, whose job it stays. Raises LedgerUnavailable.
        """
        keys, digest, hold_id = Keys(job.hold.principal.org), job.digest, job.hold.hold_id
        self._unstored[digest] = job
        with TranslatedFaults():
            await untagged(self._redis).set(job_pointer(digest), keys.org, px=KEEP_MS, nx=True)
        reply = await self._scripts.run(
            self._bind,
            [keys.job(digest), keys.jobs_due, keys.jobs_of(hold_id), keys.image_calls(job.hold.principal.key)],
            [digest, _stored(job), first_poll_ms, KEEP_MS, job.number, hold_id, job.submitted_at_ms, LISTED_MAX],
        )
        self._unstored.pop(digest, None)
        return reply == [b"bound"]

    async def find(self, jobid: str, signature: str) -> Job | None:
        """The job of this pair, in whatever organisation, or None: a pair never submitted through this gateway."""
        digest = job_digest(jobid, signature)
        return self._unstored.get(digest) or await self._find(digest)

    async def _find(self, digest: str) -> Job | None:
        with TranslatedFaults():
            org = cast(bytes | None, await untagged(self._redis).get(job_pointer(digest)))
            if org is None:
                return None
            fields = await self._redis.hmget(Keys(org.decode()).job(digest), _FIELDS)
        return _job(cast(list[bytes | None], fields))

    async def of_call(self, org: str, hold_id: str) -> list[Job]:
        """The jobs that a hold paid for, in the order of its call's images. Raises LedgerUnavailable."""
        return (await self.of_calls(org, [hold_id]))[hold_id]

    async def of_calls(self, org: str, hold_ids: Sequence[str]) -> dict[str, list[Job]]:
        """The same of several holds, by their ids."""
        keys, jobs = Keys(org), {hold_id: list[Job]() for hold_id in hold_ids}
        with TranslatedFaults():
            names = self._redis.pipeline(transaction=False)
            for hold_id in jobs:
                names.hkeys(keys.jobs_of(hold_id))
            digests = {digest: None for of_one in await names.execute() for digest in of_one if digest != _REFUNDED}
            fields = self._redis.pipeline(transaction=False)
            for digest in digests:
                fields.hmget(keys.job(digest.decode()), _FIELDS)
            found = [_job(of_one) for of_one in await fields.execute()]
        for job in found:
            if job is not None and job.hold.hold_id in jobs:
                jobs[job.hold.hold_id].append(job)
        return {hold_id: sorted(of_one, key=lambda job: job.number) for hold_id, of_one in jobs.items()}

    async def calls(self, principal: Principal, before: tuple[int, str] | None, limit: int) -> list[tuple[int, str]]:
        """The key's image calls that have a job, newest first, each as when it was submitted (ms) and its hold's id.

        `before`: only what comes after this one. Of `LISTED_MAX` calls and a week. Raises LedgerUnavailable.
        """
        calls = Keys(principal.org).image_calls(principal.key)
        with TranslatedFaults():
            listed = await self._redis.zrange(calls, 0, -1, desc=True, withscores=True)
        found = [(int(at_ms), hold_id.decode()) for hold_id, at_ms in cast(list[tuple[bytes, float]], listed)]
        return [call for call in found if before is None or call < before][:limit]

    async def claim_due(self, org: str, count: int) -> list[Job]:
        """Jobs to be polled now; for a minute nobody else is given them."""
        reply = await self._scripts.run(self._claim, [Keys(org).jobs_due], [count, _CLAIM_MS])
        digests = [cast(bytes, member).decode() for member in reply]
        found = {digest: await self._find(digest) for digest in digests}
        pending = [job for job in found.values() if job is not None and job.state == "pending"]
        for digest in found.keys() - {job.digest for job in pending}:
            await self._forget(org, digest)
        return pending

    async def poll_again(self, job: Job, at_ms: int) -> None:
        """Make a claimed job due again. A job that ended meanwhile stays ended."""
        with TranslatedFaults():
            await self._redis.zadd(Keys(job.hold.principal.org).jobs_due, {job.digest: at_ms}, xx=True)

    async def finish(self, job: Job, state: JobState, image_url: str = "") -> Job:
        """End a job that needs no refund: nobody polls it on the gateway's behalf any more. Returns it as it is now.

        One that has ended before stays as it did; one that is another call's is "foreign" to this one; one that is not
        bound yet stays as it is. Raises LedgerUnavailable.
        """
        keys, hold_id = Keys(job.hold.principal.org), job.hold.hold_id
        reply = await self._scripts.run(
            self._end,
            [keys.job(job.digest), keys.jobs_due],
            [job.digest, hold_id, job.number, state, image_url, KEEP_MS],
        )
        match reply:
            case [b"ended", bytes(ended), bytes(url), int(refunded)]:
                ended_as = cast(JobState, ended.decode())
                return replace(job, state=ended_as, image_url=url.decode(), refunded_nano_usd=refunded)
            case [b"foreign"]:
                return replace(job, state="foreign")
        return job

    async def _forget(self, org: str, digest: str) -> None:
        with TranslatedFaults():
            await self._redis.zrem(Keys(org).jobs_due, digest)


def _stored(job: Job) -> str:
    about = {
        "jobid": job.jobid,
        "signature": job.signature,
        "submitted_at_ms": job.submitted_at_ms,
        **({} if job.share_nano_usd is None else {"share_nano_usd": job.share_nano_usd, "number": job.number}),
        **hold_facts(job.hold),
    }
    return json.dumps(about, separators=(",", ":"))


def _job(fields: Sequence[bytes | None]) -> Job | None:
    """From the fields of `_FIELDS`; None where Redis has no such job."""
    stored, state, image_url, refunded = fields
    if stored is None or state is None:
        return None
    about: dict[str, Any] = json.loads(stored)
    return Job(
        about["jobid"],
        about["signature"],
        hold_of(about),
        about["submitted_at_ms"],
        cast(JobState, state.decode()),
        about.get("share_nano_usd"),
        about.get("number", 0),
        (image_url or b"").decode(),
        int(refunded or 0),
    )
