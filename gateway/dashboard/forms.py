"""The changes that pages offer: their fields, when they make sense, and what of the control plane each asks for.

A field is named as the body's member it becomes, so that a refusal which names one is shown beside it.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from gateway.billing.budget import Budget, instant
from gateway.billing.money import format_usd
from gateway.billing.principal import ScopeKind
from gateway.billing.scope import ScopeSettings
from gateway.dashboard import words
from gateway.dashboard.words import marked
from gateway.wire.strictjson import JSON, JSONObject
from gateway.wire.wish import COLLECTIONS, Action, Resource, Wish

Typed = Mapping[str, str]
MidnightOf = Callable[[date], int]
"""The first instant of a local day, in milliseconds."""
_GRACES: Mapping[str, str] = {"86400": marked("good for another day"), "0": marked("at its end at once")}


@dataclass(frozen=True, slots=True)
class Field:
    """One thing to fill in. `choices`: what may be chosen, with its word; the first is chosen already."""

    name: str
    label: str
    kind: Literal["text", "code", "date", "choice"] = "text"
    hint: str = ""
    choices: Mapping[str, str] | None = None
    characters_max: int = 200
    required: bool = False
    is_for_all: bool = True
    """Else for those who reach the whole organisation."""


@dataclass(frozen=True, slots=True)
class Form:
    """One change, of scopes of the kinds `of`. `resource` None: of the scope itself, whatever its kind.

    `at_once`: its button is on the scope's own page; the others have a page of their own first. `makes_scope`: it leads
    to what was made, the others back to where they began.
    """

    name: str
    of: tuple[ScopeKind, ...]
    resource: Resource | None
    action: Action
    title: str
    about: str
    button: str
    fields: tuple[Field, ...] = ()
    at_once: bool = False
    is_final: bool = False
    makes_scope: bool = False


_NAME = Field("name", marked("Name"))
_ID = Field("id", marked("Id"), "code", marked("1 to 40 of a-z, 0-9 and -. It never changes."), None, 40, required=True)
_AMOUNT_HINT = marked("In dollars, with a point: 25.00")

FORMS: Mapping[str, Form] = {
    form.name: form
    for form in (
        Form(
            "new-key",
            ("team", "user"),
            "keys",
            "create",
            marked("New key"),
            marked("Its secret is shown once, when it is made."),
            marked("Make the key"),
            (
                _NAME,
                Field("expires_at", marked("Last day"), "date", marked("Empty: it has no end.")),
                Field("role", marked("Role"), "choice", "", words.ROLES_OF_NEW_KEYS, is_for_all=False),
            ),
        ),
        Form(
            "new-user",
            ("team",),
            "users",
            "create",
            marked("New user"),
            marked("Somebody of this team, who may have several keys."),
            marked("Make the user"),
            (_ID, _NAME),
            makes_scope=True,
        ),
        Form(
            "new-team",
            ("organisation",),
            "teams",
            "create",
            marked("New team"),
            marked("It has budgets, users and keys of its own."),
            marked("Make the team"),
            (_ID, _NAME),
            makes_scope=True,
        ),
        Form(
            "budget",
            ("organisation", "team", "user", "key"),
            None,
            "change",
            marked("Budget"),
            marked("What may be spent in one span of time. It holds from the next call on."),
            marked("Set the budget"),
            (
                Field("window", marked("Span"), "choice", "", words.SPANS),
                Field(
                    "limit_usd", marked("Amount"), "code", marked("In dollars, with a point: 25.00. Empty: no budget.")
                ),
            ),
        ),
        Form(
            "top-up",
            ("organisation", "team", "user", "key"),
            "credits",
            "create",
            marked("Top up"),
            marked("Pay into the prepaid budget."),
            marked("Top up"),
            (
                Field("amount_usd", marked("Amount"), "code", _AMOUNT_HINT, required=True),
                Field("note", marked("Note"), characters_max=500),
            ),
        ),
        Form(
            "rotate",
            ("key",),
            None,
            "rotate",
            marked("Rotate"),
            marked("The key gets a new secret, which is shown once. Its id, budgets and reports stay."),
            marked("Make a new secret"),
            (Field("grace_s", marked("The secret before it is"), "choice", "", _GRACES),),
        ),
        Form(
            "block",
            ("team", "user", "key"),
            None,
            "block",
            marked("Block"),
            marked("From the next call on all its calls are refused, until it is unblocked."),
            marked("Block"),
            at_once=True,
        ),
        Form(
            "unblock",
            ("team", "user", "key"),
            None,
            "unblock",
            marked("Unblock"),
            marked("Its calls are let through again."),
            marked("Unblock"),
            at_once=True,
        ),
        Form(
            "revoke",
            ("key",),
            None,
            "revoke",
            marked("Revoke"),
            marked("The key ends at once and for good: nothing brings it back. What it spent stays in the books."),
            marked("Revoke for good"),
            is_final=True,
        ),
    )
}
"""In the order in which they are shown, by the last part of their address."""


def offered(settings: ScopeSettings, permitted: Collection[tuple[Resource, Action]]) -> list[Form]:
    """Those that make sense for a scope as it is, and are permitted."""
    return [
        form
        for form in FORMS.values()
        if settings.kind in form.of and (_resource(form, settings), form.action) in permitted and _fits(form, settings)
    ]


def wish_of(form: Form, settings: ScopeSettings, typed: Typed, once: str, midnight_of: MidnightOf) -> Wish:
    """What the control plane is asked for. Nothing is checked here but what it could not tell from something else."""
    filled = {name: text.strip() for name, text in typed.items()}
    is_new = form.action == "create"
    return Wish(
        resource=_resource(form, settings),
        action=form.action,
        resource_id="" if is_new else settings.id,
        fields=_BODIES[form.name](settings, filled, midnight_of) if form.name in _BODIES else None,
        once=once,
        decided_by=settings if form.action == "change" else None,
    )


def _resource(form: Form, settings: ScopeSettings) -> Resource:
    return form.resource or COLLECTIONS[settings.kind]


def _fits(form: Form, settings: ScopeSettings) -> bool:
    """Whether there is anything to change as the scope is now."""
    match form.name:
        case "block" | "unblock":
            return not settings.revoked_at_ms and settings.blocked == (form.name == "unblock")
        case "top-up":
            return any(budget.window == "prepaid" for budget in settings.budgets)
        case _:
            return not settings.revoked_at_ms


def _new_key(settings: ScopeSettings, typed: Typed, midnight_of: MidnightOf) -> JSONObject:
    team = settings.id if settings.kind == "team" else settings.team
    fields: JSONObject = {"team": team, **_given(typed, "name", "role")}
    if settings.kind == "user":
        fields["user"] = settings.id
    if typed.get("expires_at"):
        fields["expires_at"] = _end_of(typed["expires_at"], midnight_of)
    return fields


def _new_user(settings: ScopeSettings, typed: Typed, _midnight_of: MidnightOf) -> JSONObject:
    return {"id": typed.get("id", ""), "team": settings.id} | _given(typed, "name")


def _new_team(_settings: ScopeSettings, typed: Typed, _midnight_of: MidnightOf) -> JSONObject:
    return {"id": typed.get("id", "")} | _given(typed, "name")


def _budgets(settings: ScopeSettings, typed: Typed, _midnight_of: MidnightOf) -> JSONObject:
    """All budgets as they are, but for that of one window."""
    window, limit_usd = typed.get("window", ""), typed.get("limit_usd", "")
    before = next((budget for budget in settings.budgets if budget.window == window), None)
    rest: list[JSON] = [_budget(budget) for budget in settings.budgets if budget.window != window]
    if not limit_usd:
        return {"budgets": rest}
    soft_percent: list[JSON] = [*before.soft_percent] if before else []
    return {"budgets": [*rest, {"window": window, "limit_usd": limit_usd, "soft_percent": soft_percent}]}


def _budget(budget: Budget) -> JSONObject:
    limit: JSONObject = {} if budget.window == "prepaid" else {"limit_usd": format_usd(budget.limit_nano_usd)}
    return {"window": budget.window} | limit | {"soft_percent": [*budget.soft_percent]}


def _credit(settings: ScopeSettings, typed: Typed, _midnight_of: MidnightOf) -> JSONObject:
    amount_usd = typed.get("amount_usd", "")
    return {"scope": settings.kind, "id": settings.id, "amount_usd": amount_usd} | _given(typed, "note")


def _rotation(_settings: ScopeSettings, typed: Typed, _midnight_of: MidnightOf) -> JSONObject:
    grace_s = typed.get("grace_s", "")
    return {"grace_s": int(grace_s) if grace_s in _GRACES else grace_s}


_BODIES: Mapping[str, Callable[[ScopeSettings, Typed, MidnightOf], JSONObject]] = {
    "new-key": _new_key,
    "new-user": _new_user,
    "new-team": _new_team,
    "budget": _budgets,
    "top-up": _credit,
    "rotate": _rotation,
}
"""Forms that are not here send no body."""


def _given(typed: Typed, *names: str) -> JSONObject:
    return {name: typed[name] for name in names if typed.get(name)}


def _end_of(last_day: str, midnight_of: MidnightOf) -> str:
    """The instant behind a local day, 2026-12-31; what is no day is left to the control plane to refuse."""
    try:
        return instant(midnight_of(date.fromisoformat(last_day) + timedelta(days=1)))
    except (ValueError, OverflowError):
        return last_day
