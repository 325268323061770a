"""Sessions of people on the dashboard.

A session is kept here and not in its cookie: every gateway on this Redis knows it, and to end it ends it everywhere.
The cookie holds 256 random bits, which nobody guesses; Redis holds their digest, and the digest of the key that opened
the session, which is looked up anew at every visit: a key that is revoked closes its sessions.
"""

import re
import secrets
from typing import cast

from redis.asyncio import Redis

from gateway.billing.principal import digest_of
from gateway.store.keys import Keys
from gateway.store.scripts import TranslatedFaults

SESSION_S = 12 * 3600
_TOKEN = re.compile(r"([a-z0-9]{1,20})\.[A-Za-z0-9_-]{43}", re.ASCII)


class Sessions:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def open(self, org: str, key_digest: str) -> str:
        """Begin a session of the key with this digest; returns its token, which is written down nowhere else."""
        token = f"{org}.{secrets.token_urlsafe(32)}"
        with TranslatedFaults():
            await self._redis.set(Keys(org).session(digest_of(token)), key_digest, ex=SESSION_S)
        return token

    async def find(self, token: str) -> tuple[str, str] | None:
        """Organisation and key digest of an open session; None: it has ended, or never was one."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        with TranslatedFaults():
            stored = cast(bytes | None, await self._redis.get(Keys(match[1]).session(digest_of(token))))
        return None if stored is None else (match[1], stored.decode())

    async def close(self, token: str) -> None:
        """End a session; where there is none, nothing happens."""
        match = _TOKEN.fullmatch(token)
        if match is not None:
            with TranslatedFaults():
                await self._redis.delete(Keys(match[1]).session(digest_of(token)))
