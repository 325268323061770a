"""Organisations, teams, users and keys: settings as JSON, packed for admission by one script; and who a sub-key is."""

import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from typing import cast

import msgspec
from redis.asyncio import Redis

from gateway.billing.budget import WINDOWS
from gateway.billing.errors import AlreadyExists, IdempotencyConflict, LedgerUnavailable, NotFound
from gateway.billing.principal import Principal, Scope, ScopeKind
from gateway.billing.scope import ScopeSettings
from gateway.store.keys import Keys, admission_keys_of, keys_of
from gateway.store.ledger import TOMBSTONE_MS
from gateway.store.packed import ScopeState, flags_of, models_text, soft_text, unpack_scope
from gateway.store.scripts import Argument, Reply, ScriptRunner, TranslatedFaults, load
from gateway.wire.scopes import settings_json, stored_settings

_BINDINGS_MAX = 50_000
_DECODED_AT_ONCE = 100  # without a pause, and the calls on this loop wait meanwhile
_OWNERS_AT_ONCE = 500  # the same, of owners alone


@dataclass(frozen=True, slots=True)
class Stored:
    """One scope as it was read. `raw` is the very text in Redis, by which a change knows that nobody was faster."""

    settings: ScopeSettings
    state: ScopeState
    raw: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may be sent again: the id that its Idempotency-Key stands for, and the digest of what it asks."""

    id: str
    digest: str


class _Owner(msgspec.Struct):
    """Of the settings of a user or key, whose it is."""

    team: str | None = None
    user: str | None = None


_OWNER = msgspec.json.Decoder(_Owner)


class Scopes:
    """What the control plane reads and writes."""

    def __init__(self, redis: Redis, scripts: ScriptRunner) -> None:
        self._redis = redis
        self._scripts = scripts
        self._put = load("put_scope")

    async def create(
        self, org: str, settings: ScopeSettings, *, secret_digest: str = "", asked: Asked | None = None
    ) -> str | None:
        """Store a new scope; for a key also whom the digest of its secret stands for. None: that is done.

        Else nothing is stored, for `asked` came before and created the scope whose id is returned; that is remembered
        for TOMBSTONE_MS. Raises IdempotencyConflict: something else was asked under that id. AlreadyExists: the scope's
        id is taken. NotFound: a scope above it does not exist.
        """
        match await self._write(org, b"", settings, secret_digest, asked):
            case [b"repeated", bytes(first)]:
                return first.decode()
            case [b"conflict"]:
                raise IdempotencyConflict(
                    f"This Idempotency-Key was used for another {settings.kind}; use a new key for a new one.",
                    param="Idempotency-Key",
                )
            case [b"exists"]:
                raise AlreadyExists(
                    f"A {settings.kind} with id {settings.id} exists: change it with PATCH, or choose another id.",
                    param="id",
                )
            case [b"missing", int(number)]:
                parent = settings.parents()[number - 1]
                raise no_parent(parent)
        return None

    async def replace(self, org: str, old: Stored, new: ScopeSettings) -> bool:
        """Change a scope, unless someone changed it since `old` was read (False: read and try again)."""
        reply = await self._write(org, old.raw, new)
        if reply == [b"lost"]:
            raise _lost(new.scope)
        return reply == [b"put"]

    async def get(self, org: str, scope: Scope) -> tuple[ScopeSettings, ScopeState]:
        """Settings and state of one scope. Raises NotFound."""
        stored = await self.read(org, scope)
        return stored.settings, stored.state

    async def read(self, org: str, scope: Scope) -> Stored:
        """One scope as `replace` wants it. Raises NotFound; LedgerUnavailable: it has settings and no balance."""
        keys = Keys(org)
        settings, state = await self._mget([keys.settings(scope), keys.state(scope)])
        if settings is None:
            raise no_such(scope)
        if state is None:
            raise _lost(scope)
        return Stored(stored_settings(scope.kind, json.loads(settings)), unpack_scope(state), settings)

    async def page(
        self, org: str, kind: ScopeKind, *, after: str, limit: int
    ) -> list[tuple[ScopeSettings, ScopeState]]:
        """Scopes of one kind behind the id `after`, by id."""
        return await self.several(org, await self._listed(org, kind, after, limit))

    async def owned(
        self, org: str, kind: ScopeKind, *, team: str | None, user: str | None = None, after: str = ""
    ) -> AsyncIterator[Scope]:
        """Users or keys of one team, one user, or both, behind the id `after`, by id.

        All there are in the organisation are looked at, page by page, and the calls go on between two pages.
        """
        keys = Keys(org)
        while scopes := await self._listed(org, kind, after, _OWNERS_AT_ONCE):
            found = await self._mget([keys.settings(scope) for scope in scopes])
            for scope, settings in zip(scopes, found, strict=True):
                owner = _OWNER.decode(settings) if settings is not None else None
                if owner and team in (None, owner.team) and user in (None, owner.user):
                    yield scope
            after = scopes[-1].id

    async def several(self, org: str, scopes: Sequence[Scope]) -> list[tuple[ScopeSettings, ScopeState]]:
        """Settings and state of these scopes in their order; those that do not exist are left out."""
        rows: list[tuple[ScopeSettings, ScopeState]] = []
        for begin in range(0, len(scopes), _DECODED_AT_ONCE):
            rows += await self._rows(org, scopes[begin : begin + _DECODED_AT_ONCE])
        return rows

    async def _rows(self, org: str, scopes: Sequence[Scope]) -> list[tuple[ScopeSettings, ScopeState]]:
        keys = Keys(org)
        values = await self._mget([keys.settings(scope) for scope in scopes] + [keys.state(scope) for scope in scopes])
        triples = zip(scopes, values[: len(scopes)], values[len(scopes) :], strict=True)
        return [
            (stored_settings(scope.kind, json.loads(settings)), unpack_scope(state))
            for scope, settings, state in triples
            if settings is not None and state is not None
        ]

    async def states(self, org: str, kind: ScopeKind, *, after: str, limit: int) -> list[tuple[Scope, ScopeState]]:
        """The same without their settings: what admission counts."""
        keys = Keys(org)
        scopes = await self._listed(org, kind, after, limit)
        packed = await self._mget([keys.state(scope) for scope in scopes]) if scopes else []
        pairs = zip(scopes, packed, strict=True)
        return [(scope, unpack_scope(state)) for scope, state in pairs if state is not None]

    async def look(self, principal: Principal) -> tuple[list[ScopeState | None], int]:
        """State of every scope above a call, outermost first, and Redis's clock (ms).

        None where one does not exist, and for a key where the secret that was shown is not its own any more.
        """
        with TranslatedFaults():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.mget(admission_keys_of(principal))
            pipeline.time()
            (*packed, bound), (seconds, micros) = await pipeline.execute()
        if bound is None:
            packed[-1] = None
        states = [None if value is None else unpack_scope(value) for value in packed]
        return states, int(seconds) * 1000 + int(micros) // 1000

    async def now_ms(self) -> int:
        """Redis's clock, the one all windows go by."""
        with TranslatedFaults():
            seconds, micros = await self._redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def _listed(self, org: str, kind: ScopeKind, after: str, limit: int) -> list[Scope]:
        """Scopes of one kind behind the id `after`, by id."""
        with TranslatedFaults():
            first = f"({after}" if after else "-"
            ids = await self._redis.zrangebylex(Keys(org).index(kind), first, "+", start=0, num=limit)
        return [Scope(kind, cast(bytes, member).decode()) for member in ids]

    async def _mget(self, keys: list[str]) -> list[bytes | None]:
        with TranslatedFaults():
            return cast(list[bytes | None], await self._redis.mget(keys))

    async def _write(
        self, org: str, replaces: bytes, settings: ScopeSettings, secret_digest: str = "", asked: Asked | None = None
    ) -> Reply:
        keys = Keys(org)
        state = keys.state(settings.scope)
        return await self._scripts.run(
            self._put,
            [
                keys.settings(settings.scope),
                state,
                keys.index(settings.kind),
                keys.digest(secret_digest) if secret_digest else state,
                keys.receipt(asked.id) if asked else state,
                keys.secrets(settings.id) if secret_digest else state,
                *(keys.settings(parent) for parent in settings.parents()),
            ],
            [*_put_args(replaces, settings, bool(secret_digest)), asked.digest if asked else "", TOMBSTONE_MS],
        )


