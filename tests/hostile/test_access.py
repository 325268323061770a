"""Who may use what: every route there is, and everybody who may come, from the administrator to nobody."""

import re
import tomllib
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path

import httpx
import pytest

from gateway.access import RuledRoute
from gateway.app import Gateway
from gateway.billing.budget import Calendar
from gateway.billing.price_file import price_schedule
from gateway.settings import Settings
from gateway.web.openapi.operations import operations
from tests.e2e.client import Answer, stream
from tests.hostile.conftest import Target
from tests.stack import ADMIN_KEY, chat

CALLS = {
    "/api/chat-completions": "holder",
    "/api/texttoimage": "holder",
    "/api/texttoimage/jobs": "holder or job",
    "/v1/chat/completions": "holder",
    "/v1/images/generations": "holder",
    "/v1/estimate": "holder",
}
READ_BY = {"organisations": "reader", "teams": "viewer", "users": "viewer", "keys": "viewer"}
CHANGED_BY = {"organisations": "writer", "teams": "writer", "users": "manager", "keys": "manager"}
ROUTES = {
    "GET /livez": "anyone",
    "GET /readyz": "anyone",
    "GET /openapi.json": "anyone",
    "GET /docs": "anyone",
    "GET /metrics": "scraper",
    "GET /v1/me": "holder",
    "GET /v1/models": "holder",
    "GET /v1/models/{model:path}": "holder",
    "GET /v1/requests/{request_id}": "holder",
    "GET /v1/requests": "holder",
    "GET /v1/usage": "holder",
    **{f"GET /admin/v1/{kind}": who for kind, who in READ_BY.items()},
    **{f"GET /admin/v1/{kind}/{{id}}": who for kind, who in READ_BY.items()},
    **{f"POST /admin/v1/{kind}": who for kind, who in CHANGED_BY.items()},
    **{f"PATCH /admin/v1/{kind}/{{id}}": who for kind, who in CHANGED_BY.items()},
    **{f"POST /admin/v1/{kind}/{{id}}/block": who for kind, who in CHANGED_BY.items()},
    **{f"POST /admin/v1/{kind}/{{id}}/unblock": who for kind, who in CHANGED_BY.items()},
    "POST /admin/v1/keys/{id}/revoke": "manager",
    "POST /admin/v1/keys/{id}/rotate": "manager",
    "DELETE /admin/v1/keys/{id}": "manager",
    "GET /admin/v1/usage": "viewer",
    "GET /admin/v1/ledger": "viewer",
    "GET /admin/v1/holds": "viewer",
    "GET /admin/v1/credits": "viewer",
    "POST /admin/v1/credits": "writer",
    "GET /admin/v1/alerts": "reader",
    "GET /admin/v1/upstream": "reader",
    "POST /admin/v1/upstream": "writer",
    "GET /admin/v1/prices": "reader",
    "POST /admin/v1/prices": "writer",
    "POST /admin/v1/adjustments": "writer",
    "GET /admin/v1/quarantine": "reader",
    "DELETE /admin/v1/quarantine/{hold}": "writer",
    "GET /admin/v1/audit": "reader",
    "GET /admin/v1/reconciliation": "reader",
    "POST /admin/v1/reconciliation": "writer",
    "GET /dashboard/static/{name}": "anyone",
    "GET /dashboard/login": "anyone",
    "POST /dashboard/login": "anyone",
    "POST /dashboard/logout": "anyone",
    "GET /dashboard": "visitor",
    "GET /dashboard/{list}": "visitor",
    "GET /dashboard/{list}/{id}": "visitor",
    "GET /dashboard/{list}/{id}/{form}": "visitor",
    "POST /dashboard/{list}/{id}/{form}": "visitor",
    "GET /dashboard/{rest:path}": "visitor",
}
"""Written down a second time, apart from the code: a route that is missing here fails the first test."""

