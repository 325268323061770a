"""A change that somebody asks of the control plane by another way than its own routes, in the words of its paths."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.billing.principal import ScopeKind
from gateway.billing.scope import ScopeSettings
from gateway.wire.strictjson import JSONObject

Resource = Literal["organisations", "teams", "users", "keys", "credits"]
Action = Literal["create", "change", "block", "unblock", "revoke", "rotate"]

COLLECTIONS: Mapping[ScopeKind, Resource] = {
    "organisation": "organisations",
    "team": "teams",
    "user": "users",
    "key": "keys",
}
"""What paths call all scopes of a kind."""
KIND_OF: Mapping[str, ScopeKind] = {name: kind for kind, name in COLLECTIONS.items()}


@dataclass(frozen=True, slots=True)
class Wish:
    """In the words of the control plane's paths and bodies, which are those of its list of changes, too.

    `resource_id` is what a path would name, "" where something is created; `fields` are a body's, None without one.
    `once` does what an Idempotency-Key does. `decided_by`: the settings that the fields were made from, where they are
    no good for others.
    """

    resource: Resource
    action: Action
    resource_id: str
    fields: JSONObject | None
    once: str
    decided_by: ScopeSettings | None = None
