"""What answers have in their bodies, as JSON Schemas. Objects are closed: what an answer has, stands here."""

from collections.abc import Mapping
from typing import get_args

from gateway.billing.budget import BUDGET_WINDOWS
from gateway.billing.ledger import EntryType, UsageSource
from gateway.billing.limits import LIMIT_MAX, RATE_OF_LIMIT
from gateway.billing.price_rows import CHAT_RATES, CHAT_SIZES, UNIT_RATES
from gateway.billing.price_schedule import PriceState
from gateway.billing.principal import Role, ScopeKind
from gateway.billing.upstream_account import AccountEntryType
from gateway.store.jobs import JobState
from gateway.web.openapi.schemas import (
    ANY,
    COUNT,
    FLAG,
    ID,
    INSTANT,
    INTEGER,
    NAME,
    PRICE_USD,
    SIGNED_USD,
    TEXT,
    Schema,
    array,
    asked,
    closed,
    dollars,
    nullable,
    one_of,
    ref,
    within,
)


def answers() -> dict[str, Schema]:
    """Every answer by its name."""
    return {**_ERRORS, **_CALLS, **_holders_pages(), **_own_calls(), **_scopes(), **_money(), **_books(), **_STATES}


def _holders_pages() -> dict[str, Schema]:
    left = closed({"limit": COUNT, "remaining": COUNT, "reset_ms": COUNT})
    scope = closed(
        {
            "scope": one_of(*get_args(ScopeKind)),
            "id": ID,
            "budgets": array(ref("Budget")),
            "limits": asked(dict.fromkeys(RATE_OF_LIMIT, left)),
        }
    )
    key = closed({"id": ID, "name": TEXT, "team": ID, "user": nullable(ID)})
    return {
        "Me": closed(
            {
                "key": key,
                "scopes": array(scope),
                "models": array(NAME),
                "usage": closed({"today_usd": SIGNED_USD, "month_usd": SIGNED_USD}),
            }
        ),
        "Estimate": closed(
            {
                "kind": TEXT,
                "model": NAME,
                **dict.fromkeys(("prompt_tokens", "prompt_tokens_max", "completion_tokens_max", "images"), COUNT),
                **dollars("most_cost"),
                "price_version": TEXT,
                "admitted": FLAG,
                "refusal": nullable(ref("Refusal")),
            }
        ),
    }


def _own_calls() -> dict[str, Schema]:
    job = closed(
        {"index": COUNT, "state": one_of(*get_args(JobState)), "url": nullable(TEXT), **dollars("refunded")},
    )
    state = one_of("running", "captured", "released", "expired")
    cost: dict[str, Schema] = {name: nullable(schema) for name, schema in dollars("cost", signed=True).items()}
    image_call = {"id": TEXT, "created_at": INSTANT, "state": nullable(state), "model": TEXT, **cost}
    call = {
        "id": TEXT,
        "state": state,
        "kind": TEXT,
        "model": TEXT,
        "created_at": INSTANT,
        "ended_at": nullable(INSTANT),
        **{name: nullable(COUNT) for name in ("prompt_tokens", "completion_tokens", "images")},
        **dollars("hold"),
        **cost,
        "exact": nullable(FLAG),
        "flags": array(TEXT),
        "jobs": array(job),
    }
    return {"Call": closed(call, "jobs"), "ImageCall": closed(image_call | {"jobs": array(job)})}


def _scopes() -> dict[str, Schema]:
    key = {**_SCOPE, **_OF_KINDS["Key"]}
    secret: Schema = {**TEXT, "description": "the secret, here and never again"}
    return {
        "Budget": closed(
            {
                "window": one_of(*BUDGET_WINDOWS),
                "soft_percent": array(within(1, 100)),
                **dollars("limit", "paid_in"),
                **dollars("spent", "held", "remaining", signed=True),
                "starts_at": nullable(INSTANT),
                "resets_at": nullable(INSTANT),
            },
            *dollars("limit", "paid_in"),
        ),
        **{name: closed({**_SCOPE, **members}, "models") for name, members in _OF_KINDS.items()},
        "CreatedKey": closed({**key, "key": secret}, "models"),
        "RotatedKey": closed({**key, "key": secret, "old_secret_until": INSTANT}, "models"),
    }


