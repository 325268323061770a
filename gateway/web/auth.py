"""Who is calling: sub-keys on the data plane, the administrator's key or a sub-key's role on the control plane."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gateway.billing.budget import Calendar
from gateway.billing.errors import (
    GatewayError,
    InvalidAPIKey,
    MissingAPIKey,
)
from gateway.billing.limits import NOTHING_LIMITED, Allowance
from gateway.billing.principal import Principal, Role, Scope, digest_of, organisation_of
from gateway.billing.reach import SEE_ORGANISATION, Reach, reach_of
from gateway.fixed_secret import FixedSecret
from gateway.store.admission import Refused
from gateway.store.changes import Changes
from gateway.store.packed import ScopeState, tightest
from gateway.store.scopes import Principals, Scopes
from gateway.web.bad_keys import BadKeys
from gateway.web.errors import refusal


@dataclass(frozen=True, slots=True)
class Caller:
    """Who uses the control plane. `principal` is None for the administrator's own key."""

    name: str
    role: Role
    org: str
    principal: Principal | None = None

    @property
    def author(self) -> str:
        """Who enters something: the administrator's own key, or a sub-key by its id (which may be "admin", too)."""
        return self.name if self.principal is None else f"key {self.name}"

    @property
    def reach(self) -> Reach:
        """What of the organisation is there for them."""
        return reach_of(self.role, self.org, self.principal)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a key stands where no admission says it: what is left to it, and what refuses it, if anything does."""

    allowance: Allowance
    refusal: GatewayError | None


class Authenticator:
    def __init__(
        self,
        principals: Principals,
        scopes: Scopes,
        admin_key: str,
        orgs: Collection[str],
        default_org: str,
        calendar: Calendar,
        changes: Changes,
        bad_keys: BadKeys | None = None,
    ) -> None:
        self._principals = principals
        self._scopes = scopes
        self._admin_key = FixedSecret(admin_key)
        self._orgs = orgs
        self._default_org = default_org
        self._calendar = calendar
        self.changes = changes
        """Where what a caller changes is written down."""
        self.bad_keys = bad_keys or BadKeys()

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
        digest = digest_of(secret)
        return self._principals.remembered(digest) or await self._owner(org, digest)

    async def _owner(self, org: str, digest: str) -> Principal:
        found = await self._principals.find(org, digest)
        if found is None:
            raise InvalidAPIKey("This API key is not valid here: it was revoked or never existed.")
        return found

    async def standing(self, principal: Principal) -> Standing:
        """For what passes no admission: answers without one tell what is left, too. Raises LedgerUnavailable."""
        found, now_ms = await self._scopes.look(principal)
        states = [state for state in found if state is not None]
        if len(states) < len(found):
            return Standing(NOTHING_LIMITED, refusal(Refused("unknown_scope", principal.scopes()[-1])))
        left = tightest(states, self._calendar.spans_at(now_ms), now_ms)
        return Standing(left, _refusal_of(principal, states, now_ms))

    async def check_state(self, principal: Principal) -> None:
        """Refuse a key that is revoked or expired, or has a blocked scope above it.

        Raises InvalidAPIKey, ExpiredAPIKey, ScopeBlocked; LedgerUnavailable.
        """
        refused = (await self.standing(principal)).refusal
        if refused is not None:
            raise refused

    async def sees_organisation(self, principal: Principal) -> bool:
        """Whether the owner of a sub-key may know what the whole organisation spends."""
        settings, _ = await self._scopes.get(principal.org, Scope("key", principal.key))
        return settings.role in SEE_ORGANISATION

    def is_admin_key(self, secret: str) -> bool:
        return self._admin_key.matches(secret)

    def is_proven(self, secret: str) -> bool:
        """Whether it is the administrator's key, and one that nobody finds by guessing."""
        return self._admin_key.is_beyond_guessing and self._admin_key.matches(secret)

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
        if self._admin_key.has_digest(digest):
            return Caller("admin", "admin", self._default_org)
        return await self._caller(await self._owner(org, digest))

    async def _caller(self, principal: Principal) -> Caller:
        await self.check_state(principal)
        settings, _ = await self._scopes.get(principal.org, Scope("key", principal.key))
        return Caller(principal.key, settings.role, principal.org, principal)


def _refusal_of(principal: Principal, states: Sequence[ScopeState], now_ms: int) -> GatewayError | None:
    """Of the states of all scopes above a call, outermost first: the last is the key's."""
    scopes, key = principal.scopes(), states[-1]
    if key.revoked:
        return refusal(Refused("revoked", scopes[-1]))
    if key.expires_at_ms and now_ms >= key.expires_at_ms:
        return refusal(Refused("expired", scopes[-1]))
    blocked = (scope for scope, state in zip(scopes, states, strict=True) if state.blocked)
    return next((refusal(Refused("blocked", scope)) for scope in blocked), None)


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
