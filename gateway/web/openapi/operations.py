"""Every path of both planes: what it is for, who may use it, what it takes and what it answers.

A row says only what is its own; what goes for all rows of one access (credentials, the refusals of HTTP itself) is
added by `document`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from gateway.access import Who
from gateway.billing.ledger import EntryType
from gateway.billing.price_schedule import PriceState
from gateway.billing.principal import ScopeKind
from gateway.web.admin import CHANGED_BY, READ_BY
from gateway.web.dataplane import CHAT, IMAGES, JOBS, OPENAI_CHAT, OPENAI_IMAGES
from gateway.web.estimates import ESTIMATE
from gateway.web.openapi.schemas import ANY, NAME, TEXT, Schema, nullable, one_of, ref, within

Access = Who | Literal["holder or job"]
"""As its route says; a job is polled with a key or by who knows its signature."""
Content = Mapping[str, Schema]
"""What an answer may be, by its media type."""

JSON = "application/json"
EVENTS = "text/event-stream"
CSV = "text/csv"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    `answers` are those that are no refusal, by status; `refusals` the statuses of its own refusals. `upstream`: it is
    answered by MiniToolAI, whose failures pass as they came.
    """

    method: str
    path: str
    summary: str
    access: Access
    answers: Mapping[int, Content]
    parameters: tuple[Schema, ...] = ()
    body: str = ""
    refusals: tuple[int, ...] = ()
    upstream: bool = False


def operations() -> tuple[Operation, ...]:
    """All of them, in the order in which they are shown."""
    return (*_CALLS, *_HOLDERS_PAGES, *_scopes(), *_BOOKS, *_MONEY, *_OPERATIONS)


def _parameter(name: str, place: str, schema: Schema, about: str = "", *, required: bool = False) -> Schema:
    return {"name": name, "in": place, "required": required, "schema": schema, "description": about}


def _query(name: str, schema: Schema = TEXT, about: str = "") -> Schema:
    return _parameter(name, "query", schema, about)


def _in_path(name: str, about: str = "") -> Schema:
    return _parameter(name, "path", NAME, about, required=True)


def _json(name: str) -> Content:
    return {JSON: ref(name)}


def _page(item: str, **more: Schema) -> Content:
    members: Schema = {
        "data": {"type": "array", "items": ref(item)},
        "next_cursor": {**nullable(TEXT), "description": "the cursor of the page behind it"},
        **more,
    }
    return {JSON: {"type": "object", "properties": members, "required": [*members], "additionalProperties": False}}


