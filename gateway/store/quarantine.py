"""Charges whose hold the ledger does not know: kept, shown, and posted by nobody until a person has looked."""

import json
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from gateway.store.keys import Keys
from gateway.store.scripts import TranslatedFaults


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One charge that stands in no entry. Times in ms by Redis's clock."""

    hold_id: str
    at_ms: int
    cost_nano_usd: int
    request_id: str
    team: str
    user: str | None
    key: str
    kind: str
    model: str


class Quarantine:
    """What `lua/settle.lua` has set aside."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def all(self, org: str) -> list[Quarantined]:
        """The oldest first. Raises LedgerUnavailable."""
        with TranslatedFaults():
            stored = cast(dict[bytes, bytes], await self._redis.hgetall(Keys(org).quarantine))
        found = [_quarantined(hold_id.decode(), value.decode()) for hold_id, value in stored.items()]
        return sorted(found, key=lambda each: (each.at_ms, each.hold_id))

    async def dismiss(self, org: str, hold_id: str) -> bool:
        """Take one out, once it was seen to; False where there is none. Raises LedgerUnavailable."""
        with TranslatedFaults():
            return await self._redis.hdel(Keys(org).quarantine, hold_id) == 1


def _quarantined(hold_id: str, stored: str) -> Quarantined:
    at_ms, cost, entry = stored.split("\n", 2)
    facts = json.loads(entry)
    return Quarantined(
        hold_id=hold_id,
        at_ms=int(at_ms),
        cost_nano_usd=int(cost),
        request_id=facts["request_id"],
        team=facts["team"],
        user=facts["user"],
        key=facts["key"],
        kind=facts["kind"],
        model=facts["model"],
    )
