"""The control plane: what it takes, what it refuses, and whom."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from gateway.billing.principal import make_sub_key, organisation_of
from tests.stack import ADMIN_KEY, Admin, Process, bearer, chat

BUDGET = {"window": "month", "limit_usd": "25.00", "soft_percent": [80, 50, 80]}


def refused(response: httpx.Response) -> tuple[int, str, str | None]:
    """Status, code and the field that is named."""
    error = response.json()["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert "gateway" == response.headers["x-gateway-error-source"]
    return response.status_code, error["code"], error["param"]


def test_a_team_is_answered_as_it_was_created(admin: Admin) -> None:
    """With amounts as decimal strings and as integers, and when each window turns."""
    created = admin.post("/teams", {"id": "research", "name": "Nghiên cứu", "budgets": [BUDGET], "models": ["gpt-4o"]})
    assert created == admin.get("/teams/research")
    assert ("Nghiên cứu", ["gpt-4o"], False) == (created["name"], created["models"], created["blocked"])
    (budget,) = created["budgets"]
    assert ("25.00", 25_000_000_000, [50, 80]) == (
        budget["limit_usd"],
        budget["limit_nano_usd"],
        budget["soft_percent"],
    )
    assert ("0.00", 0, "0.00", 0, "25.00", 25_000_000_000) == tuple(
        budget[f"{name}_{unit}"] for name in ("spent", "held", "remaining") for unit in ("usd", "nano_usd")
    )
    assert budget["starts_at"].endswith("T17:00:00Z")
    assert budget["resets_at"].endswith("T17:00:00Z")


def test_a_total_has_no_reset(admin: Admin) -> None:
    """It starts and ends nowhere."""
    created = admin.post("/teams", {"id": "total", "budgets": [{"window": "total", "limit_usd": "1"}]})
    assert (None, None) == (created["budgets"][0]["starts_at"], created["budgets"][0]["resets_at"])


def test_a_key_is_shown_once(admin: Admin) -> None:
    """At its creation; neither its own page nor the list holds it, and its id is made up where none is given."""
    created = admin.key("secrets", "an-secrets")
    secret = created.pop("key")
    assert "default" == organisation_of(secret)
    assert created["id"].startswith("key-")
    assert created == admin.get(f"/keys/{created['id']}")
    for path in ("/keys", f"/keys/{created['id']}", "/teams", "/users"):
        assert secret not in admin.http.get(f"/admin/v1{path}").text


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("teams", {}, (400, "invalid_request", "id")),
        *[("teams", {"id": wrong}, (400, "invalid_request", "id"))
          for wrong in ("", "A", "-a", "a" * 41, "a_b", "a:b", "a\n", "é", 1, None, ["a"], "a/b", "a}")],
        ("teams", {"id": "x", "nmae": "x"}, (400, "unknown_field", "nmae")),
        ("teams", {"id": "x", "role": "admin"}, (400, "unknown_field", "role")),
        ("teams", {"id": "x", "limits": [1]}, (400, "invalid_request", "limits")),
        ("teams", {"id": "x", "limits": {"requests": 1}}, (400, "unknown_field", "limits.requests")),
        *[("teams", {"id": "x", "limits": {"tokens_per_minute": wrong}},
           (400, "invalid_request", "limits.tokens_per_minute"))
          for wrong in (0, -1, 1.5, "60", True, 1_000_000_001)],
        ("teams", {"id": "x", "blocked": "yes"}, (400, "invalid_request", "blocked")),
        ("teams", {"id": "x", "name": "a\nb"}, (400, "invalid_request", "name")),
        ("teams", {"id": "x", "name": "n" * 201}, (400, "invalid_request", "name")),
        ("teams", {"id": "x", "models": []}, (400, "invalid_request", "models")),
        ("teams", {"id": "x", "models": ["a\nb"]}, (400, "invalid_request", "models")),
        ("teams", {"id": "x", "org": "other"}, (403, "permission_denied", "org")),
        ("users", {"id": "x"}, (400, "invalid_request", "team")),
        ("users", {"id": "x", "team": "nobodys"}, (404, "not_found", "team")),
        ("keys", {"team": "nobodys"}, (404, "not_found", "team")),
        ("keys", {"team": "research", "role": "root"}, (400, "invalid_request", "role")),
        *[("keys", {"team": "research", "expires_at": wrong}, (400, "invalid_request", "expires_at"))
          for wrong in ("tomorrow", "2026-11-21", "2026-11-21T00:00:00", 0, "1970-01-01T00:00:00Z",
                        "1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00")],
        *[("teams", {"id": "x", "budgets": [budget]}, (400, code, f"budgets[0]{field}"))
          for budget, code, field in (
              (1, "invalid_request", ""),
              ({"window": "month"}, "invalid_request", ".limit_usd"),
              ({"window": "month", "limit_usd": 25}, "invalid_request", ".limit_usd"),
              ({"window": "month", "limit_usd": "-1"}, "invalid_request", ".limit_usd"),
              ({"window": "month", "limit_usd": "9000000.01"}, "invalid_request", ".limit_usd"),
              ({"window": "year", "limit_usd": "1"}, "invalid_request", ".window"),
              ({"window": "prepaid", "limit_usd": "1"}, "invalid_request", ".limit_usd"),
              ({"window": ["day"], "limit_usd": "1"}, "invalid_request", ".window"),
              ({"window": "day", "limit_usd": "1", "hard": True}, "unknown_field", ".hard"),
              ({"window": "day", "limit_usd": "1", "soft_percent": [0]}, "invalid_request", ".soft_percent"),
              ({"window": "day", "limit_usd": "1", "soft_percent": [True]}, "invalid_request", ".soft_percent"),
          )],
        ("teams", {"id": "x", "budgets": {}}, (400, "invalid_request", "budgets")),
        ("teams", {"id": "x", "budgets": [BUDGET, BUDGET]}, (400, "invalid_request", "budgets")),
    ],
)  # fmt: skip
def test_a_wrong_body_names_its_field(
    admin: Admin, path: str, body: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    """And creates nothing: a limit that is accepted must hold, so what is not understood is not accepted."""
    admin.http.post("/admin/v1/teams", json={"id": "research"})
    assert expected == refused(admin.http.post(f"/admin/v1/{path}", json=body))
    assert 404 == admin.http.get(f"/admin/v1/{path}/x").status_code


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", "invalid_json"), (b"[]", "invalid_json"), (b'{"id":', "invalid_json"),
     (b'{"id":"x","id":"y"}', "duplicate_key"), (b'{"id":"x","name":"\\ud800"}', "invalid_json"),
     (b'{"id":"x","name":"\xff"}', "invalid_json")],
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_refused(admin: Admin, body: bytes, code: str) -> None:
    """By the same strict reading as the data plane's."""
    assert (400, code) == refused(admin.http.post("/admin/v1/teams", content=body))[:2]


