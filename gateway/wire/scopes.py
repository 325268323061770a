"""A scope's settings as JSON: what POST and PATCH take, what GET gives, and what is stored.

Unknown fields are refused by name: a limit that is accepted must hold.
"""

import re
from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast, get_args

from gateway.billing.budget import BUDGET_WINDOWS, Budget, Window, instant
from gateway.billing.errors import InvalidRequest, UnknownField
from gateway.billing.limits import LIMIT_MAX, Limits
from gateway.billing.money import format_usd, parse_usd
from gateway.billing.principal import SCOPE_ID, Role, ScopeKind
from gateway.billing.scope import ScopeSettings
from gateway.wire.fields import refuse_unknown_fields
from gateway.wire.stray_keys import without_keys

SETTABLE = ("name", "budgets", "limits", "models", "blocked")
_ONLY_KEYS = ("role", "expires_at")
_FIXED: Mapping[ScopeKind, tuple[str, ...]] = {
    "organisation": ("id", "timezone", "first_weekday"),
    "team": ("id", "org"),
    "user": ("id", "org", "team"),
    "key": ("id", "org", "team", "user"),
}
_NAME_CHARS_MAX = 200
_MODELS_MAX = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EARLIEST_MS = 31_536_000_000
_LATEST_MS = 221_845_392_000_000
"""1971 to 9000: not 0, which stands for never, and windows around it stay within what a calendar can say."""


def new_settings(kind: ScopeKind, fields: Mapping[str, object], *, default_id: str = "") -> ScopeSettings:
    """Read the body of a POST. Raises InvalidRequest or UnknownField naming the field."""
    _refuse_unknown(kind, fields, (*_FIXED[kind], *_settable(kind)))
    settings = ScopeSettings(
        kind=kind,
        id=_id(fields.get("id", default_id or None), "id"),
        team=_id(fields.get("team"), "team") if kind in ("user", "key") else None,
        user=_id(fields["user"], "user") if kind == "key" and fields.get("user") is not None else None,
    )
    return _with(settings, fields)


def changed_settings(settings: ScopeSettings, fields: Mapping[str, object]) -> ScopeSettings:
    """Apply the body of a PATCH: what is absent stays. Raises InvalidRequest or UnknownField naming the field."""
    fixed = sorted(set(fields) & set(_FIXED[settings.kind]))
    if fixed:
        instead = "" if settings.kind == "organisation" else f"; create another {settings.kind} instead"
        raise InvalidRequest(f"{fixed[0]} never changes{instead}.", param=fixed[0])
    _refuse_unknown(settings.kind, fields, _settable(settings.kind))
    return _with(settings, fields)


def settings_json(settings: ScopeSettings) -> dict[str, object]:
    """The settings as stored and as answered (an answer adds what each budget has spent and holds)."""
    out: dict[str, object] = {"id": settings.id, "name": settings.name}
    if settings.team is not None:
        out["team"] = settings.team
    if settings.kind == "key":
        out["user"] = settings.user
        out["role"] = settings.role
        out["expires_at"] = instant(settings.expires_at_ms) if settings.expires_at_ms else None
        out["revoked_at"] = instant(settings.revoked_at_ms) if settings.revoked_at_ms else None
    if settings.kind == "organisation":
        out["timezone"] = settings.timezone
        out["first_weekday"] = settings.first_weekday
    out["budgets"] = [budget_json(budget) for budget in settings.budgets]
    out["limits"] = settings.limits.given()
    if settings.models is not None:
        out["models"] = list(settings.models)
    out["blocked"] = settings.blocked
    out["created_at"] = instant(settings.created_at_ms)
    return out


def budget_json(budget: Budget) -> dict[str, object]:
    if budget.window == "prepaid":
        return {"window": budget.window, "soft_percent": list(budget.soft_percent)}
    return {
        "window": budget.window,
        "limit_usd": format_usd(budget.limit_nano_usd),
        "limit_nano_usd": budget.limit_nano_usd,
        "soft_percent": list(budget.soft_percent),
    }


