"""Who calls: a sub-key, and the scopes above it.

A sub-key is `sk-mt-<organisation>-<secret><checksum>`. The tail has a fixed length, so the organisation's
name is read from the key itself without asking Redis; the checksum (CRC-32 of all before it) lets a mistyped or
guessed key be refused without asking Redis either. Only its SHA-256 digest is ever stored.
"""

import hashlib
import re
import zlib
from typing import Literal, NamedTuple

ScopeKind = Literal["organisation", "team", "user", "key"]
Role = Literal["admin", "team_admin", "auditor", "member"]

SCOPE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}", re.ASCII)
ORGANISATION_ID = re.compile(r"[a-z0-9]{1,20}", re.ASCII)

SECRET_CHARS = 40
_CHECKSUM_CHARS = 8
_SUB_KEY = re.compile(r"sk-mt-([a-z0-9]{1,20})-([A-Za-z0-9]{40})([0-9a-f]{8})", re.ASCII)


class Scope(NamedTuple):
    """One of the four levels a call must pass: organisation → team → user → key."""

    kind: ScopeKind
    id: str


class Principal(NamedTuple):
    """The owner of a sub-key. The binding never changes, so it may be cached; what can change
    (blocked, expired, budgets, models) is read inside the admission script."""

    org: str
    team: str
    user: str | None
    key: str
    secret: str = ""
    """Digest of the secret that was shown, of which a key has several for a while after its rotation; "" where none
    was: a call as its hold remembers it."""

    def scopes(self) -> tuple[Scope, ...]:
        """Outermost first: the order in which refusals are reported."""
        outer = (Scope("organisation", self.org), Scope("team", self.team))
        user = () if self.user is None else (Scope("user", self.user),)
        return (*outer, *user, Scope("key", self.key))


def make_sub_key(org: str, secret: str) -> str:
    """Spell a sub-key from an organisation and `SECRET_CHARS` random letters and digits."""
    body = f"sk-mt-{org}-{secret}"
    return body + _checksum(body)


def organisation_of(sub_key: str) -> str | None:
    """The organisation a sub-key names, or None when it is not a sub-key or its checksum is wrong."""
    match = _SUB_KEY.fullmatch(sub_key)
    if match is None or _checksum(sub_key[:-_CHECKSUM_CHARS]) != match[3]:
        return None
    return match[1]


def digest_of(secret: str) -> str:
    """SHA-256 in hex: what is stored and looked up in place of a secret.

    A plain digest suffices for 40 random characters; a slow password hash would only slow every call.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