def test_a_body_is_bounded(admin: Admin) -> None:
    """One MiB is more than any scope needs."""
    assert (413, "request_too_large", None) == refused(admin.http.post("/admin/v1/teams", content=b" " * (1 << 21)))


@pytest.mark.parametrize("path", ["teams", "users", "keys"])
def test_an_id_is_given_once(admin: Admin, path: str) -> None:
    """A second POST is 409 and changes nothing; an SDK does not try it again."""
    admin.http.post("/admin/v1/teams", json={"id": "twice"})
    body = {"id": "twice", "name": "first"} | ({} if path == "teams" else {"team": "twice"})
    admin.http.post(f"/admin/v1/{path}", json=body)
    before = admin.get(f"/{path}/twice")
    again = admin.http.post(f"/admin/v1/{path}", json={**body, "name": "second"})
    assert (409, "already_exists", "id") == refused(again)
    assert "false" == again.headers["x-should-retry"]
    assert before == admin.get(f"/{path}/twice")


def test_a_key_belongs_to_a_user_of_its_own_team(admin: Admin) -> None:
    """Else one team's user would spend another team's money."""
    admin.key("home", "resident")
    admin.post("/teams", {"id": "away"})
    stranger = admin.http.post("/admin/v1/keys", json={"team": "away", "user": "resident"})
    assert (400, "invalid_request", "user") == refused(stranger)


