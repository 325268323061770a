"""What can be changed on the pages: by whom, once, from our own forms alone, and written down as any other change."""

import html
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import redis

from gateway.dashboard.form_tokens import new_form_token
from tests.dashboard.conftest import Visit, logged_in
from tests.stack import ADMIN_KEY, Admin, Process, Stack, bearer, chat

EVIL = "<img src=x onerror=alert(1)>\"'&"
PREPAID = [{"window": "prepaid"}]
KEYS: Mapping[str, tuple[str, str | None, str]] = {
    "an-key": ("red", "an", "member"),
    "robot": ("red", None, "member"),
    "lead-key": ("red", "lead", "team_admin"),
    "books": ("red", None, "auditor"),
    "chief": ("red", None, "admin"),
    "blue-key": ("blue", "binh", "member"),
}
PLACES = {
    "organisation": "/organisations/default",
    "team": "/teams/red",
    "user": "/users/an",
    "own user": "/users/lead",
    "key": "/keys/an-key",
    "own key": "/keys/lead-key",
    "foreign key": "/keys/blue-key",
}
OF_A_KEY = {"block", "budget", "rotate", "revoke"}
OFFERED: Mapping[str, Mapping[str, set[str]]] = {
    "administrator": {
        "organisation": {"budget", "new-team"},
        "team": {"block", "budget", "new-key", "new-user", "top-up"},
        "user": {"block", "budget", "new-key"},
        "own user": {"block", "budget", "new-key"},
        **dict.fromkeys(("key", "own key", "foreign key"), OF_A_KEY),
    },
    "lead-key": {
        "team": {"new-key", "new-user"},
        "user": {"block", "budget", "new-key"},
        "own user": {"new-key"},
        "key": OF_A_KEY,
    },
    "books": {},
    "an-key": {},
}
"""What each page offers; nothing where nothing is named."""
FILLED: Mapping[str, Mapping[str, str]] = {
    "new-key": {"name": "made", "role": "member"},
    "new-user": {"id": "made"},
    "new-team": {"id": "made"},
    "budget": {"window": "day", "limit_usd": "3"},
    "top-up": {"amount_usd": "2"},
    "rotate": {"grace_s": "0"},
    "block": {},
    "unblock": {},
    "revoke": {},
}


@pytest.fixture(scope="module")
def keys(admin: Admin) -> dict[str, str]:
    """Two teams; the secrets by the keys' ids."""
    admin.post("/teams", {"id": "red", "name": EVIL, "budgets": PREPAID})
    admin.post("/credits", {"scope": "team", "id": "red", "amount_usd": "10"})
    secrets = {
        key: str(admin.key(team, user, id=key, role=role, name=EVIL)["key"]) for key, (team, user, role) in KEYS.items()
    }
    return {**secrets, "administrator": ADMIN_KEY}


@pytest.fixture(scope="module")
def boss(gateway: Process, keys: dict[str, str]) -> Visit:
    return logged_in(gateway.url, ADMIN_KEY)


@pytest.fixture
def untouched(admin: Admin) -> Iterator[None]:
    """Nothing is changed by what the test does, and nothing paid."""
    before = everything(admin)
    yield
    assert before == everything(admin)


def everything(admin: Admin) -> list[object]:
    return [admin.get(path, limit="1000") for path in ("/organisations", "/teams", "/users", "/keys", "/credits")]


def token_of(visit: Visit, path: str) -> str:
    """What a form of this session would carry, whether or not one is shown."""
    return new_form_token(visit.http.cookies["gateway-session"], f"/dashboard{path}")


