"""The only place that spells Redis keys.

Every key of an organisation carries its name as the hash tag, so that each script stays within one Redis Cluster
slot and organisations spread over shards. Two keys stand outside, for single commands (`topology.untagged`): the
schema version, and the pointer from an image job to its organisation, since a poll may come without a sub-key.
"""

import functools
import hashlib

from gateway.billing.principal import Principal, Scope

DEFAULT_ORG = "default"
SCHEMA = "gw:schema"
SCHEMA_VERSION = "5"
_ORGANISATIONS_REMEMBERED = 1000
_PRINCIPALS_REMEMBERED = 20_000


def job_pointer(digest: str) -> str:
    """Names the organisation of an image job."""
    return f"gw:job:{digest}"


def job_digest(jobid: str, signature: str) -> str:
    """One name for the pair a poll must know; the signature itself never becomes part of a key."""
    return hashlib.sha256(f"{jobid}\n{signature}".encode()).hexdigest()


@functools.lru_cache(_ORGANISATIONS_REMEMBERED)
def keys_of(org: str) -> "Keys":
    """The keys of an organisation that calls ask for again and again."""
    return Keys(org)


@functools.lru_cache(_PRINCIPALS_REMEMBERED)
def states_of(principal: Principal) -> tuple[str, ...]:
    """Where the scopes of a call have their state, outermost first."""
    keys = keys_of(principal.org)
    return tuple(keys.state(scope) for scope in principal.scopes())


@functools.lru_cache(_PRINCIPALS_REMEMBERED)
def admission_keys_of(principal: Principal) -> tuple[str, ...]:
    """The same, and then what says that the secret that was shown is still good; the key's state where none was."""
    states = states_of(principal)
    return (*states, keys_of(principal.org).digest(principal.secret) if principal.secret else states[-1])


class Keys:
    """The keys of one organisation."""

    def __init__(self, org: str) -> None:
        self.org = org
        self._prefix = f"gw:{{{org}}}:"
        self.leases = self._prefix + "leases"
        self.ledger = self._prefix + "ledger"
        self.credits = self._prefix + "credits"
        self.alerts = self._prefix + "alerts"
        self.crossed = self._prefix + "crossed"
        self.upstream_account = self._prefix + "upstream-account"
        self.reconciliations = self._prefix + "reconciliations"
        self.changes = self._prefix + "changes"
        self.outcomes = self._prefix + "outcomes"
        self.changes_bytes = self._prefix + "changes-bytes"
        self.checkpoint = self._prefix + "checkpoint"
        self.quarantine = self._prefix + "quarantine"
        self.trimmed = self._prefix + "trimmed"
        self.revision = self._prefix + "revision"
        self.sheets = self._prefix + "cells:"
        self.jobs_due = self._prefix + "jobs-due"
        self.price_schedule = self._prefix + "price-schedule"
        self.price_lists = self._prefix + "price-lists"

    def short(self, name: str) -> str:
        """A key's name within its organisation, as archives have it."""
        return name.removeprefix(self._prefix)

    def whole(self, short: str) -> str:
        """The key of such a name."""
        return self._prefix + short

    @property
    def nothing(self) -> str:
        """A key that is never written."""
        return self._prefix + "nothing"

    def settings(self, scope: Scope) -> str:
        """JSON of a scope as the control plane takes and gives it."""
        return f"{self._prefix}settings:{scope.kind}:{scope.id}"

    def state(self, scope: Scope) -> str:
        """The packed string admission reads and writes (ADR 0003)."""
        return f"{self._prefix}scope:{scope.kind}:{scope.id}"

    def index(self, kind: str) -> str:
        """Sorted set of the ids of one kind of scope."""
        return f"{self._prefix}index:{kind}"

    def digest(self, digest: str) -> str:
        """From the digest of a sub-key to who owns it."""
        return f"{self._prefix}digest:{digest}"

    def secrets(self, key_id: str) -> str:
        """Set of the names of the keys that bind a secret's digest to a key."""
        return f"{self._prefix}secrets:{key_id}"

    def hold(self, hold_id: str) -> str:
        return f"{self._prefix}hold:{hold_id}"

    def claim(self, name: str) -> str:
        """Which call has an Idempotency-Key, and what it asked."""
        return f"{self._prefix}claim:{name}"

    def answer(self, hold_id: str) -> str:
        """What the call of a hold was answered, where it has an Idempotency-Key."""
        return f"{self._prefix}answer:{hold_id}"

    def receipt(self, entered_id: str) -> str:
        """What became of a credit, transfer or other entry made by hand, under its id."""
        return f"{self._prefix}receipt:{entered_id}"

    def job(self, digest: str) -> str:
        return f"{self._prefix}job:{digest}"

    def jobs_of(self, hold_id: str) -> str:
        """The image jobs that a hold paid for, and what was given back of it."""
        return f"{self._prefix}jobs-of:{hold_id}"

    def image_calls(self, key_id: str) -> str:
        """Sorted set of the newest image calls of a sub-key that have a job, by when that was submitted (ms)."""
        return f"{self._prefix}image-calls:{key_id}"

    def prices(self, version: str) -> str:
        """The price list of a version, as it was when calls were priced by it."""
        return f"{self._prefix}prices:{version}"

    def changes_of(self, team: str) -> str:
        """How many changes a team's administrators have begun within a day."""
        return f"{self._prefix}changes-of:{team}"

    def session(self, digest: str) -> str:
        """A dashboard session, under the digest of its token."""
        return f"{self._prefix}session:{digest}"

    def refusals(self, month: str, scope: Scope) -> str:
        """Counts of one scope's refused calls: one hash a month."""
        return f"{self._prefix}refusals:{month}:{scope.kind}:{scope.id}"

    def sheet(self, grain: str, sheet: str, axis: str, owner: str) -> str:
        """Report cells of one owner: one hash for each year of months, month of days, day of hours."""
        return f"{self.sheets}{grain}:{sheet}:{axis}:{owner}"

    def owners(self, grain: str, sheet: str, axis: str) -> str:
        """Set of the owners of those sheets."""
        return f"{self._prefix}owners:{grain}:{sheet}:{axis}"