NO_KEY, BAD_KEY, BLOCKED, DENIED = "missing_api_key", "invalid_api_key", "scope_blocked", "permission_denied"
GOOD = ("member", "team_admin", "auditor", "admin")
REFUSED: Mapping[str, Mapping[str, str]] = {
    "anyone": {},
    "holder or job": {"revoked": BAD_KEY, "blocked": BLOCKED, "administrator": BAD_KEY},
    "holder": {"nobody": NO_KEY, "revoked": BAD_KEY, "blocked": BLOCKED, "administrator": BAD_KEY},
    "viewer": {"nobody": NO_KEY, "revoked": BAD_KEY, "blocked": BLOCKED},
    "manager": {"nobody": NO_KEY, "revoked": BAD_KEY, "blocked": BLOCKED, "member": DENIED, "auditor": DENIED},
    "reader": {
        "nobody": NO_KEY,
        "revoked": BAD_KEY,
        "blocked": BLOCKED,
        "member": DENIED,
        "team_admin": DENIED,
    },
    "writer": {
        "nobody": NO_KEY,
        "revoked": BAD_KEY,
        "blocked": BLOCKED,
        "member": DENIED,
        "team_admin": DENIED,
        "auditor": DENIED,
    },
    "scraper": {
        "nobody": NO_KEY,
        **dict.fromkeys(("revoked", "blocked", *GOOD), BAD_KEY),
    },
}
"""For each rule whom it keeps out, and with what word; everybody else comes in."""

STATUS = {NO_KEY: 401, BAD_KEY: 401, BLOCKED: 403, DENIED: 403}


@pytest.fixture(scope="module")
def people(target: Target) -> dict[str, str | None]:
    """A key of each role in one team, and of those who are not welcome any more."""
    admin = target.admin
    keys = {role: admin.key("research", f"user-of-{role.replace('_', '-')}", role=role) for role in GOOD}
    keys |= {state: admin.key("research", "lan", role="admin") for state in ("blocked", "revoked")}
    admin.post(f"/keys/{keys['blocked']['id']}/block")
    admin.post(f"/keys/{keys['revoked']['id']}/revoke")
    return {"nobody": None, "administrator": ADMIN_KEY} | {name: made["key"] for name, made in keys.items()}


def built() -> Gateway:
    """A gateway as it is put together, without anything around it."""
    with Path("config/prices.toml").open("rb") as file:
        prices = price_schedule(tomllib.load(file), Calendar(UTC))
    return Gateway(Settings(upstream_api_key="sk-upstream"), prices, "sk-admin", "redis://127.0.0.1:1/0")


def test_every_route_has_its_rule() -> None:
    """Whoever adds a route says who may use it, here and there; what says nothing is not served at all."""
    gateway = built()
    routes = [route for route in gateway._router.routes if isinstance(route, RuledRoute)]
    assert [] == [route for route in gateway._router.routes if route not in routes]
    rules = {f"{method} {route.path}": route.who for route in routes for method in (route.methods or set()) - {"HEAD"}}
    assert ROUTES == rules
    assert CALLS.keys() == {path.removesuffix("/") for path in gateway.data_plane.handlers}


def test_what_is_described_is_the_rule() -> None:
    """Who reads /openapi.json is told whom a path lets in by the same word."""
    described = {
        f"{operation.method} {operation.path.removesuffix('/')}": operation.access for operation in operations()
    }
    calls = {f"POST {path}": who for path, who in CALLS.items()}
    pages = {route.replace(":path", ""): who for route, who in ROUTES.items() if " /dashboard" not in route}
    assert calls | pages == described


@pytest.mark.parametrize("route", [route for route, who in ROUTES.items() if who != "visitor"])
def test_a_route_lets_in_whom_its_rule_names(target: Target, people: dict[str, str | None], route: str) -> None:
    """And nobody else: whoever is refused is told so before anything of the request is looked at."""
    method, path = route.split(" ")
    for name, key in people.items():
        answer = target.ask(method, filled(path), key, **body_of(method, path))
        check(answer, REFUSED[ROUTES[route]].get(name), f"{route} as {name}")


