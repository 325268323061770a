"""Charges whose hold the ledger does not know: kept, shown, and posted by nobody until a person has looked."""

import json
import secrets
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from gateway.billing.scope import ScopeSettings
from gateway.store.keys import Keys
from gateway.store.records import entry_by_hand
from gateway.store.scripts import ScriptRunner, TranslatedFaults, load

DISMISSED = "dismissed"
"""Flag of the entry that says a charge was taken out."""


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

    def __init__(self, redis: Redis, scripts: ScriptRunner) -> None:
        self._redis = redis
        self._scripts = scripts
        self._dismiss = load("dismiss")

    async def page(self, org: str, *, after: tuple[int, str], limit: int) -> list[Quarantined]:
        """Up to `limit` of them, the oldest first, behind the time and hold id `after`. Raises LedgerUnavailable."""
        with TranslatedFaults():
            stored = cast(dict[bytes, bytes], await self._redis.hgetall(Keys(org).quarantine))
        found = [_quarantined(hold_id.decode(), value.decode()) for hold_id, value in stored.items()]
        return sorted((each for each in found if _place(each) > after), key=_place)[:limit]

    async def dismiss(self, org: str, hold_id: str, author: str) -> tuple[Quarantined, str] | None:
        """Take one out, once it was seen to, and write an entry that says who did; returns both, the entry by its id.

        The entry costs nothing and stands at the organisation: where a hold is not known, its team may not be either.
        None: there is no such charge. Raises LedgerUnavailable.
        """
        keys = Keys(org)
        with TranslatedFaults():
            stored = cast(bytes | None, await self._redis.hget(keys.quarantine, hold_id))
        if stored is None:
            return None
        charge = _quarantined(hold_id, stored.decode())
        organisation = ScopeSettings(kind="organisation", id=org)
        entry = entry_by_hand(
            org, organisation, note=_note(charge), author=author, flags=(DISMISSED,), request_id=charge.request_id
        )
        reply = await self._scripts.run(
            self._dismiss,
            [keys.quarantine, keys.ledger],
            [hold_id, stored, f"dismissal-{secrets.token_hex(12)}", entry],
        )
        match reply:
            case [b"dismissed", bytes(entry_id)]:
                return charge, entry_id.decode()
            case _:
                return None


def _place(each: Quarantined) -> tuple[int, str]:
    return each.at_ms, each.hold_id


def _note(charge: Quarantined) -> str:
    whose = ", ".join(f"{kind} {name}" for kind, name in _owners(charge) if name)
    return f"{charge.cost_nano_usd} nano-USD of hold {charge.hold_id} ({whose}) dismissed from quarantine"


def _owners(charge: Quarantined) -> list[tuple[str, str | None]]:
    return [("team", charge.team), ("user", charge.user), ("key", charge.key)]


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
