"""An admitted call for pictures on its way: submit its images, end its hold, wait for them, answer.

One hold pays for all images of a call and ends once, as soon as every submission has its answer: what waiting brings
after that is a refund for each image that fails (ADR 0032). A client that leaves changes nothing about the bill.
"""

import asyncio
import base64
import time
from collections.abc import Sequence
from dataclasses import replace

from gateway.billing.errors import (
    GatewayError,
    ImagesFailed,
    UpstreamError,
    UpstreamRefused,
    UpstreamRejected,
    UpstreamTimeout,
)
from gateway.billing.ledger import Posting
from gateway.billing.money import format_usd
from gateway.store.answers import unfinished_answer
from gateway.store.jobs import Job
from gateway.upstream.pictures import NotFetched, PictureFetcher
from gateway.web.errors import Header, error_answer
from gateway.web.exchange import Exchange
from gateway.web.job_watch import JobWatch
from gateway.web.relay import HeldCall
from gateway.web.repeats import AnswerCopy
from gateway.web.services import Services
from gateway.web.settlement import Ending, until_answered
from gateway.web.submissions import FOREIGN_JOB, Submission, Submissions, first_poll_ms_of
from gateway.wire.call import Endpoint
from gateway.wire.charge import together
from gateway.wire.openai_images import Failure, Picture, failed_images, images_answer
from gateway.wire.presentation import Presentation
from gateway.wire.strictjson import encode

_JSON = (b"content-type", b"application/json")


class ImageRelay:
    """One call's images, from their submission to the answer that has them all."""

    def __init__(
        self,
        watch: JobWatch,
        pictures: PictureFetcher,
        presentation: Presentation,
        endpoint: Endpoint,
        services: Services,
        exchange: Exchange,
        held: HeldCall,
    ) -> None:
        self._presentation = presentation
        self._services = services
        self._exchange = exchange
        self._call, self._price, self._hold, self._record = held.call, held.price, held.hold, held.record
        self._submissions = Submissions(endpoint, services, held)
        self._ending = Ending(services.settlements, held.hold)
        self._watch, self._fetcher = watch, pictures

    async def run(self) -> None:
        """Bring the call to its end; until its hold has ended, its lease is renewed."""
        self._services.running.begin(self._call, self._price, self._hold, self._submissions)
        try:
            submissions, posting = await self._submitted()
        finally:
            self._services.running.end(self._hold.hold_id)
        jobs = await self._ended([each.job for each in submissions if each.job is not None])
        pictures = _pictures(submissions, jobs, self._hold.request_id)
        if self._presentation.in_base64:
            pictures = await asyncio.gather(*map(self._in_base64, pictures))
        self._record.first_byte_at = self._record.upstream_ended_at = time.perf_counter()
        await self._answer(submissions, pictures, posting.cost_nano_usd)

    async def _submitted(self) -> tuple[list[Submission], Posting]:
        """Submit all and end the hold by what became of them."""
        self._record.sent_at = time.perf_counter()
        submissions = await self._submissions.all()
        posting = together(self._price, [each.posting for each in submissions])
        self._record.posting, self._exchange.cost_nano_usd = posting, posting.cost_nano_usd
        unbound = tuple(each.job for each in submissions if each.job is not None and not each.is_bound)
        first_poll_ms = first_poll_ms_of(unbound[0], self._services) if unbound else 0
        await self._ending.post(posting, unbound, first_poll_ms, answer=self._mark())
        self._record.posting = self._ending.posting
        return submissions, posting

    def _mark(self) -> bytes:
        """What a repeat under the same Idempotency-Key finds until the answer is made."""
        if self._hold.claim is None:
            return b""
        return unfinished_answer(int((time.time() + self._watch.wait_s + _AFTER_WAIT_S) * 1000))

    async def _ended(self, jobs: Sequence[Job]) -> list[Job]:
        """Wait for the pictures, but not for nobody: who has an Idempotency-Key may come back for the answer."""
        stop, tasks = asyncio.Event(), self._services.tasks
        tasks.on_hurry(stop.set)
        if self._hold.claim is None:
            self._exchange.watch(stop.set)
        try:
            return await self._watch.ended(jobs, self._hold.request_id, stop)
        finally:
            tasks.forget(stop.set)
            self._exchange.unwatch()

    async def _in_base64(self, picture: Picture) -> Picture:
        """With the picture itself; one that cannot be fetched keeps its URL, for whoever can."""
        if not picture.url:
            return picture
        try:
            data = await self._fetcher.fetch(picture.url)
        except NotFetched as fault:
            return replace(
                picture,
                failure=Failure(
                    "image_not_fetched",
                    f"It could not be fetched ({fault.reason}): data has its url in place of its b64_json.",
                ),
            )
        return replace(picture, base64=(await asyncio.to_thread(base64.b64encode, data)).decode())

    async def _answer(
        self, submissions: Sequence[Submission], pictures: Sequence[Picture], charged_nano_usd: int
    ) -> None:
        refunded_nano_usd = sum(picture.refunded_nano_usd for picture in pictures)
        self._exchange.cost_nano_usd = cost_nano_usd = charged_nano_usd - refunded_nano_usd
        if not any(picture.url for picture in pictures):
            error = _error_of(
                submissions, pictures, self._hold.request_id, _became(charged_nano_usd, refunded_nano_usd)
            )
            await self._keep(*error_answer(error), cost_nano_usd)
            raise error
        told_nano_usd = cost_nano_usd if self._presentation.cost_in_usage else None
        answer = images_answer(self._hold.request_id, int(time.time()), pictures, told_nano_usd)
        body = await asyncio.to_thread(encode, answer) if self._presentation.in_base64 else encode(answer)
        await self._keep(200, [_JSON], body, cost_nano_usd)
        await self._exchange.answer(200, [_JSON], body)

    async def _keep(self, status: int, headers: list[Header], body: bytes, cost_nano_usd: int) -> None:
        """Put the answer in the place of its mark, for who asks again under the same Idempotency-Key.

        A call that cost nothing has none: asked for again, it is made again.
        """
        hold, posting = self._hold, self._ending.posting
        if hold.claim is None or posting is None or posting.type == "release":
            return
        copy = AnswerCopy()
        copy.begin(status, [*headers, (b"x-gateway-cost-usd", format_usd(cost_nano_usd).encode())])
        copy.take(body)
        answer = copy.whole() or unfinished_answer(0)
        answers, org = self._services.answers, hold.principal.org
        kept = self._services.tasks.start(until_answered(lambda: answers.keep(org, hold.hold_id, answer)))
        await asyncio.wait({kept}, timeout=self._services.limits.settle_wait_s)


