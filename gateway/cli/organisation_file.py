"""An organisation as a file: what it says of each scope, and what would have to change for that to be so.

Read with the control plane's own rules (`wire.scopes`), so that a file is refused as a whole or can be carried out as
a whole. What a file does not name stays as it is: a scope, or a setting of one. A setting that it names is meant
whole: `budgets` and `limits` list all there shall be.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from gateway.billing.errors import GatewayError
from gateway.billing.principal import Scope, ScopeKind
from gateway.billing.scope import ScopeSettings
from gateway.cli.errors import CommandError
from gateway.wire.scopes import changed_settings, new_settings, settings_json

Fields = dict[str, object]
TABLES: Mapping[str, ScopeKind] = {"teams": "team", "users": "user", "keys": "key"}
"""In the order in which scopes must come to be."""

ALL_MODELS, NEVER = "all", "never"
"""TOML has no null: `models = "all"` and `expires_at = "never"` take a list or an end away."""

_BINDINGS = ("team", "user")
_NOT_SETTINGS = ("id", "created_at", "revoked_at", "timezone", "first_weekday")


@dataclass(frozen=True, slots=True)
class Change:
    """One scope that is not as the file says. `before` is None where it does not exist."""

    scope: Scope
    fields: Fields
    """The body to send: of a POST where there is no `before`, else of a PATCH."""
    before: Fields | None
    after: Fields
    """The settings that differ, or all of a new scope."""


def read_file(path: Path) -> dict[Scope, Fields]:
    """What the file says of each scope, outermost first; the organisation's id is its name in the control plane.

    Raises CommandError: it cannot be read, or names what there is not.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} is not TOML: {error}") from None
    unknown = sorted(set(content) - {"organisation", *TABLES})
    if unknown:
        raise CommandError(f"{path}: there is no table {unknown[0]!r}; known are organisation, {', '.join(TABLES)}")
    return dict(_scopes_in(content, path))


def _scopes_in(content: Mapping[str, object], path: Path) -> Iterator[tuple[Scope, Fields]]:
    if "organisation" in content:
        fields = _table(content["organisation"], f"{path}: organisation")
        yield Scope("organisation", str(fields.pop("id", "default"))), _without_toml(fields)
    for name, kind in TABLES.items():
        for scope_id, table in _table(content.get(name, {}), f"{path}: {name}").items():
            yield Scope(kind, scope_id), _without_toml(_table(table, f"{path}: {name}.{scope_id}"))


def _table(value: object, where: str) -> Fields:
    if not isinstance(value, dict):
        raise CommandError(f"{where} must be a table")
    return dict(value)


def _without_toml(fields: Fields) -> Fields:
    """As JSON would have it."""
    out = dict(fields)
    if out.get("models") == ALL_MODELS:
        out["models"] = None
    if out.get("expires_at") == NEVER:
        out["expires_at"] = None
    if isinstance(expires_at := out.get("expires_at"), datetime):
        out["expires_at"] = expires_at.isoformat()
    return out


def changes_to(wanted: Mapping[Scope, Fields], current: Mapping[Scope, ScopeSettings]) -> list[Change]:
    """What has to be done, in the order in which it can be. Raises CommandError: it cannot be, and why."""
    changes = []
    for scope, fields in wanted.items():
        try:
            change = _change_of(scope, fields, current.get(scope))
        except GatewayError as error:
            raise CommandError(f"{_name_of(scope)}: {error}") from None
        if scope not in current:
            _refuse_lost_parents(scope, wanted, current)
        if change is not None:
            changes.append(change)
    return changes


def left_alone(wanted: Mapping[Scope, Fields], current: Mapping[Scope, ScopeSettings]) -> list[Scope]:
    """What exists, is not revoked, and is not in the file."""
    return [
        scope
        for scope, settings in current.items()
        if scope not in wanted and scope.kind != "organisation" and not settings.revoked_at_ms
    ]


def _change_of(scope: Scope, fields: Fields, before: ScopeSettings | None) -> Change | None:
    if before is None:
        return _creation(scope, fields)
    if before.revoked_at_ms:
        raise CommandError(f"{_name_of(scope)} is revoked for good; take it out of the file, or give it another id")
    for name in _BINDINGS:
        if name in fields and fields[name] != getattr(before, name):
            raise CommandError(
                f"{_name_of(scope)}: its {name} is {getattr(before, name)} and never changes; create another "
                f"{scope.kind} instead"
            )
    body = {name: value for name, value in fields.items() if name not in _BINDINGS}
    if isinstance(limits := body.get("limits"), dict):
        body["limits"] = {**dict.fromkeys(before.limits.given()), **limits}
    old, new = _settings_of(before), _settings_of(changed_settings(before, body))
    different = [name for name in new.keys() | old.keys() if new.get(name) != old.get(name)]
    if not different:
        return None
    return Change(
        scope,
        {name: value for name, value in body.items() if name in different},
        {name: old.get(name) for name in sorted(different)},
        {name: new.get(name) for name in sorted(different)},
    )


def _creation(scope: Scope, fields: Fields) -> Change:
    if scope.kind == "organisation":
        raise CommandError(f"there is no organisation {scope.id}; a gateway serves the one that its first start made")
    body = {"id": scope.id, **fields}
    return Change(scope, body, None, _settings_of(new_settings(scope.kind, body)))


def _settings_of(settings: ScopeSettings) -> Fields:
    """As JSON; the order of budgets and models means nothing."""
    ordered = replace(
        settings,
        budgets=tuple(sorted(settings.budgets, key=lambda budget: budget.window)),
        models=None if settings.models is None else tuple(sorted(settings.models)),
    )
    return {name: value for name, value in settings_json(ordered).items() if name not in _NOT_SETTINGS}


def _refuse_lost_parents(scope: Scope, wanted: Mapping[Scope, Fields], current: Mapping[Scope, ScopeSettings]) -> None:
    """A new user's team, a new key's team and user must exist, or be in the file, and the user be of the key's team."""
    bindings = _bindings(scope, wanted, current)
    for kind in cast(Sequence[ScopeKind], _BINDINGS):
        parent: Any = bindings[kind]
        if parent is None:
            continue
        if Scope(kind, parent) not in wanted and Scope(kind, parent) not in current:
            raise CommandError(f"{_name_of(scope)}: there is no {kind} {parent}; name it in the file, too")
    if scope.kind == "key" and bindings["user"] is not None:
        user = Scope("user", cast(str, bindings["user"]))
        team = _bindings(user, wanted, current)["team"]
        if team != bindings["team"]:
            raise CommandError(f"{_name_of(scope)}: user {user.id} is in team {team}, not in {bindings['team']}")


def _bindings(scope: Scope, wanted: Mapping[Scope, Fields], current: Mapping[Scope, ScopeSettings]) -> Fields:
    """Whose a scope is: as the file says, else as it is."""
    fields, settings = wanted.get(scope, {}), current.get(scope)
    return {name: fields.get(name, getattr(settings, name, None)) for name in _BINDINGS}


def _name_of(scope: Scope) -> str:
    return f"{scope.kind} {scope.id}"