def stored_settings(kind: ScopeKind, stored: Mapping[str, object]) -> ScopeSettings:
    """Read back what `settings_json` wrote."""
    budgets = cast(list[Mapping[str, object]], stored["budgets"])
    models = cast(list[str] | None, stored.get("models"))
    return ScopeSettings(
        kind=kind,
        id=cast(str, stored["id"]),
        name=cast(str, stored["name"]),
        team=cast(str | None, stored.get("team")),
        user=cast(str | None, stored.get("user")),
        role=cast(Role, stored.get("role", "member")),
        budgets=tuple(
            Budget(
                cast(Window, row["window"]),
                cast(int, row.get("limit_nano_usd", 0)),
                tuple(cast(list[int], row["soft_percent"])),
            )
            for row in budgets
        ),
        models=None if models is None else tuple(models),
        blocked=cast(bool, stored["blocked"]),
        expires_at_ms=_stored_instant(stored.get("expires_at")),
        revoked_at_ms=_stored_instant(stored.get("revoked_at")),
        created_at_ms=_stored_instant(stored["created_at"]),
        timezone=cast(str, stored.get("timezone", "")),
        first_weekday=cast(str, stored.get("first_weekday", "monday")),
        limits=Limits(**cast(dict[str, int], stored["limits"])),
    )


def instant_ms(text: object, param: str, others: str = "") -> int:
    """Read an RFC 3339 instant as milliseconds; what is finer is cut off. `others`: what else would do, for the error.

    Raises InvalidRequest: not one, without an offset, or not from 1971-01-01 to 9000-01-01 (UTC).
    """
    try:
        at_ms = _milliseconds(text) if isinstance(text, str) and _RFC_3339.fullmatch(text) else None
    except ValueError:
        at_ms = None
    if at_ms is None:
        raise InvalidRequest(
            f"{param} must be {others}an RFC 3339 instant with its offset, such as 2026-12-01T00:00:00Z.", param=param
        )
    if not _EARLIEST_MS <= at_ms <= _LATEST_MS:
        raise InvalidRequest(f"{param} must be an instant between the years 1971 and 9000.", param=param)
    return at_ms


def _settable(kind: ScopeKind) -> tuple[str, ...]:
    return (*SETTABLE, *_ONLY_KEYS) if kind == "key" else SETTABLE


def _refuse_unknown(kind: ScopeKind, fields: Mapping[str, object], known: tuple[str, ...]) -> None:
    refuse_unknown_fields(fields, known, f"{'An' if kind == 'organisation' else 'A'} {kind}")


def _with(settings: ScopeSettings, fields: Mapping[str, object]) -> ScopeSettings:
    changes: dict[str, object] = {}
    if "limits" in fields:
        changes["limits"] = _limits(fields["limits"], settings.limits)
    for name, value in fields.items():
        if name in _READERS:
            attribute, read = _READERS[name]
            changes[attribute] = read(value)
    return replace(settings, **changes)  # type: ignore[arg-type]  # each reader returns its attribute's type


def _id(value: object, param: str) -> str:
    if value is None:
        raise InvalidRequest(f"{param} is missing.", param=param)
    if not isinstance(value, str) or not SCOPE_ID.fullmatch(value):
        raise InvalidRequest(
            f"{param} must be 1 to 40 of a-z, 0-9 and '-', beginning with a letter or digit.", param=param
        )
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or len(value) > _NAME_CHARS_MAX or any(ord(char) < 32 for char in value):
        raise InvalidRequest(f"name must be text of at most {_NAME_CHARS_MAX} characters on one line.", param="name")
    if without_keys(value) != value:
        raise InvalidRequest(
            "name holds what looks like an API key; a name is shown to others, so take that key for leaked.",
            param="name",
        )
    return value