def test_patch_changes_what_it_names(admin: Admin) -> None:
    """The rest stays; null takes a list of models and an expiry away; what was spent is not touched."""
    key = admin.key("patched", expires_at="2999-01-01T07:00:00+07:00", models=["gpt-4o"], name="old")
    assert "2999-01-01T00:00:00Z" == key["expires_at"]
    path = f"/keys/{key['id']}"
    changed = admin.patch(path, {"name": "new", "budgets": [BUDGET]})
    assert ("new", ["gpt-4o"], "2999-01-01T00:00:00Z") == (changed["name"], changed["models"], changed["expires_at"])
    freed = admin.patch(path, {"models": None, "expires_at": None, "budgets": []})
    assert (None, None, []) == (freed.get("models"), freed["expires_at"], freed["budgets"])
    assert freed == admin.patch(path, {})


@pytest.mark.parametrize("field", ["id", "org", "team", "user"])
def test_patch_refuses_what_never_changes(admin: Admin, field: str) -> None:
    """A key that moved to another team would take its history along."""
    key = admin.key("fixed", "fixed-user")
    response = admin.http.patch(f"/admin/v1/keys/{key['id']}", json={field: "fixed"})
    assert (400, "invalid_request", field) == refused(response)


@pytest.mark.parametrize("field", ["revoked_at", "created_at", "key", "spent_usd", "limits_usd"])
def test_patch_takes_no_other_field(admin: Admin, field: str) -> None:
    """Least of all one that would bring a revoked key back."""
    key = admin.key("fixed")
    response = admin.http.patch(f"/admin/v1/keys/{key['id']}", json={field: None})
    assert 400 == response.status_code
    assert field == refused(response)[2]


def test_limits_are_set_changed_and_taken_away_one_by_one(admin: Admin) -> None:
    """What a PATCH names is set, null takes it away, what it does not name stays."""
    limits = {"requests_per_minute": 60, "concurrent_requests": 8}
    assert limits == admin.post("/teams", {"id": "rated", "limits": limits})["limits"]
    changed = admin.patch("/teams/rated", {"limits": {"requests_per_minute": 30, "tokens_per_minute": 1000}})
    assert {"requests_per_minute": 30, "tokens_per_minute": 1000, "concurrent_requests": 8} == changed["limits"]
    assert changed == admin.patch("/teams/rated", {"name": ""})
    left = admin.patch("/teams/rated", {"limits": dict.fromkeys(changed["limits"])})
    assert {} == left["limits"]


def test_what_is_not_there_is_404(admin: Admin) -> None:
    """For every verb; a path that is none, and a method that is none, answer in the same shape."""
    http = admin.http
    assert (404, "not_found") == refused(http.get("/admin/v1/teams/nobodys"))[:2]
    assert (404, "not_found") == refused(http.patch("/admin/v1/teams/nobodys", json={}))[:2]
    assert (404, "not_found") == refused(http.post("/admin/v1/keys/nobodys/revoke"))[:2]
    assert (404, "not_found") == refused(http.get("/admin/v2/teams"))[:2]
    assert (405, "method_not_allowed") == refused(http.put("/admin/v1/teams/nobodys", json={}))[:2]
    assert (400, "invalid_request") == refused(http.get("/admin/v1/teams/UPPER"))[:2]
    assert (405, "method_not_allowed") == refused(http.delete("/admin/v1/teams/nobodys"))[:2]


@pytest.mark.parametrize(
    ("path", "methods"),
    [("teams", "GET, HEAD, POST"), ("keys/x", "DELETE, GET, HEAD, PATCH"), ("keys/x/revoke", "POST")],
)
def test_a_wrong_method_hears_which_are_right(admin: Admin, path: str, methods: str) -> None:
    """All the path takes, not only those of one route: RFC 9110 asks for it with every 405."""
    assert methods == admin.http.put(f"/admin/v1/{path}").headers["allow"]


def test_no_organisation_is_the_default_one(admin: Admin) -> None:
    """Null is what a client's empty variable becomes; any other than ours is refused."""
    assert "orgless" == admin.post("/teams", {"id": "orgless", "org": None})["id"]
    for org in ("other", "", 0, False):
        response = admin.http.post("/admin/v1/teams", json={"id": "foreign", "org": org})
        assert (403, "permission_denied", "org") == refused(response)


def test_a_proxys_own_authorization_hides_no_key(gateway: Process) -> None:
    """Another scheme is not ours to read; a bearer token wins over x-api-key, right or wrong."""
    teams = f"{gateway.url}/admin/v1/teams"
    for authorization, status in (("Basic cHJveHk6cHJveHk=", 200), ("Bearer", 200), ("Bearer wrong", 401)):
        headers = {"authorization": authorization, "x-api-key": ADMIN_KEY}
        assert status == httpx.get(teams, headers=headers).status_code


