"""An admitted call on its way: send it, pass the answer on, end its hold.

Every way out of `Relay.run` posts exactly one `Posting`, and only then the answer ends, so whoever sees the end
sees the bill. Bytes never wait for the ledger. What was sent and not answered may have been billed, so it is booked.

A client that leaves changes nothing about the bill: the upstream is read on to its usage, bounded by `drain_s` and
`drain_bytes_max`; past that the rest is estimated.
"""

import asyncio
import time
from typing import NamedTuple

from gateway.billing.errors import (
    Draining,
    GatewayError,
    Overloaded,
    RequestTimeout,
    UpstreamBrokeOff,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.billing.ledger import RELEASE, Posting
from gateway.billing.money import format_usd
from gateway.billing.prices import ModelPrice
from gateway.call_log import CallRecord
from gateway.store.admission import HoldRequest
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
    UpstreamRequest,
    whole,
)
from gateway.web.errors import Header, coded_failure, error_body, passed_failure, unfit_status
from gateway.web.exchange import Exchange
from gateway.web.repeats import AnswerCopy
from gateway.web.room import SMALL_BODY_BYTES
from gateway.web.services import Services
from gateway.web.settlement import Ending
from gateway.wire.call import Call, Endpoint
from gateway.wire.charge import estimate, posting_of, unanswered
from gateway.wire.headers import is_coded, mask, response_headers
from gateway.wire.images import ImageMeter
from gateway.wire.presentation import View
from gateway.wire.strictjson import encode

MAY_BE_BILLED = "The call may have been billed, so it was booked as an estimate; repeating it may cost again."
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_EVENT_STREAM_BEGINS = (b"data:", b":", b"event:", b"id:", b"retry:")


class HeldCall(NamedTuple):
    """A call that was admitted: what it is, its price, what is set aside for it."""

    call: Call
    price: ModelPrice
    hold: HoldRequest
    record: CallRecord


