"""Image jobs after their submission: polls by clients, and by the gateway for jobs that nobody polls to their end.

A poll needs no sub-key: who knows (jobid, signature) of a job that this gateway submitted may ask for it, as with
MiniToolAI itself. A pair it never saw makes no upstream call. What a poll reports is acted on once: a failed job is
refunded.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from gateway.billing.errors import (
    JobNotFound,
    LedgerUnavailable,
    MethodNotAllowed,
    UpstreamError,
    UpstreamRefused,
)
from gateway.billing.ledger import Posting
from gateway.billing.usage import Usage
from gateway.call_log import CallRecord
from gateway.store.jobs import KEEP_MS, Job
from gateway.upstream.leg import Cutoff, UpstreamFault, UpstreamRequest, whole
from gateway.web.edge import answer_call, tell_standing
from gateway.web.errors import Header, passed_failure, unfit_status
from gateway.web.exchange import Exchange
from gateway.web.request_id import new_request_id
from gateway.web.services import ANONYMOUS, Services
from gateway.web.settlement import until_answered
from gateway.wire.headers import is_coded, mask, response_headers
from gateway.wire.images import image_url_of, inspect_poll, poll_state
from gateway.wire.strictjson import decode, encode

log = logging.getLogger("gateway.polls")

_REFUND = Posting("refund", usage=Usage(units=1))
_POLL_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class PollRules:
    """`path` is ours, `upstream_path` MiniToolAI's. Times in seconds."""

    path: str
    upstream_path: str
    error_fields: Mapping[str, object]
    refund_failed: bool
    first_s: float
    longest_s: float
    abandon_s: float
    interval_s: float = 1.0


@dataclass(frozen=True, slots=True)
class PollAnswer:
    status: int
    headers: list[Header]
    body: bytes


class JobDesk:
    """Asks the upstream about a job and acts on the answer; serves both clients' polls and the gateway's own."""

    def __init__(self, rules: PollRules, services: Services) -> None:
        self.rules = rules
        self._services = services

    async def ask(self, job: Job, request_id: str, within_s: float = math.inf) -> PollAnswer:
        """One poll, given up after `within_s` seconds, or when it takes longer than any may. Raises UpstreamError."""
        services = self._services
        request = UpstreamRequest(
            self.rules.upstream_path,
            ANONYMOUS,
            request_id.encode(),
            encode({"jobid": job.jobid, "signature": job.signature}),
        )
        secret = services.upstream_keys[job.hold.principal.org].secret
        cutoff = Cutoff()
        # Nothing is lost with a poll that is given up, so none holds up a shutdown.
        services.tasks.on_hurry(cutoff.strike)
        timer = asyncio.get_running_loop().call_later(min(within_s, services.limits.answer_s_max), cutoff.strike)
        try:
            answer = await services.upstream.send(request, cutoff)
            try:
                body = await whole(answer, services.limits.whole_answer_bytes_max)
            finally:
                await answer.close()
        except UpstreamFault:
            raise UpstreamError("The upstream gave no answer about this job. Polls cost nothing: ask again.") from None
        finally:
            services.tasks.forget(cutoff.strike)
            timer.cancel()
        if is_coded(answer.headers):
            raise UpstreamError("The upstream answered this poll in a coding nobody asked for. Ask again.")
        return PollAnswer(answer.status, response_headers(answer.headers, secret), mask(body, secret))

    async def act(self, job: Job, answer: PollAnswer) -> Job:
        """Refund a failed job, tick off a finished one; returns the job as it is now. Idempotent.

        A job that is another call's is left alone: it comes back as "foreign".
        """
        if answer.status != 200 or job.state != "pending":
            return job
        state = poll_state(answer.body)
        if state == "pending":
            return job
        if state == "error" and self.rules.refund_failed:
            return await self._refunded(job)
        secret = self._services.upstream_keys[job.hold.principal.org].secret
        image_url = image_url_of(answer.body, secret) if state == "success" else ""
        return await self._services.jobs.finish(job, state, image_url)

    async def _refunded(self, job: Job) -> Job:
        refund = await self._services.ledger.refund(job, _REFUND, KEEP_MS)
        if refund.outcome in ("open", "unbound"):
            # Its charge, or the job itself, is still on the way to the ledger: the background poller comes back for it.
            return job
        if refund.outcome in ("refunded", "nothing_to_refund"):
            return replace(job, state="error", refunded_nano_usd=refund.amount_nano_usd)
        if refund.outcome == "unknown":
            # Nothing is left to give back: the hold's record ended long ago. Asking again would change nothing.
            log.warning("job of request %s failed, but its charge is no longer known", job.hold.request_id)
        return await self._services.jobs.finish(job, "error")


