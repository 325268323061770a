"""Calls as the books have them: the hold, which stays for two days, the entry that ended it, and the image jobs."""

import json
from collections.abc import Sequence
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


@dataclass(frozen=True, slots=True)
class ImageCall:
    """An image call in short. After two days only its jobs are known: `state` and `posted_nano_usd` are None then.

    `created_at_ms` is when it was admitted, by Redis's clock; after two days when its first job was submitted.
    """

    request_id: str
    created_at_ms: int
    model: str
    state: HoldState | None
    posted_nano_usd: int | None
    jobs: tuple[Job, ...]

    @property
    def cost_nano_usd(self) -> int | None:
        """What it costs now; None where that is not known yet, or not any more."""
        if self.posted_nano_usd is None or self.state == "open":
            return None
        return self.posted_nano_usd - sum(job.refunded_nano_usd for job in self.jobs)


class Requests:
    """Finds calls by their id, and a key's image calls."""

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

    async def image_calls(
        self, principal: Principal, before: tuple[int, str] | None, limit: int
    ) -> tuple[list[ImageCall], tuple[int, str] | None]:
        """Image calls of a key that have a job, newest first, and the last place looked at where there may be more.

        `before`: such a place. Raises LedgerUnavailable.
        """
        listed = await self._jobs.calls(principal, before, limit)
        if not listed:
            return [], None
        keys, ids = Keys(principal.org), [hold_id for _, hold_id in listed]
        with TranslatedFaults():
            packed = cast(list[bytes | None], await self._redis.mget([keys.hold(hold_id) for hold_id in ids]))
        jobs = await self._jobs.of_calls(principal.org, ids)
        calls = [_image_call(*place, hold, jobs[place[1]]) for place, hold in zip(listed, packed, strict=True)]
        return [call for call in calls if call is not None], listed[-1] if len(listed) == limit else None

    async def _end_of(self, org: str, hold_id: str, hold: HoldRecord) -> Entry | None:
        if not hold.resolved_at_ms:
            return None
        entries = await self._ledger.entries(org, from_ms=hold.resolved_at_ms, count=_ENTRIES_NEARBY)
        ends = (entry for entry in entries if entry.type in RESOLUTIONS or entry.type == "late_capture")
        return next((entry for entry in ends if entry.hold_id == hold_id), None)


def _image_call(submitted_at_ms: int, request_id: str, packed: bytes | None, jobs: Sequence[Job]) -> ImageCall | None:
    """None where nothing is left of it."""
    if not jobs:
        return None
    hold = unpack_hold(packed) if packed is not None else None
    return ImageCall(
        request_id,
        hold.admitted_at_ms if hold is not None else submitted_at_ms,
        jobs[0].hold.model,
        _STATES[hold.state] if hold is not None else None,
        hold.posted_nano_usd if hold is not None else None,
        tuple(jobs),
    )