class Relay:
    """One call's way to the upstream and back; its events are shown by `view`."""

    def __init__(self, endpoint: Endpoint, services: Services, exchange: Exchange, held: HeldCall, view: View) -> None:
        self._endpoint = endpoint
        self._services = services
        self._limits = services.limits
        self._exchange = exchange
        self._call, self._body = held.call.apart(SMALL_BODY_BYTES)
        self._price, self._hold, self._record = held.price, held.hold, held.record
        self._meter = endpoint.new_meter(held.call)
        self._ending = Ending(services.settlements, held.hold)
        self._copy_of_answer = AnswerCopy() if held.hold.claim else None
        self._cutoff = Cutoff()
        self._drain_timer: asyncio.TimerHandle | None = None
        self._draining = False  # whether this stream counts among those read on after their client left
        self._cut_short = False  # whether it was left before its end, because it was too long
        self._last = _EVENT_ENDS[0]
        self._key = services.upstream_keys[held.hold.principal.org]
        self._view = view

    async def run(self) -> None:
        """Bring the call to its end; until its hold has ended, its lease is renewed."""
        running, tasks = self._services.running, self._services.tasks
        running.begin(self._call, self._price, self._hold, self._meter, self._cutoff)
        tasks.on_hurry(self._cutoff.strike)
        try:
            await self._run()
        finally:
            tasks.forget(self._cutoff.strike)
            if self._drain_timer is not None:
                self._drain_timer.cancel()
            running.end(self._hold.hold_id)

    async def _run(self) -> None:
        try:
            answer = await self._send()
            try:
                await self._pass_on(answer)
            finally:
                await answer.close()
        finally:
            if self._ending.posting is None:
                # Only a fault of our own leads here: the call may have been billed, so it is booked.
                streamed = self._record.first_byte_at is not None
                await self._post(await self._metered(cut=True) if streamed else await self._unanswered())

    async def _send(self) -> UpstreamAnswer:
        path, request_id = self._endpoint.upstream_path, self._exchange.request_id.encode()
        request = UpstreamRequest(path, self._key.headers, request_id, self._body)
        self._record.sent_at = time.perf_counter()
        try:
            answer = await self._services.upstream.send(request, self._cutoff)
        except PoolExhausted:
            await self._post(RELEASE)
            raise Overloaded("All connections to the upstream are in use; try again.", retry_after_s=1) from None
        except NotSent as fault:
            self._record.fault = fault.reason
            await self._post(RELEASE)
            raise UpstreamError("The upstream cannot be reached; nothing was billed. Try again later.") from None
        except NoAnswer as fault:
            raise await self._no_answer(fault) from None
        if not self._call.body:  # it is large
            self._forget_body()
        return answer

    def _forget_body(self) -> None:
        """It was sent, and its answer may take an hour."""
        self._body = b""
        prompt = self._call.prompt
        self._exchange.sent_on(sum(map(len, prompt.texts)) if prompt else 0)

    async def _pass_on(self, answer: UpstreamAnswer) -> None:
        """By status: refused us, failed, or succeeded; a success by form: an event stream, or anything else whole."""
        headers = response_headers(answer.headers, self._key.secret)
        unfit = unfit_status(answer.status)
        if unfit is not None:
            await self._post(RELEASE)
            raise unfit
        if answer.status >= 400:
            await self._pass_failure(answer, headers)
            return
        said = dict(reversed(answer.headers))  # of several, the first
        if b"content-encoding" in said and is_coded(answer.headers):
            await self._refuse_coded()
        is_event_stream = said.get(b"content-type", b"").lstrip().lower().startswith(b"text/event-stream")
        first = b"" if is_event_stream else await self._first(answer)
        if self._endpoint.streamed and (is_event_stream or _looks_like_events(first)):
            await self._stream(answer, headers, first)
        else:
            await self._answer_whole(answer, headers, first)

    async def _pass_failure(self, answer: UpstreamAnswer, headers: list[Header]) -> None:
        await self._post(RELEASE)
        if is_coded(answer.headers):
            raise coded_failure(answer.status)
        self._record.error, headers = passed_failure(answer.status, headers)
        try:
            body = await whole(answer, self._limits.whole_answer_bytes_max)
        except BrokenOff:
            raise UpstreamError("The upstream failed and broke off its answer; nothing was billed.") from None
        await self._exchange.answer(answer.status, headers, mask(body, self._key.secret))

    async def _refuse_coded(self) -> None:
        """A compressed answer cannot be metered, and nobody asked for one."""
        await self._post(await self._unanswered())
        raise UpstreamBrokeOff("The upstream answered in a coding nobody asked for; it was billed by estimate.")

    async def _first(self, answer: UpstreamAnswer) -> bytes:
        """The first bytes: they decide the form where the content type does not say "event stream"."""
        try:
            return await answer.read()
        except BrokenOff as fault:
            raise await self._no_answer(fault) from None

    async def _stream(self, answer: UpstreamAnswer, headers: list[Header], first: bytes) -> None:
        """Pass the events on as they come."""
        if self._copy_of_answer:
            self._copy_of_answer.begin(answer.status, headers)
        self._exchange.start(answer.status, headers)
        if not first and not answer.has_more():
            self._exchange.write_head()
        fault = await self._copied(answer, first)
        whole_answer = fault is None and not self._cut_short
        posting = await self._metered(cut=not whole_answer)
        rest = self._view.end(posting.cost_nano_usd, whole=whole_answer)
        await self._post(posting, answer=self._kept(rest) if whole_answer else b"")
        await self._exchange.write(rest)
        if fault is not None and not self._exchange.gone:
            await self._tell(fault)
        await self._exchange.finish()

    async def _tell(self, fault: BrokenOff) -> None:
        """End a stream that broke off with an event that says so."""
        error: GatewayError = UpstreamError("The upstream broke off in the middle of its answer.")
        if isinstance(fault, CutOff) and self._services.draining:
            error = Draining("This gateway is shutting down; the answer ends here.")
        elif isinstance(fault, CutOff) and self._drain_timer is not None:
            error = RequestTimeout("Keep your half of the connection open while a long answer comes; it ends here.")
        elif isinstance(fault, CutOff):
            error = UpstreamTimeout("The answer took longer than any may; it ends here.")
        self._record.error = error.code
        # The last event may be cut in the middle of a line: a blank line keeps this one apart from it.
        apart = b"" if self._last.endswith(_EVENT_ENDS) else b"\n\n"
        await self._exchange.write(apart + b"data: " + encode({"error": error_body(error)}) + b"\n\n")

    async def _copied(self, answer: UpstreamAnswer, first: bytes) -> BrokenOff | None:
        """Copy the events chunk by chunk to the client and the meter; returns what ended them too early."""
        self._services.metrics.streams_in_flight.inc()
        waited_s = self._exchange.waited_s
        self._exchange.watch(self._drain, from_half=True)
        try:
            await self._copy_chunks(answer, first)
        except CutOff as fault:
            # By ourselves: the client left and the drain is over, or the gateway shuts down.
            self._exchange.hasten()
            return fault
        except BrokenOff as fault:
            self._record.fault = fault.reason
            return fault
        finally:
            self._exchange.unwatch()
            self._services.drains -= self._draining
            self._services.metrics.streams_in_flight.dec()
            self._record.upstream_ended_at = time.perf_counter()
            self._exchange.waited_s = waited_s  # a slow reader's time is in the upstream's: both ran at once
        return None

    def _drain(self) -> None:
        """The client left, or seems to: read on for the bill, unless too many do so already."""
        self._draining = self._services.drains < self._limits.drains_max
        self._services.drains += self._draining
        drain_s = self._limits.drain_s if self._draining else 0
        self._drain_timer = asyncio.get_running_loop().call_later(drain_s, self._cutoff.strike)

    async def _copy_chunks(self, answer: UpstreamAnswer, first: bytes) -> None:
        if first:
            await self._take(first)
        drained_bytes = 0
        while chunk := await answer.read():
            await self._take(chunk)
            if self._exchange.gone:
                drained_bytes += len(chunk)
                self._cut_short = drained_bytes > self._limits.drain_bytes_max
                # Who has an Idempotency-Key may come back for the answer, so it is read to its very end.
                if self._cut_short or (self._meter.done and not self._copy_of_answer):
                    return

    async def _take(self, chunk: bytes) -> None:
        """To the client first, then to the meter."""
        if self._record.first_byte_at is None:
            self._record.first_byte_at = time.perf_counter()
        self._last = chunk
        shown = self._view.feed(chunk)
        await self._exchange.write(shown)
        self._meter.feed(chunk)
        if self._copy_of_answer:
            self._copy_of_answer.take(shown)

    async def _answer_whole(self, answer: UpstreamAnswer, headers: list[Header], first: bytes) -> None:
        """Read the whole answer, settle it, and only then begin to send it."""
        try:
            body = first + await whole(answer, self._limits.whole_answer_bytes_max - len(first))
        except BrokenOff as fault:
            raise await self._no_answer(fault) from None
        self._record.first_byte_at = self._record.upstream_ended_at = time.perf_counter()
        self._meter.feed(body)
        posting = await self._metered()
        misfit = self._misfit(body, posting)
        if misfit is not None:
            await self._post(posting)
            raise misfit
        body = mask(body, self._key.secret)
        kept = self._kept_whole(answer.status, headers, body, posting)
        job = self._meter.job if isinstance(self._meter, ImageMeter) else None
        if job is None:
            await self._post(posting, answer=kept)
        else:
            await self._post_job(posting, *job, kept)
        await self._exchange.answer(answer.status, headers, body)

    def _misfit(self, body: bytes, posting: Posting) -> GatewayError | None:
        """What a success that is no stream is to a caller who must not take it for one; None where it passes as it is.

        On MiniToolAI's own paths all of them do.
        """
        return None

    def _kept(self, rest: bytes) -> bytes:
        """The whole answer, for who asks again under the same Idempotency-Key; `rest` is what was not copied yet."""
        if self._copy_of_answer is None:
            return b""
        self._copy_of_answer.take(rest)
        return self._copy_of_answer.whole()

    def _kept_whole(self, status: int, headers: list[Header], body: bytes, posting: Posting) -> bytes:
        """The same of an answer that is not streamed: it has what it cost among its headers."""
        if self._copy_of_answer is None:
            return b""
        cost = (b"x-gateway-cost-usd", format_usd(posting.cost_nano_usd).encode())
        self._copy_of_answer.begin(status, [*headers, cost])
        return self._kept(body)

    async def _metered(self, *, cut: bool = False) -> Posting:
        """How the hold ends by what was seen; tokens are counted off the loop where the upstream proved none."""
        outcome = self._meter.outcome()
        amount = self._hold.amount_nano_usd
        decided = posting_of(self._call, self._price, amount, outcome, cut=cut)
        if decided is not None:
            return decided
        return await asyncio.to_thread(estimate, self._call, self._price, amount, outcome, self._services.counter.count)

    async def _no_answer(self, fault: NoAnswer | BrokenOff) -> GatewayError:
        """Book what may have been billed, and say so."""
        self._record.fault = fault.reason
        await self._post(await self._unanswered())
        if isinstance(fault, AnswerTimeout | CutOff):
            return UpstreamTimeout(f"The upstream did not answer in time. {MAY_BE_BILLED}")
        return UpstreamBrokeOff(f"The upstream broke off before its answer began. {MAY_BE_BILLED}")

    async def _unanswered(self) -> Posting:
        amount, count = self._hold.amount_nano_usd, self._services.counter.count
        return await asyncio.to_thread(unanswered, self._call, self._price, amount, count)

    async def _post(self, posting: Posting, *, answer: bytes = b"") -> None:
        if self._record.posting is None:
            self._book(posting)
        await self._ending.post(posting, answer=answer)

    def _book(self, posting: Posting) -> None:
        self._record.posting = posting
        self._exchange.cost_nano_usd = posting.cost_nano_usd

    async def _post_job(self, posting: Posting, jobid: str, signature: str, answer: bytes) -> None:
        now_ms = time.time_ns() // 1_000_000
        self._book(posting)
        job = Job(jobid, signature, self._hold, now_ms)
        await self._ending.post(posting, (job,), now_ms + int(self._limits.job_first_poll_s * 1000), answer=answer)
        self._record.posting = self._ending.posting


def _looks_like_events(first: bytes) -> bool:
    return first.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n").startswith(_EVENT_STREAM_BEGINS)