class Principals:
    """Who a sub-key belongs to. The binding never changes, so what was found once is remembered."""

    def __init__(self, read: Callable[[str], Awaitable[bytes | None]]) -> None:
        """`read` gets the string under a key of Redis, or None; raises LedgerUnavailable."""
        self._read = read
        self._known: OrderedDict[str, Principal] = OrderedDict()

    def remembered(self, digest: str) -> Principal | None:
        """The owner of a sub-key's digest, where it was found before."""
        known = self._known.get(digest)
        if known is not None:
            self._known.move_to_end(digest)
        return known

    async def find(self, org: str, digest: str) -> Principal | None:
        """The owner of a sub-key's digest, or None. Whether it is blocked, expired or revoked is not said here."""
        known = self.remembered(digest)
        if known is not None:
            return known
        stored = await self._read(keys_of(org).digest(digest))
        if stored is None:
            return None
        principal = _principal(org, digest, msgspec.json.decode(stored))
        self._known[digest] = principal
        if len(self._known) > _BINDINGS_MAX:
            self._known.popitem(last=False)
        return principal


class BooksMismatch(RuntimeError):
    """The settings contradict the books; the text says which, and what to set back."""


async def ensure_organisation(scopes: Scopes, settings: ScopeSettings) -> None:
    """Create the organisation at the first start.

    Raises BooksMismatch: it exists with another time zone or first day of the week. Its windows begin at local
    midnights, so a change would reset budgets in the middle of a month or a week.
    """
    try:
        await scopes.create(settings.id, settings)
    except AlreadyExists:
        stored, _ = await scopes.get(settings.id, settings.scope)
        refuse_other_calendar(stored, settings)