_SCOPE: Mapping[str, Schema] = {
    "id": ID,
    "name": TEXT,
    "budgets": array(ref("Budget")),
    "limits": asked({name: within(1, LIMIT_MAX) for name in RATE_OF_LIMIT}),
    "models": array(NAME),
    "blocked": FLAG,
    "created_at": INSTANT,
}
_OF_KINDS: Mapping[str, Mapping[str, Schema]] = {
    "Organisation": {"timezone": NAME, "first_weekday": NAME},
    "Team": {},
    "User": {"team": ID},
    "Key": {
        "team": ID,
        "user": nullable(ID),
        "role": one_of(*get_args(Role)),
        "expires_at": nullable(INSTANT),
        "revoked_at": nullable(INSTANT),
    },
}


def _money() -> dict[str, Schema]:
    where: dict[str, Schema] = {"scope": one_of(*get_args(ScopeKind)), "id": ID}
    entered: dict[str, Schema] = {"note": TEXT, "author": TEXT}
    chat_rates: dict[str, Schema] = dict.fromkeys(CHAT_RATES, PRICE_USD)
    sizes: dict[str, Schema] = dict.fromkeys(CHAT_SIZES, COUNT)
    row = chat_rates | sizes | dict.fromkeys(UNIT_RATES, PRICE_USD)
    price = {"price": TEXT, "at": INSTANT, "model": NAME, "kind": TEXT, "effective_from": nullable(INSTANT)}
    drifts = dollars("ledger", "drift", "estimated", signed=True) | dollars("billed")
    return {
        "Credit": closed(
            {
                "credit": TEXT,
                "type": one_of("credit", "transfer"),
                "at": INSTANT,
                "entry": TEXT,
                **where,
                "from": nullable(ID),
                "note": TEXT,
                **dollars("amount", "paid_in", "remaining"),
                **dollars("spent", "held", signed=True),
            }
        ),
        "Adjustment": closed(
            {"adjustment": TEXT, "at": INSTANT, "for": INSTANT, "entry": TEXT, **where}
            | dollars("amount", signed=True)
            | entered
        ),
        "AccountEntry": closed(
            {"entry": TEXT, "at": INSTANT, "type": one_of(*get_args(AccountEntryType))}
            | dollars("amount", "balance", signed=True)
            | entered
        ),
        "Reconciliation": closed(
            {"reconciliation": TEXT, "at": INSTANT, "from": INSTANT, "to": INSTANT, **drifts}
            | {"estimated_percent": nullable(TEXT), "flagged": COUNT}
            | entered
        ),
        "Change": closed(
            {"id": TEXT, "at": INSTANT, "request_id": TEXT, "caller": TEXT, "role": one_of(*get_args(Role))}
            | {"action": TEXT, "resource": TEXT, "resource_id": nullable(TEXT), "fields": nullable(ANY)}
            | {"status": nullable(COUNT), "error": nullable(TEXT)}
        ),
        "Price": closed(price | row | {"withdrawn": FLAG} | entered, *row, "withdrawn"),
        "ListedPrice": closed(
            price | row | {"withdrawn": FLAG} | entered | {"state": one_of(*get_args(PriceState))}, *row, "withdrawn"
        ),
    }


