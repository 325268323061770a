"""The images of one call, each submitted to MiniToolAI on its own: all at once, and what became of each.

An accepted job is bound to the hold as soon as it is known, before the others have answered: should this process be
killed meanwhile, the job is polled all the same, and refunded if it fails.
"""

import asyncio
import logging
import time
from typing import NamedTuple

from gateway.billing.errors import (
    FailedWhenSent,
    GatewayError,
    Overloaded,
    UpstreamBrokeOff,
    UpstreamError,
    UpstreamRejected,
    UpstreamTimeout,
)
from gateway.billing.ledger import RELEASE, Posting
from gateway.billing.usage import Usage
from gateway.store.jobs import Job
from gateway.upstream.leg import (
    AnswerTimeout,
    BrokenOff,
    CutOff,
    Cutoff,
    NoAnswer,
    NotSent,
    PoolExhausted,
    UpstreamAnswer,
    UpstreamFault,
    UpstreamRequest,
    whole,
)
from gateway.web.errors import unfit_status, upstream_retry_after_s
from gateway.web.relay import HeldCall
from gateway.web.services import Services
from gateway.wire.call import Endpoint, Outcome
from gateway.wire.charge import disowned, posting_of, unanswered
from gateway.wire.headers import is_coded
from gateway.wire.images import ANSWER_BYTES_MAX, ImageMeter, fault_of

log = logging.getLogger("gateway.submissions")

_ONE = Usage(units=1)
_BOOKED = "It may have been billed, so it was booked as an estimate."

FOREIGN_JOB = "MiniToolAI named a job for this image that is another one's already; it stays charged."


class Submission(NamedTuple):
    """What became of one image: a job to wait for, or why there is none.

    `posting` is how a hold for it alone would end; `is_bound`: Redis knows the job already.
    """

    posting: Posting
    job: Job | None = None
    error: GatewayError | None = None
    is_bound: bool = False