def call(gateway: Process, secret: str) -> tuple[int, str]:
    """A chat call that is refused by its key's state before it is ever read."""
    response = httpx.post(f"{gateway.url}/api/chat-completions/", json=chat(model="none"), headers=bearer(secret))
    return response.status_code, response.json()["error"]["code"]


def test_blocking_stops_the_next_call_and_unblocking_lets_it_through(admin: Admin, gateway: Process) -> None:
    """At each level, at once; the gateway that answers has the key's owner cached."""
    key = admin.key("blocks", "blocks-user")
    assert (404, "model_not_found") == call(gateway, key["key"])
    for path in ("/teams/blocks", "/users/blocks-user", f"/keys/{key['id']}"):
        assert admin.post(f"{path}/block")["blocked"]
        assert (403, "scope_blocked") == call(gateway, key["key"])
        assert not admin.post(f"{path}/unblock")["blocked"]
        assert (404, "model_not_found") == call(gateway, key["key"])


@pytest.mark.parametrize("verb", ["POST", "DELETE"])
def test_a_revoked_key_is_dead_for_good(admin: Admin, gateway: Process, verb: str) -> None:
    """At its next call; revoking twice keeps the first time, and no other verb brings it back."""
    key = admin.key("revokes")
    path = f"/keys/{key['id']}"
    url = f"/admin/v1{path}/revoke" if verb == "POST" else f"/admin/v1{path}"
    revoked_at = admin.http.request(verb, url).json()["revoked_at"]
    assert revoked_at
    assert (401, "invalid_api_key") == call(gateway, key["key"])
    assert revoked_at == admin.http.request(verb, url).json()["revoked_at"]
    admin.post(f"{path}/unblock")
    admin.patch(path, {"expires_at": None, "blocked": False})
    assert (401, "invalid_api_key") == call(gateway, key["key"])


def test_an_expired_key_says_so(admin: Admin, gateway: Process) -> None:
    """The administrator can give it more time."""
    key = admin.key("expires", expires_at="2020-01-01T00:00:00Z")
    assert (401, "expired_api_key") == call(gateway, key["key"])
    admin.patch(f"/keys/{key['id']}", {"expires_at": "2999-01-01T00:00:00Z"})
    assert (404, "model_not_found") == call(gateway, key["key"])


def test_pages_hold_each_scope_once(admin: Admin) -> None:
    """By id; the last page has no cursor, and a limit that is none is refused."""
    for number in range(5):
        admin.post("/teams", {"id": f"page-{number}"})
    page = admin.get("/teams", limit="2")
    ids = [team["id"] for team in page["data"]]
    while page["next_cursor"]:
        page = admin.get("/teams", limit="2", cursor=page["next_cursor"])
        ids += [team["id"] for team in page["data"]]
    assert sorted(set(ids)) == ids
    assert {f"page-{number}" for number in range(5)} <= set(ids)


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "1e2", "", "ten", "00000019999", "\u0661", "9" * 5000])
def test_a_wrong_limit_is_refused(admin: Admin, limit: str) -> None:
    """At most 1,000 a page, however it is spelled."""
    for path in ("teams", "ledger", "holds"):
        response = admin.http.get(f"/admin/v1/{path}", params={"limit": limit})
        assert (400, "invalid_request", "limit") == refused(response)


def test_a_query_that_is_not_known_is_refused(admin: Admin) -> None:
    """A filter that is misspelled must not answer with everything."""
    assert (400, "invalid_request", "tema") == refused(admin.http.get("/admin/v1/keys?tema=x"))
    assert (400, "invalid_request") == refused(admin.http.get("/admin/v1/keys?limit=1&limit=2"))[:2]
    assert (403, "permission_denied", "org") == refused(admin.http.get("/admin/v1/keys?org=other"))


