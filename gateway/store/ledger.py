"""The ledger of holds and entries: admit, settle, release, refund, and reading it back.

Each change is one script and one round trip. A hold's id makes each of them idempotent, so whatever had no answer
may be sent again. Times in answers are Redis's; the gateway's own clock only guesses the windows, and
is corrected by `stale_window`.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, cast

from redis.asyncio import Redis

from gateway.billing.budget import Calendar, Crossing, Spans
from gateway.billing.errors import LedgerUnavailable
from gateway.billing.ledger import Entry, OpenHold, Posting
from gateway.billing.money import NANO_USD_MAX
from gateway.store.admission import Decision, HoldRequest, decision_of
from gateway.store.answers import ANSWER_KEPT_MS
from gateway.store.jobs import Job
from gateway.store.keys import Keys, admission_keys_of, keys_of, states_of
from gateway.store.packed import packed_amounts
from gateway.store.records import Fields, about_json, crossings_of, entry_json, entry_of, open_hold_of
from gateway.store.scripts import Argument, Begun, Reply, ScriptRunner, ScriptSender, TranslatedFaults, load

TOMBSTONE_MS = 48 * 3600 * 1000
_PAGE = 1000
_PAGE_OF_ALL = 250  # decoded without a pause, and the calls on this loop wait meanwhile

_Rows = list[tuple[bytes, Fields]]

Between = Callable[[], Awaitable[None]]
"""What a long reading of entries waits for between two pages; what it raises ends the reading."""


async def go_on() -> None:
    """Wait for nothing."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a posting. `posted_nano_usd` is what now stands in the ledger for the hold, whoever posted it;
    None: Redis knows no such hold. `crossings`: soft thresholds it found reached, each told once."""

    changed: bool
    posted_nano_usd: int | None
    crossings: tuple[Crossing, ...] = ()


RefundOutcome = Literal["refunded", "open", "finished", "unknown", "nothing_to_refund", "unbound", "foreign"]


@dataclass(frozen=True, slots=True)
class Refund:
    """What became of a refund, and what its job has back, of this time or before.

    "open": the hold is not settled yet, so ask again; "finished": the job had ended before; "unknown": the hold is not
    known, any more. "unbound", "foreign": the job is nobody's yet, or another call's.
    """

    outcome: RefundOutcome
    amount_nano_usd: int = 0


class Ledger:
    """The books of all organisations, as one gateway process sees them."""

    def __init__(
        self,
        redis: Redis,
        scripts: ScriptRunner,
        calendar: Calendar,
        lease_s: float,
        sender: ScriptSender | None = None,
    ) -> None:
        self._redis = redis
        self._scripts = scripts
        self._sender = sender
        self._calendar = calendar
        self._lease_ms = int(lease_s * 1000)
        self._spans: Spans | None = None
        self._admit = load("admit")
        self._settle = load("settle")
        self._refund = load("refund")

    async def admit(self, request: HoldRequest) -> Decision:
        """Hold the call's amount at every scope above it, or say which scope refuses and why.

        Raises LedgerUnavailable: no answer; the hold may stand, so `release` it by its id.
        """
        return await self._decide(request, about_json(request))

    async def weigh(self, request: HoldRequest) -> Decision:
        """What `admit` would say now; nothing is held, and in Redis not a byte changes. Raises LedgerUnavailable."""
        return await self._decide(request, b"")

    async def _decide(self, request: HoldRequest, about: bytes) -> Decision:
        """`about` is kept with the hold; without it nothing is placed."""
        now_ms = int(time.time() * 1000)
        for _ in range(3):
            args = self._admit_args(request, about, self._spans_at(now_ms))
            reply = await self._scripts.run(self._admit, self._admit_keys(request), args)
            if reply[0] != b"stale_window":
                return decision_of(reply, request, self._calendar)
            now_ms = cast(list[int], reply[1])[0]
        raise LedgerUnavailable("Redis's clock jumps between calls; check its machine's time synchronisation.")

    async def settle(
        self, request: HoldRequest, posting: Posting, passed_deadline_ms: int = 0, *, answer: bytes = b""
    ) -> Settled:
        """End the hold and write its entry; where it had ended before, or is not known, nothing changes.

        A hold that has expired meanwhile is corrected, once, by the difference. An `expire` happens only where the
        hold's deadline is still the one that has passed. `answer` is kept, in the same step, for who asks again under
        the call's Idempotency-Key.

        Raises LedgerUnavailable: no answer; send it again.
        """
        args = _settle_args(request, posting, passed_deadline_ms, answer)
        return _settled(await self._scripts.run(self._settle, _settle_keys(request), args), request, posting)

    def begin_settle(self, request: HoldRequest, posting: Posting, *, answer: bytes = b"") -> Begun | None:
        """Send what `settle` sends, without waiting; None where the way to Redis must be made first: then `settle`."""
        if self._sender is None:
            return None
        return self._sender.begin(self._settle, _settle_keys(request), _settle_args(request, posting, 0, answer))

    def settled(self, begun: Begun, request: HoldRequest, posting: Posting) -> Settled | None:
        """What it has done, once its reply is there; None where nobody knows: then `settle`, which repeats nothing."""
        reply = self._sender.ended(begun) if self._sender is not None else None
        return None if reply is None else _settled(reply, request, posting)

    async def refund(self, job: Job, posting: Posting, keep_ms: int) -> Refund:
        """Give back what a failed job was charged, once: its share of its hold, never more than is left of that."""
        request = job.hold
        keys = Keys(request.principal.org)
        share_nano_usd = NANO_USD_MAX if job.share_nano_usd is None else job.share_nano_usd
        reply = await self._scripts.run(
            self._refund,
            [
                keys.job(job.digest),
                keys.jobs_due,
                keys.hold(request.hold_id),
                keys.ledger,
                keys.jobs_of(request.hold_id),
                *states_of(request.principal),
            ],
            [job.digest, entry_json(request, posting), keep_ms, share_nano_usd, request.hold_id, job.number],
        )
        outcome = cast(RefundOutcome, cast(bytes, reply[0]).decode())
        return Refund(outcome, cast(int, reply[2]) if outcome in ("refunded", "finished") else 0)

    async def entries(
        self, org: str, *, from_ms: int | None = None, after: str | None = None, count: int = _PAGE
    ) -> list[Entry]:
        """Up to `count` entries, oldest first: posted at or after `from_ms`, or behind the id `after`."""
        return await self._read(Keys(org).ledger, from_ms, after, count)

    async def credits(
        self, org: str, *, from_ms: int | None = None, after: str | None = None, count: int = _PAGE
    ) -> list[Entry]:
        """The same of credits and transfers alone."""
        return await self._read(Keys(org).credits, from_ms, after, count)

    async def _read(self, stream: str, from_ms: int | None, after: str | None, count: int) -> list[Entry]:
        start = f"({after}" if after else str(from_ms or 0)
        with TranslatedFaults():
            rows = cast(_Rows, await self._redis.xrange(stream, min=start, max="+", count=count))
        return [entry_of(row_id.decode(), fields) for row_id, fields in rows]

    async def latest_entries(self, org: str, *, before: str | None = None, count: int = _PAGE) -> list[Entry]:
        """Up to `count` entries, newest first; those older than the id `before`, if one is given."""
        end = f"({before}" if before else "+"
        with TranslatedFaults():
            rows = cast(_Rows, await self._redis.xrevrange(Keys(org).ledger, max=end, min="-", count=count))
        return [entry_of(row_id.decode(), fields) for row_id, fields in rows]

    async def all_entries(
        self, org: str, *, from_ms: int | None = None, between: Between = go_on
    ) -> AsyncIterator[Entry]:
        """Every entry, page by page. `between` is awaited between two pages."""
        page = await self.entries(org, from_ms=from_ms, count=_PAGE_OF_ALL)
        while page:
            for entry in page:
                yield entry
            await between()
            page = await self.entries(org, after=page[-1].id, count=_PAGE_OF_ALL)

    async def open_holds(self, org: str, *, limit: int = _PAGE, after: tuple[int, str] | None = None) -> list[OpenHold]:
        """Up to `limit` holds of running calls, the next to expire first; `after` is the last one's deadline and id.

        Those that expire at one instant are in the order of their ids, so each stands on one page.
        """
        keys, holds = Keys(org), list[OpenHold]()
        with TranslatedFaults():
            while wanted := limit - len(holds):
                ids = await self._leases(keys.leases, wanted, after)
                names = [keys.hold(hold_id) for _, hold_id in ids]
                packed = cast(list[bytes | None], await self._redis.mget(names)) if names else []
                # A hold that ended between the two reads is gone; another takes its place on the page.
                found = zip(ids, packed, strict=True)
                holds += [open_hold_of(hold_id, value) for (_, hold_id), value in found if value]
                if len(ids) < wanted:
                    break
                after = ids[-1]
        return holds

    async def _leases(self, key: str, count: int, after: tuple[int, str] | None) -> list[tuple[int, str]]:
        """Deadlines and ids, the next to expire first."""
        first, skipped = after[0] if after else "-inf", 0
        if after:
            same = cast(list[bytes], await self._redis.zrange(key, after[0], after[0], byscore=True))
            skipped = sum(member.decode() <= after[1] for member in same)
        found = cast(
            list[tuple[bytes, float]],
            await self._redis.zrange(key, first, "+inf", byscore=True, offset=skipped, num=count, withscores=True),
        )
        return [(int(deadline_ms), member.decode()) for member, deadline_ms in found]

    async def open_hold_count(self, org: str) -> int:
        with TranslatedFaults():
            return await self._redis.zcard(Keys(org).leases)

    def _spans_at(self, now_ms: int) -> Spans:
        # Windows change once a day; to work them out costs more than the rest of an admission's arguments.
        if self._spans is None or not self._spans.hold(now_ms):
            self._spans = self._calendar.spans_at(now_ms)
        return self._spans

    def _admit_keys(self, request: HoldRequest) -> list[str]:
        keys = keys_of(request.principal.org)
        claim = () if request.claim is None else (keys.claim(request.claim.name),)
        fixed = (keys.hold(request.hold_id), keys.leases, keys.price_lists)
        return [*fixed, *admission_keys_of(request.principal), *claim]

    def _admit_args(self, request: HoldRequest, about: bytes, spans: Spans) -> list[Argument]:
        so_far = request.so_far
        amounts = packed_amounts(
            request.amount_nano_usd,
            self._lease_ms,
            request.tokens,
            request.images,
            spans.day.start_ms,
            spans.day.end_ms,
            spans.week.start_ms,
            spans.week.end_ms,
            spans.month.start_ms,
            spans.month.end_ms,
            so_far.cost_nano_usd,
            so_far.usage.prompt_tokens,
            so_far.usage.completion_tokens,
            so_far.usage.units,
        )
        claim = () if request.claim is None else (request.claim.request,)
        return [request.hold_id, amounts, request.model, about, request.price_version, *claim]


def _settle_args(request: HoldRequest, posting: Posting, passed_deadline_ms: int, answer: bytes) -> list[Argument]:
    amounts = packed_amounts(
        posting.cost_nano_usd,
        posting.usage.prompt_tokens + posting.usage.completion_tokens if posting.type != "release" else 0,
        TOMBSTONE_MS,
        passed_deadline_ms,
        ANSWER_KEPT_MS,
    )
    args: list[Argument] = [request.hold_id, posting.type, amounts, entry_json(request, posting)]
    if request.claim is not None:
        args.append(answer)
    return args


def _settled(reply: Reply, request: HoldRequest, posting: Posting) -> Settled:
    match reply:
        case [b"settled", _, _, list(crossed)]:
            crossings = crossings_of(crossed, request.principal) if crossed else ()
            return Settled(True, posting.cost_nano_usd, crossings)
        case [b"resolved", _, int(posted)]:
            return Settled(changed=False, posted_nano_usd=posted)
        case _:
            return Settled(changed=False, posted_nano_usd=None)


def _settle_keys(request: HoldRequest) -> list[str]:
    """The keys of `lua/settle.lua`."""
    keys = keys_of(request.principal.org)
    claim = () if request.claim is None else (keys.claim(request.claim.name), keys.answer(request.hold_id))
    return [
        keys.hold(request.hold_id),
        keys.leases,
        keys.ledger,
        keys.alerts,
        keys.crossed,
        keys.quarantine,
        *states_of(request.principal),
        *claim,
    ]