class Submissions:
    """Submits the images of one held call. Its `outcome` is what they come to so far, for the lease."""

    def __init__(self, endpoint: Endpoint, services: Services, held: HeldCall) -> None:
        self._endpoint = endpoint
        self._services = services
        self._call, self._price, self._hold, self._record = held.call, held.price, held.hold, held.record
        self._share_nano_usd = held.price.most_of(_ONE)
        self._key = services.upstream_keys[held.hold.principal.org]
        self._free = 0  # those that certainly cost nothing

    async def all(self) -> list[Submission]:
        """Submit every image once, whatever becomes of the others; in their order."""
        return await asyncio.gather(*(self._submitted(number) for number in range(self._call.bound.units)))

    def outcome(self) -> Outcome:
        """Every image that was not refused is billed, as far as anybody knows."""
        return Outcome(usage=Usage(units=self._call.bound.units - self._free))

    async def _submitted(self, number: int) -> Submission:
        try:
            submission = await self._submit(number)
        except Exception:  # a fault of ours with one must not keep the others, which were accepted, from being settled
            log.exception("image %d of request %s failed", number, self._hold.request_id)
            submission = self._unanswered(FailedWhenSent(f"The gateway failed at this image. {_BOOKED}"))
        self._free += submission.posting.type == "release"
        return submission

    async def _submit(self, number: int) -> Submission:
        request = UpstreamRequest(
            self._endpoint.upstream_path, self._key.headers, self._request_id(number), self._call.body
        )
        cutoff, tasks = Cutoff(), self._services.tasks
        tasks.on_hurry(cutoff.strike)
        timer = asyncio.get_running_loop().call_later(self._services.limits.answer_s_max, cutoff.strike)
        try:
            answer = await self._services.upstream.send(request, cutoff)
            try:
                return await self._read(answer, number)
            finally:
                await answer.close()
        except UpstreamFault as fault:
            self._record.fault = fault.reason
            return self._failed(fault)
        finally:
            tasks.forget(cutoff.strike)
            timer.cancel()

    def _request_id(self, number: int) -> bytes:
        """Of several images each has an id of its own at the upstream: the call's, and its place from 1."""
        request_id = self._hold.request_id
        return (request_id if self._call.bound.units == 1 else f"{request_id}-{number + 1}").encode()

    async def _read(self, answer: UpstreamAnswer, number: int) -> Submission:
        unfit = unfit_status(answer.status)
        if unfit is not None:
            return _refused(unfit)
        if answer.status >= 400:
            return _refused(await self._failure(answer))
        if is_coded(answer.headers):
            return self._unanswered(UpstreamBrokeOff(f"The upstream answered in a coding nobody asked for. {_BOOKED}"))
        return await self._metered(await whole(answer, self._services.limits.whole_answer_bytes_max), number)

    async def _failure(self, answer: UpstreamAnswer) -> UpstreamError:
        """What a status of 400 and above is to the caller; nothing was billed, whether its body comes or not."""
        status, retry_after_s = answer.status, upstream_retry_after_s(answer.status, answer.headers)
        try:
            body = await whole(answer, ANSWER_BYTES_MAX)
        except UpstreamFault:
            body = b""
        message = f"MiniToolAI answered with status {status}{self._said(body)} (nothing was billed)"
        if status < 500:
            return UpstreamRejected(message, status=status, retry_after_s=retry_after_s)
        return UpstreamError(message, retry_after_s=retry_after_s)

    def _said(self, body: bytes) -> str:
        """What an answer says is wrong, to be put behind our own words."""
        said = fault_of(body, self._key.secret)
        return f": {said}" if said else ""

    def _without_job(self, body: bytes, *, is_booked: bool) -> UpstreamError:
        if is_booked:
            return UpstreamBrokeOff(
                "MiniToolAI says that it accepted this image but named no job for it; it stays charged."
            )
        return UpstreamError(f"MiniToolAI did not accept this image{self._said(body)} (nothing was billed)")

    async def _metered(self, body: bytes, number: int) -> Submission:
        meter = ImageMeter(self._call)
        meter.feed(body)
        one = self._call._replace(bound=_ONE, usage_max=_ONE)
        outcome = meter.outcome()
        if meter.job is None:
            posting = posting_of(one, self._price, self._share_nano_usd, outcome) or RELEASE
            return Submission(posting, error=self._without_job(body, is_booked=outcome.anomaly))
        posting = Posting("capture", self._share_nano_usd, _ONE)
        job = Job(
            *meter.job,
            self._hold,
            time.time_ns() // 1_000_000,
            share_nano_usd=self._share_nano_usd,
            number=number,
        )
        binding = await self._services.settlements.try_to_bind(job, first_poll_ms_of(job, self._services))
        if binding == "foreign":
            return Submission(disowned(posting), error=UpstreamBrokeOff(FOREIGN_JOB))
        return Submission(posting, job, is_bound=binding == "own")

    def _failed(self, fault: UpstreamFault) -> Submission:
        """By whether a byte of the request may have arrived."""
        match fault:
            case PoolExhausted():
                return _refused(Overloaded("All connections to the upstream are in use; try again.", retry_after_s=1))
            case NotSent():
                return _refused(UpstreamError("The upstream cannot be reached; this image was not billed."))
            case AnswerTimeout() | CutOff():
                return self._unanswered(UpstreamTimeout(f"The upstream did not answer in time. {_BOOKED}"))
            case NoAnswer() | BrokenOff() | _:
                return self._unanswered(UpstreamBrokeOff(f"The upstream broke off its answer. {_BOOKED}"))

    def _unanswered(self, error: GatewayError) -> Submission:
        one = self._call._replace(bound=_ONE)
        return Submission(unanswered(one, self._price, self._share_nano_usd, _count_nothing), error=error)


def first_poll_ms_of(job: Job, services: Services) -> int:
    """When the gateway looks after a job by itself, should nobody else have by then."""
    return job.submitted_at_ms + int(services.limits.job_first_poll_s * 1000)


def _refused(error: GatewayError) -> Submission:
    return Submission(RELEASE, error=error)


def _count_nothing(_prompt: object, _most: int) -> int:
    """An image is priced by the piece: its prompt is never counted."""
    return 0
