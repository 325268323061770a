"""Holds are leases: renewed while their calls run, expired once nobody has renewed them in time.

Who runs a call tells every few seconds what it has used so far. A gateway that was killed tells nothing more: its
holds pass their deadlines, and any gateway charges what was told last. Should the true charge arrive after all,
`Ledger.settle` posts the difference.
"""

from collections.abc import Sequence
from typing import cast

from redis.asyncio import Redis

from gateway.billing.ledger import ESTIMATED, WHOLE_HOLD, OpenHold, Posting, Progress
from gateway.billing.principal import Principal
from gateway.store.admission import HoldRequest
from gateway.store.keys import Keys
from gateway.store.ledger import Ledger, Settled
from gateway.store.records import open_hold_of
from gateway.store.scripts import Argument, ScriptRunner, TranslatedFaults, load


class Leases:
    """Renews holds of `lease_s` seconds and ends those that nobody renews.

    `charge_whole`: an expired hold is charged whole, not what its call was last known to have used.
    """

    def __init__(
        self, redis: Redis, scripts: ScriptRunner, ledger: Ledger, lease_s: float, *, charge_whole: bool = False
    ) -> None:
        self._redis = redis
        self._scripts = scripts
        self._ledger = ledger
        self._lease_ms = int(lease_s * 1000)
        self._charge_whole = charge_whole
        self._renew = load("renew")

    async def renew(self, org: str, running: Sequence[tuple[str, Progress]]) -> tuple[str, ...]:
        """Put off the deadlines of running calls, by hold id, and keep what each has used so far.

        Returns the ids of holds that expired, or that nobody knows. Raises LedgerUnavailable: try again before the
        lease is over.
        """
        if not running:
            return ()
        keys = Keys(org)
        args: list[Argument] = [self._lease_ms]
        for hold_id, so_far in running:
            usage = so_far.usage
            args += [hold_id, so_far.cost_nano_usd, usage.prompt_tokens, usage.completion_tokens, usage.units]
        names = [keys.hold(hold_id) for hold_id, _ in running]
        reply = await self._scripts.run(self._renew, [keys.leases, *names], args)
        return tuple(hold_id.decode() for hold_id in cast(list[bytes], reply[1]))

    async def now_ms(self) -> int:
        """Redis's clock. Raises LedgerUnavailable."""
        with TranslatedFaults():
            seconds, microseconds = await self._redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def overdue(self, org: str, now_ms: int, count: int) -> list[OpenHold]:
        """Holds whose deadline has passed, the oldest deadline first. Raises LedgerUnavailable."""
        keys = Keys(org)
        with TranslatedFaults():
            members = await self._redis.zrange(
                keys.leases, cast(int, "-inf"), now_ms, byscore=True, offset=0, num=count
            )
            ids = [cast(bytes, member).decode() for member in members]
            packed = cast(list[bytes | None], await self._redis.mget([keys.hold(each) for each in ids])) if ids else []
            lost = [hold_id for hold_id, value in zip(ids, packed, strict=True) if value is None]
            if lost:  # a lease whose hold is gone (ended between the two reads, or lost by Redis) ends nothing
                await self._redis.zrem(keys.leases, *lost)
        return [open_hold_of(hold_id, value) for hold_id, value in zip(ids, packed, strict=True) if value is not None]

    async def expire(self, hold: OpenHold) -> tuple[Settled, Posting]:
        """End a hold whose deadline has passed; what was posted, if it was still so. Raises LedgerUnavailable."""
        posting = Posting("expire", hold.so_far.cost_nano_usd, hold.so_far.usage, "estimated", (ESTIMATED,))
        if self._charge_whole:
            posting = posting._replace(cost_nano_usd=hold.hold_nano_usd, flags=(ESTIMATED, WHOLE_HOLD))
        return await self._ledger.settle(_request_of(hold), posting, hold.deadline_ms), posting


def _request_of(hold: OpenHold) -> HoldRequest:
    """The call as its hold remembers it; its Idempotency-Key stays claimed."""
    return HoldRequest(
        hold_id=hold.id,
        request_id=hold.request_id,
        principal=Principal(hold.org, hold.team, hold.user, hold.key),
        kind=hold.kind,
        model=hold.model,
        amount_nano_usd=hold.hold_nano_usd,
        price_version=hold.price_version,
        tags=hold.tags,
    )
