"""Who is calling: sub-keys on the data plane, the administrator's key or a sub-key's role on the control plane."""

import hmac
from collections.abc import Collection
from dataclasses import dataclass

from gateway.billing.budget import Calendar
from gateway.billing.errors import (
    ExpiredAPIKey,
    InvalidAPIKey,
    MissingAPIKey,
)
from gateway.billing.limits import Allowance
from gateway.billing.principal import Principal, Role, Scope, digest_of, organisation_of
from gateway.store.admission import Refused
from gateway.store.packed import tightest
from gateway.store.scopes import Principals, Scopes
from gateway.web.errors import refusal

SEE_ORGANISATION: frozenset[Role] = frozenset({"admin", "auditor"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who uses the control plane. `principal` is None for the administrator's own key."""

    name: str
    role: Role
    org: str
    principal: Principal | None = None


class Authenticator:
    def __init__(
        self,
        principals: Principals,
        scopes: Scopes,
        admin_key: str,
        orgs: Collection[str],
        default_org: str,
        calendar: Calendar,
    ) -> None:
        self._principals = principals
        self._scopes = scopes
        self._admin_digest = digest_of(admin_key)
        self._orgs = orgs
        self._default_org = default_org
        self._calendar = calendar

    async def principal(self, authorization: bytes | None, x_api_key: bytes | None) -> Principal:
        """The owner of the sub-key a call carries.

        Whether its key or a scope above it is blocked, expired or revoked is admission's to say.
        Raises MissingAPIKey, InvalidAPIKey; LedgerUnavailable.
        """
        secret = bearer(authorization, x_api_key)
        org = organisation_of(secret)
        if org is None or org not in self._orgs:
            raise InvalidAPIKey(
                "This is not an API key of this gateway: it begins with sk-mt- and was given to you whole."
            )
        return await self._owner(org, digest_of(secret))

    async def _owner(self, org: str, digest: str) -> Principal:
        found = await self._principals.find(org, digest)
        if found is None:
            raise InvalidAPIKey("This API key is not valid here: it was revoked or never existed.")
        return found

    async def check_state(self, principal: Principal) -> Allowance:
        """For what passes no admission: refuse a key that is revoked or expired, or has a blocked scope above it.

        Returns what is left to it: answers without an admission tell that, too.
        """
        found, now_ms = await self._scopes.look(principal)
        states = [state for state in found if state is not None]
        if len(states) < len(found):
            raise InvalidAPIKey("This API key is not valid here: it was revoked or never existed.")
        key = states[-1]
        if key.revoked:
            raise InvalidAPIKey("This API key is not valid here: it was revoked or never existed.")
        if key.expires_at_ms and now_ms >= key.expires_at_ms:
            raise ExpiredAPIKey("This API key has expired; ask your team's administrator for a new one.")
        for scope, state in zip(principal.scopes(), states, strict=True):
            if state.blocked:
                raise refusal(Refused("blocked", scope))
        return tightest(states, self._calendar.spans_at(now_ms), now_ms)

    async def sees_organisation(self, principal: Principal) -> bool:
        """Whether the owner of a sub-key may know what the whole organisation spends."""
        settings, _ = await self._scopes.get(principal.org, Scope("key", principal.key))
        return settings.role in SEE_ORGANISATION

    def is_admin_key(self, secret: str) -> bool:
        return hmac.compare_digest(digest_of(secret), self._admin_digest)

    async def caller(self, authorization: bytes | None, x_api_key: bytes | None = None) -> Caller:
        """Who uses the control plane. Raises MissingAPIKey, InvalidAPIKey, ExpiredAPIKey, ScopeBlocked."""
        secret = bearer(authorization, x_api_key)
        if self.is_admin_key(secret):
            return Caller("admin", "admin", self._default_org)
        return await self._caller(await self.principal(authorization, x_api_key))

    async def caller_of_digest(self, org: str, digest: str) -> Caller:
        """The same for whoever once showed the secret of this digest: what opened a session must still be valid.

        Raises InvalidAPIKey, ExpiredAPIKey, ScopeBlocked.
        """
        if hmac.compare_digest(digest, self._admin_digest):
            return Caller("admin", "admin", self._default_org)
        return await self._caller(await self._owner(org, digest))

    async def _caller(self, principal: Principal) -> Caller:
        await self.check_state(principal)
        settings, _ = await self._scopes.get(principal.org, Scope("key", principal.key))
        return Caller(principal.key, settings.role, principal.org, principal)


def bearer(authorization: bytes | None, x_api_key: bytes | None) -> str:
    """The secret a request carries: a bearer token, else its x-api-key. Raises MissingAPIKey: neither.

    Authorization of another scheme is not for us (a proxy's in front, say) and hides no x-api-key.
    """
    scheme, _, secret = (authorization or b"").partition(b" ")
    if scheme.lower() == b"bearer" and secret.strip():
        return secret.strip().decode("latin-1")
    if x_api_key is not None and x_api_key.strip():
        return x_api_key.strip().decode("latin-1")
    raise MissingAPIKey("Send your API key with the call: Authorization: Bearer sk-mt-…")