@pytest.mark.parametrize("path", CALLS)
def test_a_call_lets_in_whom_its_rule_names(target: Target, people: dict[str, str | None], path: str) -> None:
    """The administrator's key makes no calls: what it cost would be on no budget. None of these goes upstream."""
    with target.untouched():
        for name, key in people.items():
            for spelled in (path, path + "/"):
                answer = target.ask("POST", spelled, key, json={"model": "none-such"})
                check(answer, REFUSED[CALLS[path]].get(name), f"{spelled} as {name}")


def check(answer: httpx.Response, refused: str | None, what: str) -> None:
    """`refused`: with which code; None where one is let in, whatever then becomes of the request."""
    if refused is None:
        assert answer.status_code not in (401, 403, 500), f"{what}: {answer.status_code} {answer.text}"
    else:
        error = answer.json()["error"]
        assert (STATUS[refused], refused) == (answer.status_code, error["code"]), f"{what}: {answer.text}"


def body_of(method: str, path: str) -> dict[str, object]:
    """What is sent along: nothing that would change anything, whoever sends it."""
    if path.startswith("/dashboard"):
        return {"data": {"key": ADMIN_KEY}} if path.endswith("login") and method == "POST" else {}
    return {"json": {"no-such-field": 1}} if method in ("POST", "PATCH") else {}


def filled(path: str) -> str:
    """A path whose ids are of nothing that exists."""
    return re.sub(r"\{\w+(:path)?\}", "no-such-one", path)


def test_sessions_alone_open_the_dashboard(target: Target, people: dict[str, str | None]) -> None:
    """A key in a header opens no page, whosever it is: browsers send cookies only, and those to this site only."""
    pages = [filled(route).split(" ") for route, who in ROUTES.items() if who == "visitor"]
    for method, page in pages:
        for name, key in people.items():
            answer = target.ask(method, page, key)
            seen = (answer.status_code, answer.headers.get("location"))
            assert (303, "/dashboard/login") == seen, f"{method} {page} as {name}"


@pytest.mark.parametrize(
    ("who", "seen"),
    [
        ("member", {"": 200, "/keys": 404, "/users": 404, "/teams": 404, "/teams/research": 404, "/teams/sales": 404}),
        (
            "team_admin",
            {"": 200, "/keys": 200, "/users": 200, "/teams": 404, "/teams/research": 200, "/teams/sales": 404},
        ),
        ("auditor", {"": 200, "/keys": 200, "/users": 200, "/teams": 200, "/teams/research": 200, "/teams/sales": 200}),
        ("admin", {"": 200, "/keys": 200, "/users": 200, "/teams": 200, "/teams/research": 200, "/teams/sales": 200}),
        ("administrator", {"": 200, "/keys": 200, "/users": 200, "/teams": 200, "/teams/research": 200}),
    ],
)
def test_a_visitor_sees_what_the_role_does(
    target: Target, people: dict[str, str | None], who: str, seen: dict[str, int]
) -> None:
    """What is not theirs to see is not there for them; another team is not there for a team's administrator."""
    target.admin.http.post("/admin/v1/teams", json={"id": "sales"})
    with httpx.Client(base_url=target.gateway.url, timeout=30, headers=target.from_elsewhere()) as browser:
        assert 303 == browser.post("/dashboard/login", data={"key": people[who] or ""}).status_code
        assert seen == {page: browser.get(f"/dashboard{page}").status_code for page in seen}