_AFTER_WAIT_S = 60
"""So long after the wait for the jobs the answer is certainly made, or never."""


def _pictures(submissions: Sequence[Submission], jobs: Sequence[Job], request_id: str) -> list[Picture]:
    """What became of each image; `jobs` are those that were accepted, as they are now."""
    by_number = {job.number: job for job in jobs}
    return [
        _picture(index, submission, by_number.get(index), request_id) for index, submission in enumerate(submissions)
    ]


def _picture(index: int, submission: Submission, job: Job | None, request_id: str) -> Picture:
    charged_nano_usd = submission.posting.cost_nano_usd
    if job is None:
        error = submission.error
        failure = None if error is None else Failure(error.code, error.message)
        return Picture(index, failure=failure, charged_nano_usd=charged_nano_usd)
    if job.state == "success" and job.image_url:
        return Picture(index, job.image_url, charged_nano_usd=charged_nano_usd)
    return Picture(
        index,
        failure=_failure_of(job, request_id),
        charged_nano_usd=charged_nano_usd,
        refunded_nano_usd=job.refunded_nano_usd,
    )


def _failure_of(job: Job, request_id: str) -> Failure:
    if job.state == "success":
        return Failure(
            "upstream_error", "MiniToolAI says that this image is done but not where it is; it stays charged."
        )
    if job.state == "error":
        became = "its price was given back" if job.refunded_nano_usd else "it stays charged"
        return Failure(IMAGE_FAILED, f"MiniToolAI could not generate this image; {became}.")
    if job.state == "foreign":
        return Failure("upstream_error", FOREIGN_JOB)
    return Failure(IMAGE_PENDING, f"This image is not finished yet; GET /v1/requests/{request_id} has it once it is.")


IMAGE_FAILED, IMAGE_PENDING = "image_failed", "image_pending"


def _error_of(
    submissions: Sequence[Submission], pictures: Sequence[Picture], request_id: str, became: str
) -> GatewayError:
    """What the whole call fails with, where it has no picture to show; `became` says what it cost."""
    codes = {picture.failure.code for picture in pictures if picture.failure is not None}
    if IMAGE_PENDING in codes:
        error: GatewayError = UpstreamTimeout(
            f"MiniToolAI has not finished these images yet; {became}. GET /v1/requests/{request_id} has them once they "
            "are done; asking for them again costs again."
        )
    elif any(each.job is not None for each in submissions):
        error = ImagesFailed(f"MiniToolAI delivered none of these images; {became}.")
    else:
        error = _worst([each.error for each in submissions if each.error is not None])
    error.details = {**error.details, "request_id": request_id, "failed": failed_images(pictures)}
    return error


def _became(charged_nano_usd: int, refunded_nano_usd: int) -> str:
    """What became of the money."""
    if refunded_nano_usd == charged_nano_usd:
        return "what they cost was given back"
    if not refunded_nano_usd:
        return f"they stay charged (${format_usd(charged_nano_usd)})"
    return f"of the ${format_usd(charged_nano_usd)} charged ${format_usd(refunded_nano_usd)} was given back"


def _worst(errors: Sequence[GatewayError]) -> GatewayError:
    """One that forbids a retry before any other: repeating the call may then cost again.

    The caller's own request is at fault only where MiniToolAI said so, in the same way, of every image.
    """
    final = [error for error in errors if error.should_retry is False and not isinstance(error, UpstreamRefused)]
    refused = [error for error in errors if isinstance(error, UpstreamRefused)]
    others = [error for error in errors if not isinstance(error, UpstreamRejected)]
    worst = [*final, *refused, *others]
    if worst:
        return worst[0]
    if len({error.status for error in errors}) == 1:
        return errors[0]
    return UpstreamError("MiniToolAI accepted none of these images, for different reasons: failed has them.")
