"""Who changed what on the control plane: a list that is written before a change is made, and how each ended.

Written before, because a change that nobody can find would be worse than one that is listed and was not made.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from redis.asyncio import Redis

from gateway.store.keys import Keys
from gateway.store.scripts import ScriptRunner, TranslatedFaults, load

_Row = tuple[bytes, dict[bytes, bytes]]

CHANGES_KEPT = 100_000
CHANGES_BYTES_KEPT = 64 * 1024 * 1024
"""A script that changes a budget each minute fills the list in ten weeks, thirty people in none."""

QUOTA = 1_000
QUOTA_S = 86_400
"""So many changes a day of whoever reaches one team alone: nobody pushes the others' out of the list."""


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody who may set about to change."""

    request_id: str
    caller: str
    """`admin`, or the id of a sub-key."""
    role: str
    action: str
    """create, change, block, unblock, revoke, rotate, dismiss."""
    resource: str
    """The collection, as its path names it: teams, keys, credits."""
    resource_id: str
    """Empty where the gateway chooses it; how the change ended has it then."""
    fields: dict[str, Any] | None = None
    """The body, without anything that looks like a key; None where it is too large to keep, or there was none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended. `status` None: nobody knows, for the gateway was killed or Redis away; look at what it is about."""

    status: int | None = None
    error: str | None = None
    resource_id: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    id: str
    at_ms: int
    change: Change
    outcome: Outcome = field(default_factory=Outcome)


class Changes:
    def __init__(
        self,
        redis: Redis,
        scripts: ScriptRunner,
        kept: int = CHANGES_KEPT,
        bytes_kept: int = CHANGES_BYTES_KEPT,
        quota: int = QUOTA,
    ) -> None:
        self._redis = redis
        self._scripts = scripts
        self._bounds = kept, bytes_kept
        self._quota = quota
        self._record = load("record")

    async def begin(self, org: str, change: Change, *, team: str | None = None) -> str | None:
        """Write down what is about to be changed; returns its id. `team`: that of a caller who reaches no further.

        None: its administrators have used up today's QUOTA. Raises LedgerUnavailable. Do not change it then.
        """
        keys = Keys(org)
        wanted = json.dumps(asdict(change), ensure_ascii=False, separators=(",", ":"))
        names = [keys.changes, keys.outcomes, keys.changes_bytes, keys.changes_of(team or "")]
        quota = self._quota if team is not None else 0
        reply = await self._scripts.run(self._record, names, [wanted, *self._bounds, quota, QUOTA_S])
        return cast(bytes, reply[0]).decode() if reply else None

    async def end(self, org: str, change_id: str, outcome: Outcome) -> None:
        """Write down how it ended. Raises LedgerUnavailable."""
        with TranslatedFaults():
            await cast(Any, self._redis.hset(Keys(org).outcomes, change_id, json.dumps(asdict(outcome))))

    async def page(self, org: str, *, from_ms: int, to_ms: int, after: str | None, limit: int) -> list[Recorded]:
        """Up to `limit` of a half-open span, the oldest first, behind the id `after`. Raises LedgerUnavailable."""
        keys = Keys(org)
        first = f"({after}" if after else f"{from_ms}-0"
        with TranslatedFaults():
            found = await self._redis.xrange(keys.changes, min=first, max=f"({to_ms}-0", count=limit)
            rows = cast(list[_Row], found)
            ended = await cast(Any, self._redis.hmget(keys.outcomes, [row[0] for row in rows])) if rows else []
        return [_recorded(row, outcome) for row, outcome in zip(rows, ended, strict=True)]


def _recorded(row: _Row, outcome: bytes | None) -> Recorded:
    change_id = row[0].decode()
    return Recorded(
        change_id,
        int(change_id.partition("-")[0]),
        Change(**json.loads(row[1][b"change"])),
        Outcome(**json.loads(outcome)) if outcome else Outcome(),
    )
