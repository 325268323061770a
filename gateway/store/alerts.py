"""Alerts that the settling script kept: the newest ten thousand or so."""

from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from gateway.billing.budget import Crossing, Window
from gateway.billing.principal import Scope, ScopeKind
from gateway.store.keys import Keys
from gateway.store.scripts import TranslatedFaults


@dataclass(frozen=True, slots=True)
class Alert:
    """A soft threshold that was crossed. `id` orders alerts; `start_ms` is 0 where the window has no start."""

    id: str
    at_ms: int
    start_ms: int
    crossing: Crossing


class Alerts:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def page(self, org: str, *, before: str | None, limit: int) -> list[Alert]:
        """Up to `limit` alerts, the newest first; `before` is the id of the last one of the page before."""
        last = f"({before}" if before else "+"
        with TranslatedFaults():
            found = await self._redis.xrevrange(Keys(org).alerts, max=last, min="-", count=limit)
        rows = cast(list[tuple[bytes, dict[bytes, bytes]]], found)
        return [_alert(alert_id.decode(), fields) for alert_id, fields in rows]


def _alert(alert_id: str, fields: dict[bytes, bytes]) -> Alert:
    crossing = Crossing(
        scope=Scope(cast(ScopeKind, fields[b"scope"].decode()), fields[b"id"].decode()),
        window=cast(Window, fields[b"window"].decode()),
        percent=int(fields[b"percent"]),
        limit_nano_usd=int(fields[b"limit"]),
        spent_nano_usd=int(fields[b"spent"]),
    )
    return Alert(alert_id, int(fields[b"at"]), int(fields[b"start"]), crossing)