def _books() -> dict[str, Schema]:
    where: dict[str, Schema] = {"team": TEXT, "user": nullable(TEXT), "key": TEXT}
    owner: dict[str, Schema] = {"request_id": TEXT, **where}
    named = ("team", "user", "key", "kind", "model", "request_id", "price_version", "counterpart", "note", "author")
    counts = ("requests", "prompt_tokens", "completion_tokens", "images")
    groups = ("org", "team", "user", "key", "model", "kind", "tag", "day", "month", "hour")
    measures = dict.fromkeys(counts, INTEGER) | dollars("cost", signed=True) | {"estimated_nano_usd": INTEGER}
    total = {name: measures[name] for name in ("requests", "cost_nano_usd", "cost_usd", "estimated_nano_usd")}
    return {
        "Entry": closed(
            {
                **dict.fromkeys(("id", "hold_id", "org"), TEXT),
                **dict.fromkeys(("at", "admitted_at"), INSTANT),
                "for_period": nullable(TEXT),
                "type": one_of(*get_args(EntryType)),
                **dict.fromkeys(named, nullable(TEXT)),
                **dict.fromkeys(("prompt_tokens", "completion_tokens", "images", "units"), INTEGER),
                **dollars("cost", "credit", signed=True),
                "usage_source": nullable(one_of(*get_args(UsageSource))),
                **dict.fromkeys(("flags", "paid_by", "tags"), array(TEXT)),
            }
        ),
        "Hold": closed({"id": TEXT, **owner, **dollars("hold"), "admitted_at": INSTANT, "deadline_at": INSTANT}),
        "Quarantined": closed({**_QUARANTINED, **owner}),
        "Dismissed": closed({**_QUARANTINED, **owner, "entry": TEXT}),
        "Alert": closed(
            {
                **dict.fromkeys(("alert", "window"), TEXT),
                "at": INSTANT,
                "type": one_of("threshold"),
                "scope": one_of(*get_args(ScopeKind)),
                "id": ID,
                "starts_at": nullable(INSTANT),
                "percent": within(1, 100),
                **dollars("limit", "spent", signed=True),
            }
        ),
        "Usage": closed(
            {
                "data": array(closed(dict.fromkeys(groups, nullable(TEXT)) | measures, *groups)),
                "total": nullable(closed(total)),
            }
        ),
    }


_QUARANTINED: Mapping[str, Schema] = {
    "hold_id": TEXT,
    "at": INSTANT,
    "kind": TEXT,
    "model": TEXT,
    **dollars("cost", signed=True),
}
_ERRORS: Mapping[str, Schema] = {
    "Refusal": {
        "type": "object",
        "properties": {
            "message": {**TEXT, "description": "what happened and what to do"},
            "type": TEXT,
            "param": nullable(TEXT),
            "code": nullable(TEXT),
        },
        "required": ["message", "type", "param", "code"],
        "description": "A refusal of money or a rate also names its scope and amounts.",
    },
    "Error": {
        "type": "object",
        "properties": {"error": ref("Refusal")},
        "required": ["error"],
    },
}
_CALLS: Mapping[str, Schema] = {
    "Model": closed(
        {
            "id": NAME,
            "object": one_of("model"),
            "created": INTEGER,
            "owned_by": TEXT,
            "kind": TEXT,
            "pricing": {"type": "object", "description": "a million tokens' or a piece's, in dollars and pico-dollars"},
            "context_tokens": COUNT,
            "output_tokens": COUNT,
        },
        "context_tokens",
        "output_tokens",
    ),
    "Models": closed({"object": one_of("list"), "data": array(ref("Model"))}),
    "Images": {
        "type": "object",
        "properties": {
            "id": TEXT,
            "created": INTEGER,
            "data": array(asked({"url": TEXT, "b64_json": TEXT})),
            "failed": array({"type": "object"}),
            "usage": {"type": "object"},
        },
        "required": ["id", "created", "data"],
    },
    "Completion": {
        "type": "object",
        "properties": {"object": one_of("chat.completion"), "choices": array({"type": "object"}), "usage": ANY},
        "required": ["object", "choices"],
        "description": "OpenAI's chat.completion, folded from the stream",
    },
    "Upstream": {"description": "MiniToolAI's own answer, passed on as it came"},
}
_STATES: Mapping[str, Schema] = {
    "Ready": closed({"status": TEXT, "redis": FLAG, "spool": FLAG, "draining": FLAG}),
    "Alive": closed({"status": TEXT}),
}
