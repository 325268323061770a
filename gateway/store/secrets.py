"""The secrets of a key: one, and for a while after a rotation those before it, too.

A secret stands for its key as long as Redis has the key its digest is bound at. Admission reads that together with the
scopes, so a secret ends for all gateways in the instant in which Redis lets it end (ADR 0039).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from gateway.billing.errors import IdempotencyConflict, PreconditionFailed
from gateway.store.keys import Keys
from gateway.store.ledger import TOMBSTONE_MS
from gateway.store.scopes import Asked, Stored, binding_json
from gateway.store.scripts import Argument, ScriptRunner, TranslatedFaults, load

_TRIES = 5


@dataclass(frozen=True, slots=True)
class Rotated:
    """`old_until_ms`: until when the secrets before are good, by Redis's clock."""

    old_until_ms: int


class Secrets:
    def __init__(self, redis: Redis, scripts: ScriptRunner) -> None:
        self._redis = redis
        self._scripts = scripts
        self._rotate = load("rotate")

    async def rotate(self, org: str, read: Stored, digest: str, grace_ms: int, asked: Asked | None) -> Rotated | None:
        """Let the secret of this digest stand for a key, and those before it for `grace_ms` more at most.

        Nothing is done where the key's settings are others by now than those that were read: whoever decided by them
        might have decided otherwise.

        None: `asked` came before and has rotated it; nothing is done. Raises IdempotencyConflict: something else was
        asked under that id; PreconditionFailed: it is being changed, or rotated, by others.
        """
        keys, key = Keys(org), read.settings
        for _ in range(_TRIES):
            bound = await self._bound(keys, key.id)
            names = [keys.settings(key.scope), keys.secrets(key.id), keys.digest(digest)]
            names.append(keys.receipt(asked.id) if asked else names[0])
            kept: list[Argument] = [asked.digest if asked else "", TOMBSTONE_MS, key.id, read.raw]
            match await self._scripts.run(self._rotate, [*names, *bound], [binding_json(key), grace_ms, *kept]):
                case [b"rotated", int(until_ms)]:
                    return Rotated(until_ms)
                case [b"repeated"]:
                    return None
                case [b"conflict"]:
                    raise IdempotencyConflict(
                        "This Idempotency-Key was used for another rotation; use a new key for a new one.",
                        param="Idempotency-Key",
                    )
                case [b"edited"]:
                    break
        raise PreconditionFailed(f"Key {key.id} is being changed by others at this moment. Try again.")

    async def _bound(self, keys: Keys, key_id: str) -> Sequence[str]:
        """Where the key's secrets are bound, without the names of those that are no more."""
        with TranslatedFaults():
            members = cast(set[bytes], await self._redis.smembers(keys.secrets(key_id)))
            if members:
                return sorted(member.decode() for member in members)
            # A key from before secrets were listed has one, somewhere.
            names = [name async for name in self._redis.scan_iter(match=keys.digest("*"), count=1000)]
            found = cast(list[bytes | None], await self._redis.mget(names)) if names else []
        return [
            name.decode()
            for name, value in zip(names, found, strict=True)
            if value and json.loads(value)["key"] == key_id
        ]