class PollHandler:
    """Serves the poll path; called with each exchange, it begins the poll and returns."""

    def __init__(self, desk: JobDesk, services: Services) -> None:
        self._rules = desk.rules
        self._services = services
        self._desk = desk

    def __call__(self, exchange: Exchange) -> None:
        record = CallRecord(self._rules.path, exchange.request_id, time.perf_counter(), kind="poll")
        answer_call(self._serve, exchange, record, self._services, self._rules.error_fields)

    async def _serve(self, exchange: Exchange, record: CallRecord) -> None:
        if exchange.method != "POST":
            raise MethodNotAllowed(f"Send POST to {self._rules.path}.", allow="POST")
        job = await self._job(exchange, record)
        record.sent_at = time.perf_counter()
        answer = await self._desk.ask(job, exchange.request_id)
        record.upstream_ended_at = record.first_byte_at = time.perf_counter()
        unfit = unfit_status(answer.status)
        if isinstance(unfit, UpstreamRefused):  # it was sent no key
            raise UpstreamRefused("MiniToolAI refused this poll. Tell an administrator.")
        if unfit is not None:
            raise unfit
        acted = self._services.tasks.start(until_answered(lambda: self._desk.act(job, answer)))
        await asyncio.wait({acted}, timeout=self._services.limits.settle_wait_s)
        headers = answer.headers
        if answer.status >= 400:
            record.error, headers = passed_failure(answer.status, headers)
        await exchange.answer(answer.status, headers, answer.body)

    async def _job(self, exchange: Exchange, record: CallRecord) -> Job:
        """The job asked for. With a sub-key: a valid one, and only its own team's jobs."""
        authorization, x_api_key = exchange.header(b"authorization"), exchange.header(b"x-api-key")
        principal = None
        if authorization is not None or x_api_key is not None:
            principal = record.principal = await self._services.auth.principal(authorization, x_api_key)
            await tell_standing(exchange, self._services, principal)
        body = await exchange.json_body(_POLL_BYTES_MAX, self._services.limits.body_timeout_s)
        poll = inspect_poll(decode(body))
        job = await self._services.jobs.find(poll.jobid, poll.signature)
        owner = job.hold.principal if job else None
        if job is None or (principal and owner and (principal.org, principal.team) != (owner.org, owner.team)):
            raise JobNotFound(
                "There is no such job: poll with the jobid and signature that this gateway answered to its submission."
            )
        return job


class JobPoller:
    """Polls, slowly, the jobs that are due; any number of gateways may run one."""

    def __init__(self, desk: JobDesk, services: Services, orgs: tuple[str, ...]) -> None:
        self._rules = desk.rules
        self._services = services
        self._desk = desk
        self._orgs = orgs

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set."""
        while not stop.is_set():
            try:
                for org in self._orgs:
                    for job in await self._services.jobs.claim_due(org, 20):
                        if not stop.is_set():
                            await self._poll(job)
            except LedgerUnavailable:
                pass  # logged where it was found; the jobs stay due
            except Exception:  # one job that breaks the poller must not leave all others unpolled
                log.exception("polling image jobs failed")
            try:
                await asyncio.wait_for(stop.wait(), self._rules.interval_s)
            except TimeoutError:
                continue

    async def _poll(self, job: Job) -> None:
        age_s = time.time() - job.submitted_at_ms / 1000
        if age_s > self._rules.abandon_s:
            log.warning("job of request %s has no end after %.0f s; it stays charged", job.hold.request_id, age_s)
            await self._services.jobs.finish(job, "abandoned")
            return
        with contextlib.suppress(UpstreamError):  # whatever it was, the job is asked about again
            job = await self._desk.act(job, await self._desk.ask(job, new_request_id()))
        if job.state == "pending":
            pause_s = min(max(age_s / 2, self._rules.first_s), self._rules.longest_s)
            await self._services.jobs.poll_again(job, int((time.time() + pause_s) * 1000))