@pytest.mark.parametrize("who", ["blocked", "revoked"])
def test_who_is_not_welcome_any_more_cannot_log_in(target: Target, people: dict[str, str | None], who: str) -> None:
    """The role of their key is the highest there is, and does not help."""
    answer = target.ask("POST", "/dashboard/login", data={"key": people[who]})
    assert {"blocked": 403, "revoked": 401}[who] == answer.status_code
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("who", ["member", "team_admin", "auditor"])
@pytest.mark.parametrize(
    "change",
    [
        {"budgets": []},
        {"limits": {"requests_per_minute": None}},
        {"models": None},
        {"blocked": False},
        {"role": "admin"},
        {"expires_at": None},
        {"name": "mine"},
    ],
)
def test_nobody_raises_their_own_limits(
    target: Target, people: dict[str, str | None], who: str, change: dict[str, object]
) -> None:
    """Nor anything else of their key, their user or their team: only the organisation's administrators do."""
    holder = target.ask("GET", "/v1/me", people[who]).json()["key"]
    paths = [f"/keys/{holder['id']}", f"/users/{holder['user']}", f"/teams/{holder['team']}", "/organisations/default"]
    before = [target.admin.get(path) for path in paths]
    for path in paths:
        answer = target.ask("PATCH", f"/admin/v1{path}", people[who], json=change)
        assert (403, "permission_denied") == (answer.status_code, answer.json()["error"]["code"])
    assert before == [target.admin.get(path) for path in paths]


FIELDS = ("spent", "spent_usd", "held", "owner", "role", "created_at", "revoked_at", "secret", "__proto__")
NO_FIELDS = ("block", "unblock", "revoke")


@pytest.mark.parametrize(
    "route",
    [
        route
        for route, who in ROUTES.items()
        if who in ("writer", "manager") and not route.startswith("DELETE") and not route.endswith(NO_FIELDS)
    ],
)
def test_a_field_nobody_knows_is_refused(target: Target, route: str) -> None:
    """By name, on every POST and PATCH that takes fields: one that is passed over in silence is taken for set."""
    method, path = route.split(" ")
    path = path.replace("{id}", existing(target, path))
    for field in FIELDS:
        if field == "role" and "/keys" in path:
            continue
        answer = target.ask(method, path, ADMIN_KEY, json={field: "0"})
        error = answer.json()["error"]
        assert (400, "unknown_field", field) == (answer.status_code, error["code"], error["param"]), answer.text


def existing(target: Target, path: str) -> str:
    """The id of something that is there, as the path takes it."""
    kind = path.split("/")[3]
    ids = {"organisations": "default", "teams": "neighbours", "users": "nora"}
    return ids.get(kind) or str(target.admin.get("/keys")["data"][0]["id"])


@pytest.mark.parametrize(
    ("spelled", "status"),
    [
        ("..", 400),
        ("..%2f..%2fdefault", 404),
        ("%2e%2e", 400),
        ("a%00b", 400),
        ("a%0Ab", 400),
        ("neighbours%20", 400),
        ("NEIGHBOURS", 400),
        ("ne%C3%AFghbours", 400),
        ("%E2%80%AEneighbours", 400),
        ("%F0%9F%92%A3", 400),
        ("%ff", 400),
        ("*", 400),
        ("a" * 41, 400),
        ("-a", 400),
        ("__proto__", 400),
        ("neighbours:x", 400),
        ("{default}", 400),
    ],
)
def test_an_id_is_an_id(target: Target, spelled: str, status: int) -> None:
    """Nothing else gets to where keys of Redis are spelled: not a path, not a line's end, not another alphabet."""
    for method, rest in (("GET", ""), ("PATCH", ""), ("POST", "/block")):
        answer = raw(target, method, f"/admin/v1/teams/{spelled}{rest}")
        assert status == answer.status, f"{method}: {answer.body!r}"
        assert answer.headers["x-gateway-error-source"] == "gateway"


def raw(target: Target, method: str, path: str) -> Answer:
    """A request whose path is sent as it is spelled."""
    with stream(target.gateway.url, path, b"{}", ADMIN_KEY, method=method) as answer:
        return Answer(answer.status, answer.headers, answer.read_rest())


