"""One call as the books have it: its hold, which stays for two days, the entry that ended it, and its image jobs."""

import json
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from gateway.billing.ledger import RESOLUTIONS, Entry, HoldState
from gateway.billing.principal import Principal
from gateway.store.jobs import Job, Jobs
from gateway.store.keys import Keys
from gateway.store.ledger import Ledger
from gateway.store.packed import HoldRecord, unpack_hold
from gateway.store.scripts import TranslatedFaults

_STATES: tuple[HoldState, ...] = ("open", "captured", "released", "expired")
_ENTRIES_NEARBY = 200
"""An entry is written in the millisecond in which its hold ends: it is among the first from there on."""


@dataclass(frozen=True, slots=True)
class KnownCall:
    """What is known of one call. Times are milliseconds by Redis's clock; `ended_at_ms` is None while it runs.

    `posted_nano_usd` is what it was charged, before refunds; `entry` is what ended it, None while it runs or where that
    entry was trimmed.
    """

    owner: Principal
    state: HoldState
    kind: str
    model: str
    hold_nano_usd: int
    posted_nano_usd: int
    admitted_at_ms: int
    ended_at_ms: int | None
    entry: Entry | None
    jobs: tuple[Job, ...]

    @property
    def cost_nano_usd(self) -> int:
        """What it costs now: what came back is taken off."""
        return self.posted_nano_usd - sum(job.refunded_nano_usd for job in self.jobs)


class Requests:
    """Finds calls by their id."""

    def __init__(self, redis: Redis, ledger: Ledger, jobs: Jobs) -> None:
        self._redis = redis
        self._ledger = ledger
        self._jobs = jobs

    async def find(self, org: str, request_id: str) -> KnownCall | None:
        """The call of this id; None: there was none, or it ended over two days ago. Raises LedgerUnavailable."""
        with TranslatedFaults():
            packed = cast(bytes | None, await self._redis.get(Keys(org).hold(request_id)))
        hold = unpack_hold(packed) if packed is not None else None
        about = json.loads(hold.about) if hold is not None else {}
        if hold is None or not about:  # a release of what was never admitted says nothing about any call
            return None
        return KnownCall(
            owner=Principal(about["org"], about["team"], about["user"], about["key"]),
            state=_STATES[hold.state],
            kind=about["kind"],
            model=about["model"],
            hold_nano_usd=hold.amount_nano_usd,
            posted_nano_usd=hold.posted_nano_usd,
            admitted_at_ms=hold.admitted_at_ms,
            ended_at_ms=hold.resolved_at_ms or None,
            entry=await self._end_of(org, request_id, hold),
            jobs=tuple(await self._jobs.of_call(org, request_id)) if about["kind"] == "image" else (),
        )

    async def _end_of(self, org: str, hold_id: str, hold: HoldRecord) -> Entry | None:
        if not hold.resolved_at_ms:
            return None
        entries = await self._ledger.entries(org, from_ms=hold.resolved_at_ms, count=_ENTRIES_NEARBY)
        ends = (entry for entry in entries if entry.type in RESOLUTIONS or entry.type == "late_capture")
        return next((entry for entry in ends if entry.hold_id == hold_id), None)