def send(
    visit: Visit, path: str, typed: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """Open the form, fill it in and send it, as a browser does."""
    page = visit.page(path)
    token = re.search(rf'action="/dashboard{path}">\s*<input type="hidden" name="form" value="([^"]+)"', page)
    assert token is not None, page
    return visit.http.post(f"/dashboard{path}", data={"form": token[1], **(typed or {})}, headers=headers)


def secret_on(answer: httpx.Response) -> str:
    found = re.search(r'<code id="secret" class="secret">(sk-mt-[^<]+)</code>', answer.text)
    assert found is not None, answer.text
    return found[1]


def call(gateway: Process, secret: str) -> int:
    return httpx.post(
        f"{gateway.url}/api/chat-completions/", json=chat(), headers=bearer(secret), timeout=30
    ).status_code


def changes(admin: Admin) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = admin.get("/audit", limit="1000")["data"]
    return found


@pytest.mark.parametrize("who", OFFERED)
@pytest.mark.parametrize("place", PLACES)
def test_what_would_be_refused_is_not_offered(gateway: Process, keys: dict[str, str], who: str, place: str) -> None:
    """Neither as a button nor at its address."""
    visit = logged_in(gateway.url, keys[who])
    path, wanted = PLACES[place], OFFERED[who].get(place, set())
    page = visit.http.get(f"/dashboard{'' if place == 'organisation' else path}").text
    assert wanted == set(re.findall(rf'(?:action|href)="/dashboard{path}/([a-z-]+)"', page))
    found = {form for form in FILLED if 200 == visit.http.get(f"/dashboard{path}/{form}").status_code}
    assert wanted == found


@pytest.mark.parametrize("who", ["lead-key", "books", "an-key"])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_not_offered_is_refused(
    gateway: Process, admin: Admin, keys: dict[str, str], who: str, place: str, untouched: None
) -> None:
    """As the control plane refuses it: 403, or 404 where the page itself is not there. Nothing is changed."""
    visit, path = logged_in(gateway.url, keys[who]), PLACES[place]
    is_seen = place != "organisation" and 200 == visit.http.get(f"/dashboard{path}").status_code
    offered = OFFERED[who].get(place, set())
    for form in OFFERED["administrator"][place] - offered:
        data = {"form": token_of(visit, f"{path}/{form}"), **FILLED[form]}
        refused = visit.http.post(f"/dashboard{path}/{form}", data=data)
        status = 403 if is_seen or (who == "books" and place == "organisation") else 404
        assert status == refused.status_code, form
        assert "sk-mt-" not in refused.text


def test_a_form_belongs_to_its_kind(boss: Visit, untouched: None) -> None:
    """A key has no users to make, a team no secret; whoever it is."""
    for path in ("/keys/an-key/new-user", "/users/an/new-user", "/teams/red/rotate", "/organisations/default/block"):
        form = path.rpartition("/")[2]
        answer = boss.http.post(f"/dashboard{path}", data={"form": token_of(boss, path), **FILLED[form]})
        assert 404 == answer.status_code


def test_a_new_key_is_shown_once(
    admin: Admin, gateway: Process, stack: Stack, boss: Visit, keys: dict[str, str]
) -> None:
    """On the answer and nowhere else: no address, no store of a browser, no log, no Redis. It makes calls at once."""
    made = send(boss, "/users/an/new-key", {"name": EVIL, "role": "member", "expires_at": "2099-12-31"})
    secret = secret_on(made)
    assert (200, "no-store") == (made.status_code, made.headers["cache-control"])
    assert "<img src=x" not in made.text
    assert 200 == call(gateway, secret)
    (key,) = [row for row in admin.get("/keys", limit="1000")["data"] if row["expires_at"]]
    assert ("red", "an", "member", EVIL) == (key["team"], key["user"], key["role"], key["name"])
    assert "2099-12-31T17:00:00Z" == key["expires_at"]  # the last day whole, in Vietnam's time
    assert secret not in boss.page(f"/keys/{key['id']}") + boss.page("/users/an/new-key") + gateway.output
    assert secret not in str(changes(admin))
    with redis.Redis.from_url(stack.redis_url) as client:
        assert not [value for name in client.keys("*session*") for value in [client.get(name)] if secret in str(value)]


def test_loading_again_makes_no_second_key(admin: Admin, gateway: Process, boss: Visit, keys: dict[str, str]) -> None:
    """Nor shows the first one's secret again, nor a second of a rotation: the form has a number that is used up."""
    for path, typed in (("/teams/red/new-key", {"name": "once"}), ("/keys/robot/rotate", {"grace_s": "86400"})):
        data = {"form": token_of(boss, path), **typed}
        secret = secret_on(boss.http.post(f"/dashboard{path}", data=data))
        before = everything(admin)
        again = boss.http.post(f"/dashboard{path}", data=data)
        assert (409, True) == (again.status_code, "This form was sent before." in again.text)
        assert "sk-mt-" not in again.text
        assert before == everything(admin)
        assert 200 == call(gateway, secret)
    assert 200 == call(gateway, keys["robot"])  # a day more, as was chosen


def test_a_form_sent_again_with_other_words_is_not_taken_for_a_new_one(admin: Admin, boss: Visit) -> None:
    """Who goes back, changes the name and sends it once more hears why nothing was done."""
    path = "/organisations/default/new-team"
    token = token_of(boss, path)
    first, changed = (boss.http.post(f"/dashboard{path}", data={"form": token, "id": name}) for name in ("one", "two"))
    assert (303, "/dashboard/teams/one") == (first.status_code, first.headers["location"])
    assert (409, True) == (changed.status_code, "filled in differently" in changed.text)
    assert 404 == admin.http.get("/admin/v1/teams/two").status_code


def test_a_rotation_without_grace_ends_the_secret(admin: Admin, gateway: Process, boss: Visit) -> None:
    """At once, as was chosen."""
    old = admin.key("rotated", id="rotated")["key"]
    new = secret_on(send(boss, "/keys/rotated/rotate", {"grace_s": "0"}))
    assert [401, 200] == [call(gateway, old), call(gateway, new)]


def test_blocking_and_unblocking(admin: Admin, gateway: Process, boss: Visit) -> None:
    """With the button of the scope's own page, which then has the other one; the next call hears of it."""
    secret = admin.key("shut", "shut-user", id="shut-key")["key"]
    for path in ("/teams/shut", "/users/shut-user", "/keys/shut-key"):
        for form, status in (("block", 403), ("unblock", 200)):
            assert f'action="/dashboard{path}/{form}"' in boss.page(path)
            done = send(boss, f"{path}/{form}")
            assert (303, f"/dashboard{path}") == (done.status_code, done.headers["location"])
            assert status == call(gateway, secret)


def test_a_key_is_revoked_behind_a_page_that_asks(admin: Admin, gateway: Process, boss: Visit) -> None:
    """It is for good: then nothing is offered any more, and what is sent by hand says why not."""
    secret = admin.key("ended", id="ended")["key"]
    assert "for good" in boss.page("/keys/ended/revoke")
    assert 303 == send(boss, "/keys/ended/revoke").status_code
    assert 401 == call(gateway, secret)
    assert "/dashboard/keys/ended/" not in boss.page("/keys/ended")
    data = {"form": token_of(boss, "/keys/ended/rotate"), "grace_s": "0"}
    refused = boss.http.post("/dashboard/keys/ended/rotate", data=data)
    assert (400, True) == (refused.status_code, "is revoked, which is for good" in refused.text)


def test_a_budget_is_set_and_taken_away(admin: Admin, boss: Visit) -> None:
    """The others stay as they are, soft thresholds too; the organisation's is set on its own page."""
    kept = {"window": "month", "limit_usd": "25.00", "soft_percent": [50, 80]}
    admin.post("/teams", {"id": "bounded", "budgets": [kept, *PREPAID]})
    for limit_usd, expected in (("3", {"day": "3.00"}), ("4.5", {"day": "4.50"}), ("", {})):
        assert 303 == send(boss, "/teams/bounded/budget", {"window": "day", "limit_usd": limit_usd}).status_code
        budgets = {row["window"]: row for row in admin.get("/teams/bounded")["budgets"]}
        assert kept.items() <= budgets["month"].items()
        assert {"month": "25.00", "prepaid": None} | expected == {
            window: row.get("limit_usd") for window, row in budgets.items()
        }
    done = send(boss, "/organisations/default/budget", {"window": "total", "limit_usd": "1000"})
    assert (303, "/dashboard") == (done.status_code, done.headers["location"])
    assert "1000.00" == admin.get("/organisations/default")["budgets"][0]["limit_usd"]
    assert 303 == send(boss, "/organisations/default/budget", {"window": "total"}).status_code


def test_a_top_up_is_paid_once(admin: Admin, boss: Visit) -> None:
    """However often its form is sent; it stands in the books with its note."""
    admin.post("/teams", {"id": "paid", "budgets": PREPAID})
    data = {"form": token_of(boss, "/teams/paid/top-up"), "amount_usd": " 12.50 ", "note": "Đợt một"}
    for _ in range(2):
        done = boss.http.post("/dashboard/teams/paid/top-up", data=data)
        assert (303, "/dashboard/teams/paid") == (done.status_code, done.headers["location"])
    (credit,) = admin.get("/credits", team="paid")["data"]
    assert (12_500_000_000, "Đợt một", "admin") == (credit["credit_nano_usd"], credit["note"], credit["author"])


def test_a_teams_administrator_makes_users_and_their_keys(gateway: Process, admin: Admin, keys: dict[str, str]) -> None:
    """Of the own team, and members alone: a role that is sent by hand is refused."""
    lead = logged_in(gateway.url, keys["lead-key"])
    made = send(lead, "/teams/red/new-user", {"id": "mai", "name": "Mai"})
    assert (303, "/dashboard/users/mai") == (made.status_code, made.headers["location"])
    assert ("red", "Mai") == tuple(admin.get("/users/mai")[name] for name in ("team", "name"))
    assert 'name="role"' not in lead.page("/users/mai/new-key")
    assert 200 == call(gateway, secret_on(send(lead, "/users/mai/new-key")))
    refused = send(lead, "/teams/red/new-key", {"role": "admin"})
    assert (403, False) == (refused.status_code, "sk-mt-" in refused.text)
    assert "changes the team&#39;s members" in refused.text


@pytest.mark.parametrize(
    ("path", "typed", "status", "sentence", "wrong"),
    [
        ("/teams/red/new-user", {"id": "An Ủ", "name": EVIL}, 400, "id must be 1 to 40 of a-z", "id"),
        ("/teams/red/new-user", {"id": "an", "name": EVIL}, 409, "A user with id an exists", "id"),
        (
            "/teams/red/new-key",
            {"name": EVIL, "expires_at": "soon"},
            400,
            "expires_at must be an RFC 3339",
            "expires_at",
        ),
        ("/teams/red/new-key", {"name": EVIL, "role": "king"}, 400, "role must be one of", "role"),
        ("/teams/red/budget", {"window": "day", "limit_usd": "<b>12,5"}, 400, "limit_usd", "limit_usd"),
        ("/teams/red/budget", {"window": "year", "limit_usd": "1"}, 400, "window must be one of", "window"),
        ("/teams/red/top-up", {"amount_usd": "-1", "note": EVIL}, 400, "amount_usd", "amount_usd"),
        ("/teams/red/top-up", {"amount_usd": "", "note": EVIL}, 400, "amount_usd", "amount_usd"),
        ("/keys/an-key/rotate", {"grace_s": "forever"}, 400, "grace_s must be", "grace_s"),
    ],
)
def test_a_refusal_is_shown_with_what_was_typed(
    boss: Visit, path: str, typed: dict[str, str], status: int, sentence: str, wrong: str, untouched: None
) -> None:
    """The gateway's own sentence beside the form; text stays text, and the field it is about is marked."""
    refused = send(boss, path, typed)
    assert status == refused.status_code
    assert sentence in html.unescape(refused.text.split('role="alert"')[1].split("</div>")[0])
    assert re.search(rf'<(?:input|select)[^>]* id="{wrong}"[^>]* aria-invalid="true"', refused.text)
    shown = re.findall(r'<input type="(?:text|date)" [^>]*value="([^"]*)"', refused.text)
    assert [text for name, text in typed.items() if text and name not in ("role", "window", "grace_s")] == [
        html.unescape(text) for text in shown if text
    ]
    assert not re.search("<b>|<img src=x", refused.text)


@pytest.mark.parametrize("form", ["", "made.up", "another session's", "another form's", "too large"])
def test_only_our_own_form_is_taken(gateway: Process, boss: Visit, form: str, untouched: None) -> None:
    """Of this session and for this change; the session alone, which a browser sends by itself, is not enough."""
    path, padding = "/teams/red/block", ""
    token = form
    if form == "another session's":
        token = token_of(logged_in(gateway.url, ADMIN_KEY), path)
    elif form == "another form's":
        token = token_of(boss, "/teams/red/unblock")
    elif form == "too large":
        token, padding = token_of(boss, path), "x" * 20_000
    refused = boss.http.post(f"/dashboard{path}", data={"padding": padding, "form": token})
    assert (403, True) == (refused.status_code, "This form was not sent from the dashboard." in refused.text)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
def test_another_sites_form_changes_nothing(boss: Visit, headers: dict[str, str], untouched: None) -> None:
    """Even if it had a token."""
    assert 403 == send(boss, "/teams/red/block", headers=headers).status_code


@pytest.mark.parametrize(
    ("change", "status"), [("/block", 303), ("/revoke", 303), ("member", 404), ("auditor", 403), ("team_admin", 403)]
)
def test_who_loses_the_role_while_the_form_is_on_its_way_changes_nothing(
    gateway: Process, admin: Admin, keys: dict[str, str], change: str, status: int
) -> None:
    """It is looked at again when the form is there: what was true when it was opened counts for nothing."""
    key = admin.key("red", role="admin")
    visit, path = logged_in(gateway.url, key["key"]), "/teams/red/block"
    body = urlencode({"form": token_of(visit, path)}).encode()

    def slowly() -> Iterator[bytes]:
        yield body[:5]
        if change.startswith("/"):
            admin.post(f"/keys/{key['id']}{change}")
        else:
            admin.patch(f"/keys/{key['id']}", {"role": change})
        yield body[5:]

    form = {"content-type": "application/x-www-form-urlencoded"}
    refused = visit.http.post(f"/dashboard{path}", content=slowly(), headers=form)
    assert status == refused.status_code
    assert refused.headers.get("location", "/dashboard/login") == "/dashboard/login"
    assert admin.get("/teams/red")["blocked"] is False


def test_what_is_written_down_is_what_the_control_plane_writes(admin: Admin, boss: Visit) -> None:
    """Action, resource, fields, caller and end, whichever way a change was asked for; refused ones, too."""
    before = len(changes(admin))
    all_by_api(admin, "by-api")
    between = len(changes(admin))
    all_by_form(boss, "by-form")
    both = [re.sub("by-(?:api|form)|key-[0-9a-f]{12}", "it", json.dumps(told(change))) for change in changes(admin)]
    assert both[before:between] == both[between:]
    assert 11 == between - before
    last = changes(admin)[-1]
    answer = send(boss, "/teams/by-form/block")
    assert [answer.headers["x-request-id"]] == [row["request_id"] for row in changes(admin) if row["id"] > last["id"]]


def told(change: dict[str, Any]) -> list[tuple[str, object]]:
    """All of it but what differs from one to the next."""
    return [(name, change[name]) for name in sorted(change.keys() - {"id", "at", "request_id", "fields"})] + [
        ("fields", sorted((change["fields"] or {"none": None}).items()))
    ]


def all_by_api(admin: Admin, name: str) -> None:
    http, path = admin.http, "/admin/v1"
    admin.post("/teams", {"id": name, "name": "Our team"})
    admin.post("/users", {"id": name, "team": name})
    key = admin.post("/keys", {"team": name, "user": name, "name": "desk", "role": "auditor"})["id"]
    http.post(f"{path}/keys/{key}/block")
    http.post(f"{path}/keys/{key}/unblock")
    admin.post(f"/keys/{key}/rotate", {"grace_s": 0})
    http.post(f"{path}/keys/{key}/revoke")
    budget = {"window": "month", "limit_usd": "5", "soft_percent": []}
    admin.patch(f"/teams/{name}", {"budgets": [budget]})
    http.patch(f"{path}/teams/{name}", json={"budgets": [budget | {"limit_usd": "x"}]})
    http.post(f"{path}/credits", json={"scope": "team", "id": name, "amount_usd": "1", "note": "n"})
    http.post(f"{path}/users", json={"id": name, "team": name})


def all_by_form(boss: Visit, name: str) -> None:
    def asked(path: str, **typed: str) -> httpx.Response:
        return boss.http.post(f"/dashboard{path}", data={"form": token_of(boss, path), **typed})

    asked("/organisations/default/new-team", id=name, name="Our team")
    asked(f"/teams/{name}/new-user", id=name)
    made = asked(f"/users/{name}/new-key", name="desk", role="auditor")
    (key,) = set(re.findall(r"/dashboard/keys/(key-[0-9a-f]{12})", made.text))
    asked(f"/keys/{key}/block")
    asked(f"/keys/{key}/unblock")
    asked(f"/keys/{key}/rotate", grace_s="0")
    asked(f"/keys/{key}/revoke")
    asked(f"/teams/{name}/budget", window="month", limit_usd="5")
    asked(f"/teams/{name}/budget", window="month", limit_usd="x")
    asked(f"/teams/{name}/top-up", amount_usd="1", note="n")
    asked(f"/teams/{name}/new-user", id=name)


@pytest.mark.parametrize("language", ["en", "vi", "he"])
def test_every_form_is_there_in_every_language(boss: Visit, language: str) -> None:
    """With a label for each field; names are text."""
    for place, path in PLACES.items():
        for form in OFFERED["administrator"][place]:
            page = boss.page(f"{path}/{form}", lang=language)
            assert f'<html lang="{language}"' in page
            names = re.findall(r'<(?:input type="(?:text|date)"|select) id="([a-z_]+)"', page)
            assert names == re.findall(r'<label for="([a-z_]+)"', page)
            assert "<img src=x" not in page
    boss.page(lang="en")