def test_a_body_where_none_is_taken_changes_nothing(target: Target) -> None:
    """GET and HEAD read no body, and what stands in one is no query."""
    for method, path in (("GET", "/admin/v1/teams"), ("HEAD", "/admin/v1/teams"), ("GET", "/v1/me")):
        key = target.neighbour if path.startswith("/v1") else ADMIN_KEY
        plain = target.ask(method, path, key)
        assert 200 == plain.status_code
        with_body = target.ask(method, path, key, json={"limit": "1", "org": "other"})
        assert (plain.status_code, plain.content) == (with_body.status_code, with_body.content)


@pytest.mark.parametrize("path", [*CALLS, "/admin/v1/keys", "/v1/me", "/metrics"])
@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PUT", "PROPFIND"])
def test_other_methods_are_told_which_ones_there_are(target: Target, path: str, method: str) -> None:
    """Nobody's browser is let in by an answer to OPTIONS, and TRACE sends nothing back."""
    answer = target.ask(method, path, target.neighbour)
    assert 405 == answer.status_code
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert answer.headers["allow"]
    assert target.neighbour not in answer.text


def test_a_head_is_refused_as_its_get_is(target: Target, people: dict[str, str | None]) -> None:
    """It is a way round nothing."""
    for path, who in (("/admin/v1/keys", "member"), ("/v1/me", "nobody"), ("/metrics", "admin")):
        asked = target.ask("GET", path, people[who])
        assert (asked.status_code, b"") == ((head := target.ask("HEAD", path, people[who])).status_code, head.content)


@pytest.mark.parametrize("who", ["member", "team_admin", "auditor", "admin"])
def test_a_role_opens_no_other_keys_calls(target: Target, people: dict[str, str | None], who: str) -> None:
    """What a call was and cost is its own key's; an administrator reads the ledger instead."""
    made = target.ask("POST", "/api/chat-completions/", target.neighbour, json=chat())
    answer = target.ask("GET", f"/v1/requests/{made.headers['x-request-id']}", people[who])
    assert (404, "not_found") == (answer.status_code, answer.json()["error"]["code"])
    assert 200 == target.ask("GET", f"/v1/requests/{made.headers['x-request-id']}", target.neighbour).status_code


IMAGE = {"model": "realvision", "prompt": "A tree"}


@pytest.mark.parametrize(
    ("who", "change", "status", "code"),
    [
        ("neighbour", {"signature": "forged"}, 404, "job_not_found"),
        ("neighbour", {"jobid": "1"}, 404, "job_not_found"),
        ("nobody", {"signature": "forged"}, 404, "job_not_found"),
        ("nobody", {"signature": ""}, 400, "invalid_request"),
        ("nobody", {"signature": "a\x00b"}, 404, "job_not_found"),
        ("nobody", {"jobid": "../1"}, 404, "job_not_found"),
        ("nobody", {"jobid": "*"}, 404, "job_not_found"),
        ("member", {}, 404, "job_not_found"),
        ("team_admin", {}, 404, "job_not_found"),
        ("auditor", {}, 404, "job_not_found"),
        ("admin", {}, 404, "job_not_found"),
        ("revoked", {}, 401, "invalid_api_key"),
        ("blocked", {}, 403, "scope_blocked"),
        ("administrator", {}, 401, "invalid_api_key"),
    ],
)
def test_a_job_is_its_teams(
    target: Target, people: dict[str, str | None], who: str, change: dict[str, str], status: int, code: str
) -> None:
    """Foreign, forged, or asked for with a key that is none any more: no poll goes upstream."""
    job = target.ask("POST", "/api/texttoimage/", target.neighbour, json=IMAGE).json()
    asked = {"jobid": str(job["jobid"]), "signature": job["signature"]} | change
    key = target.neighbour if who == "neighbour" else people[who]
    with target.untouched():
        answer = target.ask("POST", "/api/texttoimage/jobs/", key, json=asked)
    assert (status, code) == (answer.status_code, answer.json()["error"]["code"])
    assert (None, None) == (answer.json()["jobid"], answer.json()["signature"])