def _blocked(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest("blocked must be true or false.", param="blocked")
    return value


def _models(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = value if isinstance(value, list) else []
    if not names or len(names) > _MODELS_MAX or not all(isinstance(name, str) and _is_model(name) for name in names):
        raise InvalidRequest(
            "models must be a list of model names, or null to allow every model; to allow none, set blocked.",
            param="models",
        )
    return tuple(dict.fromkeys(names))


def _is_model(name: str) -> bool:
    return 0 < len(name) <= 100 and name.isprintable() and name.isascii()


def _role(value: object) -> Role:
    if value not in get_args(Role):
        raise InvalidRequest(f"role must be one of {', '.join(get_args(Role))}.", param="role")
    return cast(Role, value)


def _expires_at(value: object) -> int:
    return 0 if value is None else instant_ms(value, "expires_at")


def _budgets(value: object) -> tuple[Budget, ...]:
    if not isinstance(value, list):
        raise InvalidRequest(
            'budgets must be a list such as [{"window": "month", "limit_usd": "25.00"}].', param="budgets"
        )
    budgets = tuple(_budget(row, f"budgets[{number}]") for number, row in enumerate(value))
    if len({budget.window for budget in budgets}) < len(budgets):
        raise InvalidRequest("budgets holds one window twice; give each window one limit.", param="budgets")
    return budgets


def _budget(row: object, where: str) -> Budget:
    if not isinstance(row, dict):
        raise InvalidRequest(f"{where} must be an object with window and limit_usd.", param=where)
    unknown = sorted(set(row) - {"window", "limit_usd", "soft_percent"})
    if unknown:
        raise UnknownField(f"{where} has no field {unknown[0][:80]!r}.", param=f"{where}.{unknown[0][:80]}")
    window = row.get("window")
    if window not in BUDGET_WINDOWS:
        raise InvalidRequest(f"{where}.window must be one of {', '.join(BUDGET_WINDOWS)}.", param=f"{where}.window")
    soft_percent = _soft_percent(row.get("soft_percent", []), f"{where}.soft_percent")
    if window == "prepaid":
        if row.get("limit_usd") is not None:
            raise InvalidRequest(
                f"{where}: a prepaid budget has no limit_usd; pay in with POST /admin/v1/credits.",
                param=f"{where}.limit_usd",
            )
        return Budget(window, soft_percent=soft_percent)
    try:
        limit = parse_usd(row.get("limit_usd"))
    except ValueError as error:
        raise InvalidRequest(f"{where}.limit_usd: {error}.", param=f"{where}.limit_usd") from None
    return Budget(window, limit, soft_percent)


def _limits(value: object, current: Limits) -> Limits:
    """What is named is set, null takes a limit away, what is not named stays."""
    if not isinstance(value, dict):
        raise InvalidRequest('limits must be an object such as {"requests_per_minute": 60}.', param="limits")
    known = [f.name for f in dataclass_fields(Limits)]
    for name, limit in value.items():
        if name not in known:
            raise UnknownField(
                f"There is no limit {name[:80]!r}. Known are {', '.join(known)}.", param=f"limits.{name[:80]}"
            )
        if limit is not None and not _is_count(limit):
            raise InvalidRequest(
                f"limits.{name} must be a whole number from 1 to {LIMIT_MAX}, or null for no limit; to let nothing "
                "through, set blocked.",
                param=f"limits.{name}",
            )
    return replace(current, **value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LIMIT_MAX


def _soft_percent(value: object, where: str) -> tuple[int, ...]:
    percents = value if isinstance(value, list) and len(value) <= 10 else [None]
    if not all(isinstance(p, int) and not isinstance(p, bool) and 1 <= p <= 100 for p in percents):
        raise InvalidRequest(f"{where} must be a list of whole numbers from 1 to 100, ten at most.", param=where)
    return tuple(sorted(set(percents)))


def _stored_instant(text: object) -> int:
    """Exactly what `instant` wrote, whatever range is accepted today."""
    return _milliseconds(cast(str, text)) if text else 0


def _milliseconds(text: str) -> int:
    return (datetime.fromisoformat(text.upper()) - _EPOCH) // timedelta(milliseconds=1)


_READERS = {
    "name": ("name", _name),
    "budgets": ("budgets", _budgets),
    "models": ("models", _models),
    "blocked": ("blocked", _blocked),
    "role": ("role", _role),
    "expires_at": ("expires_at_ms", _expires_at),
}