SCOPES = ("organisations", "teams", "users", "keys")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"authorization": ""}, "missing_api_key"),
        ({"authorization": "Basic c2stYWRtaW4tZm9yLXRlc3Rz"}, "missing_api_key"),
        ({"authorization": "Bearer"}, "missing_api_key"),
        ({"authorization": "Bearer sk-admin-for-test"}, "invalid_api_key"),
        ({"authorization": "Bearer sk-admin-for-testss"}, "invalid_api_key"),
        ({"authorization": "Bearer SK-ADMIN-FOR-TESTS"}, "invalid_api_key"),
        ({"authorization": "Bearer sk-upstream-for-tests"}, "invalid_api_key"),
        ({"authorization": f"Bearer {make_sub_key('default', 'x' * 40)}"}, "invalid_api_key"),
        ({"authorization": f"Bearer {make_sub_key('other', 'x' * 40)}"}, "invalid_api_key"),
        ({"authorization": b"Bearer \xff\xfe"}, "invalid_api_key"),
        ({"x-api-key": "nonsense"}, "invalid_api_key"),
    ],
)
def test_without_a_right_key_no_door_opens(gateway: Process, headers: dict[str, str], code: str) -> None:
    """Of the control plane, nor the caller's own page. Each is knocked at from elsewhere, so that none is slowed."""
    for number, path in enumerate(("/admin/v1/teams", "/admin/v1/keys", "/v1/me")):
        address = {"x-forwarded-for": f"10.0.0.{number}"}
        response = httpx.get(f"{gateway.url}{path}", headers=headers | address)
        assert (401, code) == refused(response)[:2]


def test_a_role_ends_with_its_key(admin: Admin, gateway: Process) -> None:
    """A blocked or revoked administrator's sub-key opens nothing any more."""
    key = admin.key("former", role="admin")
    with httpx.Client(base_url=gateway.url, headers=bearer(key["key"])) as http:
        assert 200 == http.get("/admin/v1/teams").status_code
        admin.post("/teams/former/block")
        assert (403, "scope_blocked") == refused(http.get("/admin/v1/teams"))[:2]
        admin.post("/teams/former/unblock")
        admin.post(f"/keys/{key['id']}/revoke")
        assert (401, "invalid_api_key") == refused(http.get("/admin/v1/teams"))[:2]


def post_once(admin: Admin, path: str, body: dict[str, Any], key: str) -> httpx.Response:
    return admin.http.post(f"/admin/v1{path}", json=body, headers={"idempotency-key": key})


@pytest.mark.parametrize("kind", ["teams", "users"])
def test_a_scope_is_created_once_however_often_it_is_asked_for(admin: Admin, kind: str) -> None:
    """A lost reply must not become an error for who asks again."""
    admin.http.post("/admin/v1/teams", json={"id": "parent"})
    body = {"id": f"once-{kind}", "name": "A"} | ({"team": "parent"} if kind == "users" else {})
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: post_once(admin, f"/{kind}", body, "once"), range(10)))
    assert {(201, answers[0].text)} == {(answer.status_code, answer.text) for answer in answers}
    assert [None, *["true"] * 9] == sorted(
        (answer.headers.get("idempotent-replayed") for answer in answers), key=lambda mark: mark or ""
    )
    other = post_once(admin, f"/{kind}", body | {"name": "B"}, "once")
    assert (409, "idempotency_conflict", "Idempotency-Key") == refused(other)
    assert (409, "already_exists", "id") == refused(post_once(admin, f"/{kind}", body, "another"))


def test_a_key_asked_for_again_is_no_second_key(admin: Admin) -> None:
    """Its secret is not kept, so it cannot be answered again; but nobody is left with a key they do not know of."""
    admin.post("/teams", {"id": "single"})
    body = {"team": "single"}
    first = post_once(admin, "/keys", body, "one-key").json()
    again = post_once(admin, "/keys", body, "one-key")
    assert (409, "idempotency_unreplayable", "Idempotency-Key") == refused(again)
    assert first["id"] == again.json()["error"]["id"]
    assert first["key"] not in again.text
    assert (409, "idempotency_conflict", "Idempotency-Key") == refused(
        post_once(admin, "/keys", body | {"name": "x"}, "one-key")
    )
    assert 201 == post_once(admin, "/keys", body, "another-key").status_code
    ids = [row["id"] for row in admin.get("/keys", limit="1000")["data"] if row["team"] == "single"]
    assert 2 == len(ids)


def test_an_idempotency_key_of_a_refused_request_is_free(admin: Admin) -> None:
    """Nothing was created: what was wrong is put right and sent again under the same key."""
    assert 404 == post_once(admin, "/users", {"id": "early", "team": "not-yet"}, "free").status_code
    admin.post("/teams", {"id": "not-yet"})
    assert 201 == post_once(admin, "/users", {"id": "early", "team": "not-yet"}, "free").status_code