def refuse_other_calendar(stored: ScopeSettings, wanted: ScopeSettings) -> None:
    """Raises BooksMismatch: the organisation as it is stored has another time zone or first day of the week."""
    for setting in ("timezone", "first_weekday"):
        kept, given = getattr(stored, setting), getattr(wanted, setting)
        if kept != given:
            raise BooksMismatch(
                f"organisation {stored.id} keeps its books with {setting} {kept}, but the setting says {given}; "
                "set it back: its budgets already count in windows of the old one"
            )


def binding_json(key: ScopeSettings) -> str:
    """What is stored where a secret of a key is bound to it."""
    return json.dumps({"key": key.id, "team": key.team, "user": key.user}, separators=(",", ":"))


def no_such(scope: Scope) -> NotFound:
    """It is not there, or is not there for who asks: both sound the same."""
    return NotFound(f"There is no {scope.kind} {scope.id}.")


def no_parent(parent: Scope) -> NotFound:
    """The same of what a new scope should belong to."""
    return NotFound(f"There is no {parent.kind} {parent.id}; create it first.", param=parent.kind)


def _lost(scope: Scope) -> LedgerUnavailable:
    """A new balance would begin at nothing, and let a spent budget be spent again."""
    return LedgerUnavailable(f"The balance of {scope.kind} {scope.id} is lost; see `gateway ledger verify`.")


def _put_args(replaces: bytes, settings: ScopeSettings, binds_secret: bool) -> list[Argument]:
    limits = {budget.window: budget.limit_nano_usd for budget in settings.budgets}
    pays_ahead = "prepaid" in limits
    return [
        settings.id,
        replaces,
        json.dumps(settings_json(settings), separators=(",", ":"), ensure_ascii=False),
        flags_of(blocked=settings.blocked, revoked=settings.revoked_at_ms > 0, pays_ahead=pays_ahead),
        settings.expires_at_ms,
        *(limits.get(window, "") for window in WINDOWS),
        models_text(settings.models),
        binding_json(settings) if binds_secret else "",
        *("" if (limit := getattr(settings.limits, f.name)) is None else limit for f in fields(settings.limits)),
        soft_text(settings.budgets),
    ]


def _principal(org: str, digest: str, binding: dict[str, str | None]) -> Principal:
    team, key = binding["team"], binding["key"]
    if team is None or key is None:
        raise LedgerUnavailable("A stored key has no team; restore Redis from a backup.")
    return Principal(org=org, team=team, user=binding["user"], key=key, secret=digest)