_ONCE = _parameter(
    "Idempotency-Key",
    "header",
    {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "a repeat under the same key has the first one's answer and is entered, or billed, once",
)
_TAGS = _parameter("x-gateway-tags", "header", TEXT, "what the call is for: project=alpha,env=prod")
_MOST = _parameter("x-gateway-max-cost-usd", "header", TEXT, "refuse the call if it could cost more")
_COST = _parameter("x-gateway-include-cost", "header", one_of("1", "true"), "tell in the answer what it cost")
_WISHES = (_ONCE, _TAGS, _MOST)
_LIST = (_query("limit", within(1, 1000)), _query("cursor", TEXT, "next_cursor of the page before"))
_ORG = _query("org", TEXT, "the one organisation there is")
_SPAN = tuple(
    _query(name, TEXT, "a whole day of the organisation's time zone, or an RFC 3339 instant") for name in ("from", "to")
)
_FORMAT = _query("format", one_of("json", "csv"))
_REPORT = {JSON: ref("Usage"), CSV: TEXT}

_CALL_REFUSALS = (402, 403, 404, 409, 502, 504)
_CALLS = (
    Operation(
        *("POST", CHAT, "Chat in MiniToolAI's own shape: its events pass unchanged and at once", "holder"),
        answers={200: {EVENTS: ANY, JSON: ref("Upstream")}},
        parameters=(*_WISHES, _COST),
        body="ChatRequest",
        refusals=_CALL_REFUSALS,
        upstream=True,
    ),
    Operation(
        *("POST", OPENAI_CHAT, "The same chat as OpenAI's clients ask for it: a stream, or one object", "holder"),
        answers={200: {EVENTS: ANY, JSON: ref("Completion")}},
        parameters=(*_WISHES, _COST),
        body="OpenAIChatRequest",
        refusals=_CALL_REFUSALS,
        upstream=True,
    ),
    Operation(
        *("POST", IMAGES, "Submit an image in MiniToolAI's own shape", "holder"),
        answers={200: _json("Upstream")},
        parameters=_WISHES,
        body="ImageRequest",
        refusals=_CALL_REFUSALS,
        upstream=True,
    ),
    Operation(
        *("POST", JOBS, "Ask for a submitted image: with a key, or by who knows the signature", "holder or job"),
        answers={200: _json("Upstream")},
        body="Poll",
        refusals=(403, 404, 502, 504),
        upstream=True,
    ),
    Operation(
        *("POST", OPENAI_IMAGES, "1 to 10 images in OpenAI's shape: submitted, awaited, answered together", "holder"),
        answers={200: _json("Images")},
        parameters=(*_WISHES, _COST),
        body="OpenAIImageRequest",
        refusals=_CALL_REFUSALS,
        upstream=True,
    ),
    Operation(
        *("POST", ESTIMATE, "What a call would cost at most, and whether it would be admitted; spends nothing"),
        access="holder",
        answers={200: _json("Estimate")},
        parameters=(_TAGS, _MOST),
        body="EstimateRequest",
        refusals=(403, 404),
    ),
)

_HOLDERS_PAGES = (
    Operation("GET", "/v1/models", "The models that the key may use, with prices", "holder", {200: _json("Models")}),
    Operation(
        *("GET", "/v1/models/{model}", "One of them", "holder", {200: _json("Model")}),
        parameters=(_in_path("model"),),
        refusals=(404,),
    ),
    Operation("GET", "/v1/me", "The key's own scopes, budgets, models and usage", "holder", {200: _json("Me")}),
    Operation(
        *("GET", "/v1/usage", "The key's own usage", "holder", {200: _REPORT}),
        parameters=(_query("group_by", TEXT, "hour, day or month; model or kind"), *_SPAN, _FORMAT),
    ),
    Operation(
        *("GET", "/v1/requests", "The key's image calls with their pictures, newest first", "holder"),
        answers={200: _page("ImageCall")},
        parameters=(_query("limit", within(1, 100)), _query("cursor", TEXT, "next_cursor of the page before")),
    ),
    Operation(
        *("GET", "/v1/requests/{request_id}", "One own call: its state, its cost, its pictures", "holder"),
        answers={200: _json("Call")},
        parameters=(_in_path("request_id", "its x-request-id"),),
        refusals=(404,),
    ),
)


def _scopes() -> list[Operation]:
    found = []
    for kind in get_args(ScopeKind):
        found += _scope(kind, kind.capitalize())
    return found


def _scope(kind: ScopeKind, name: str) -> list[Operation]:
    path, one = f"/admin/v1/{kind}s", f"/admin/v1/{kind}s/{{id}}"
    this, answer = (_in_path("id"),), {200: _json(name)}
    read_by, changed_by = READ_BY[kind], CHANGED_BY[kind]
    actions = {"block": "Refuse all its calls", "unblock": "Allow its calls again"}
    if kind == "key":
        actions["revoke"] = "End the key for good"
    return [
        Operation("GET", path, f"A page of {kind}s", read_by, {200: _page(name)}, (*_LIST, _ORG)),
        Operation(
            *("POST", path, f"Create one {kind}", changed_by),
            answers={201: _json("CreatedKey" if kind == "key" else name)},
            parameters=(_ONCE,),
            body=f"New{name}",
            refusals=(404, 409),
        ),
        Operation("GET", one, f"One {kind}", read_by, answer, this, refusals=(404,)),
        Operation(
            *("PATCH", one, f"Change one {kind}: what is not named stays", changed_by, answer, this),
            body="KeyChange" if kind == "key" else "ScopeChange",
            refusals=(404, 412),
        ),
        *(
            Operation("POST", f"{one}/{action}", about, changed_by, answer, this, refusals=(404, 412))
            for action, about in actions.items()
        ),
        *(_key_alone(one) if kind == "key" else ()),
    ]


def _key_alone(one: str) -> tuple[Operation, ...]:
    """What is done to a key and to no other scope."""
    this = (_in_path("id"),)
    return (
        Operation(
            *(
                "POST",
                f"{one}/rotate",
                "Give the key a new secret; the old one stays good for a while",
                CHANGED_BY["key"],
            ),
            answers={200: _json("RotatedKey")},
            parameters=(*this, _ONCE),
            body="KeyRotation",
            refusals=(404, 409, 412),
        ),
        Operation(
            *("DELETE", one, "End the key for good", CHANGED_BY["key"], {200: _json("Key")}, this), refusals=(404, 412)
        ),
    )


_ENTRY_FILTERS = tuple(
    _query(name, one_of(*get_args(EntryType)) if name == "type" else TEXT)
    for name in ("team", "user", "key", "model", "kind", "type", "request_id")
)
_BOOKS = (
    Operation(
        *("GET", "/admin/v1/usage", "A usage report", "viewer", {200: _REPORT}),
        parameters=(
            _query("group_by", TEXT, "org, team, user or key; model or kind; day, month or hour; or tag alone"),
            *_SPAN,
            _FORMAT,
        ),
    ),
    Operation(
        *("GET", "/admin/v1/ledger", "Entries of the ledger, oldest first", "viewer", {200: _page("Entry")}),
        parameters=(*_ENTRY_FILTERS, *_SPAN, *_LIST),
    ),
    Operation("GET", "/admin/v1/holds", "Open holds, the next deadline first", "viewer", {200: _page("Hold")}, _LIST),
    Operation("GET", "/admin/v1/alerts", "Soft thresholds that were crossed", "reader", {200: _page("Alert")}, _LIST),
    Operation(
        *("GET", "/admin/v1/quarantine", "Charges whose hold the ledger does not know", "reader"),
        answers={200: _page("Quarantined")},
        parameters=_LIST,
    ),
    Operation(
        *("DELETE", "/admin/v1/quarantine/{hold}", "Take one out that was seen to", "writer"),
        answers={200: _json("Dismissed")},
        parameters=(_in_path("hold"),),
        refusals=(404,),
    ),
)

_OUTLOOK: Mapping[str, Schema] = {
    "balance_estimated_usd": nullable(TEXT),
    "balance_estimated_nano_usd": nullable({"type": "integer"}),
    "burn_per_day_usd": TEXT,
    "burn_per_day_nano_usd": {"type": "integer"},
    "runs_out_on": nullable({"type": "string", "format": "date"}),
}
_PRICES_NOW: Mapping[str, Schema] = {"at": TEXT, "version": TEXT, "next_change_at": nullable(TEXT)}


def _entered(path: str, summary: str, body: str, answer: str, *refusals: int) -> Operation:
    return Operation(
        *("POST", path, summary, "writer", {201: _json(answer)}, (_ONCE,), body),
        refusals=(409, *refusals),
    )


_MONEY = (
    _entered("/admin/v1/credits", "Pay into a prepaid budget, or move credit there", "NewCredit", "Credit", 402, 404),
    Operation(
        *("GET", "/admin/v1/credits", "Credits and transfers: their entries", "viewer", {200: _page("Entry")}),
        parameters=(*_ENTRY_FILTERS, *_SPAN, *_LIST),
    ),
    _entered("/admin/v1/adjustments", "Correct what was spent", "NewAdjustment", "Adjustment", 404),
    _entered("/admin/v1/upstream", "A top-up of MiniToolAI's, or its balance", "NewAccountEntry", "AccountEntry"),
    Operation(
        *("GET", "/admin/v1/upstream", "The account at MiniToolAI: entries, balance, when it runs out", "reader"),
        answers={200: _page("AccountEntry", **_OUTLOOK)},
        parameters=(*_LIST, _ORG),
    ),
    _entered("/admin/v1/reconciliation", "Hold a bill against the ledger", "NewReconciliation", "Reconciliation"),
    Operation(
        *("GET", "/admin/v1/reconciliation", "What was found so far", "reader", {200: _page("Reconciliation")}),
        parameters=(*_LIST, _ORG),
    ),
    Operation(
        *("GET", "/admin/v1/audit", "Who changed what, the oldest first", "reader", {200: _page("Change")}),
        parameters=(*map(_query, ("caller", "action", "resource", "resource_id")), *_SPAN, *_LIST),
    ),
    _entered("/admin/v1/prices", "A price from an instant on that is to come", "NewPrice", "Price"),
    Operation(
        *("GET", "/admin/v1/prices", "Prices, in the order they were entered", "reader"),
        answers={200: _page("ListedPrice", **_PRICES_NOW)},
        parameters=(
            _query("state", TEXT, f"some of {', '.join(get_args(PriceState))}"),
            *(_query("model"), *_LIST, _ORG),
        ),
    ),
)

_OPERATIONS = (
    Operation("GET", "/livez", "Whether this process serves", "anyone", {200: _json("Alive")}),
    Operation(
        *("GET", "/readyz", "Whether it may be sent calls", "anyone", {200: _json("Ready"), 503: _json("Ready")}),
    ),
    Operation("GET", "/metrics", "What it has counted, for Prometheus", "scraper", {200: {"text/plain": TEXT}}),
    Operation("GET", "/openapi.json", "This document", "anyone", {200: {JSON: {"type": "object"}}}),
    Operation("GET", "/docs", "This document for people", "anyone", {200: {"text/html": TEXT}}),
)
