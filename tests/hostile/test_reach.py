"""How far each role reaches: every route of viewers and managers, asked by who reaches less than the organisation.

Two teams: red is theirs, blue is not. Whatever is blue's is called so, so that it is found wherever it comes out.
"""

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from gateway.billing.ledger import violations
from gateway.cli.main import main
from tests.books import read_books
from tests.e2e.client import CHAT
from tests.hostile.conftest import Target
from tests.hostile.test_access import ROUTES
from tests.hostile.wire import connected, read_to_end, replies
from tests.stack import ADMIN_KEY, chat

World = Mapping[str, str]
"""Secrets by the id of their key."""

PREPAID = [{"window": "prepaid"}]
PEOPLE = {"an": "red", "lead": "red", "second-lead": "red", "blue-binh": "blue"}
KEYS: Mapping[str, tuple[str, str | None, str]] = {
    "an-key": ("red", "an", "member"),
    "an-other": ("red", "an", "member"),
    "robot": ("red", None, "member"),
    "lead-key": ("red", "lead", "team_admin"),
    "second-lead-key": ("red", "second-lead", "team_admin"),
    "red-books": ("red", None, "auditor"),
    "blue-binh-key": ("blue", "blue-binh", "member"),
    "blue-robot": ("blue", None, "member"),
    "blue-chief": ("blue", None, "admin"),
}
NARROW = {"lead-key": "team_admin", "an-key": "member", "robot": "member"}
"""Who reaches less than the organisation: of members one with a user and one without."""
SEEN: Mapping[str, Mapping[str, set[str]]] = {
    "lead-key": {
        "teams": {"red"},
        "users": {"an", "lead", "second-lead"},
        "keys": {key for key, (team, *_) in KEYS.items() if team == "red"},
    },
    "an-key": {"teams": set(), "users": {"an"}, "keys": {"an-key"}},
    "robot": {"teams": set(), "users": set(), "keys": {"robot"}},
}
KINDS = ("teams", "users", "keys")
BOOKS = ("/admin/v1/ledger", "/admin/v1/credits", "/admin/v1/holds")
LISTS = [route.split(" ")[1] for route, who in ROUTES.items() if who == "viewer" and "{" not in route]
CHANGES = [route for route, who in ROUTES.items() if who == "manager" and "{id}" in route]


@pytest.fixture(scope="module")
def world(target: Target) -> Iterator[World]:
    """Both teams with calls, credits and corrections at every level, and a call that is running in each."""
    admin = target.admin
    for team in ("red", "blue"):
        admin.post("/teams", {"id": team, "budgets": PREPAID})
    for user, team in PEOPLE.items():
        admin.post("/users", {"id": user, "team": team, "budgets": PREPAID})
    secrets = {
        key: str(admin.post("/keys", {"id": key, "team": team, "user": user, "role": role})["key"])
        for key, (team, user, role) in KEYS.items()
    }
    for scope, name in (("team", "red"), ("team", "blue"), *(("user", user) for user in PEOPLE)):
        admin.post("/credits", {"scope": scope, "id": name, "amount_usd": "5", "note": "first"})
        admin.post("/adjustments", {"scope": scope, "id": name, "amount_usd": "0.25", "note": "by hand"})
    moved = {"scope": "team", "id": "red", "from": "blue", "amount_usd": "1", "note": "moved"}
    assert 201 == target.ask("POST", "/admin/v1/credits", secrets["blue-chief"], json=moved).status_code
    for secret in secrets.values():
        assert 200 == target.ask("POST", CHAT, secret, json=chat()).status_code
    with ThreadPoolExecutor(2) as pool:
        running = [
            pool.submit(target.ask, "POST", CHAT, secrets[key], json=chat("[[fault:withhold]]"))
            for key in ("an-key", "blue-robot")
        ]
        target.stack.emulator.get("/__withheld", params={"at_least": "2"})
        yield secrets
        target.stack.emulator.post("/__release")
        assert [200, 200] == [call.result().status_code for call in running]


def test_every_route_within_reach_is_tried() -> None:
    """A new one with another shape than these is to be tried here, too."""
    viewed = {route for route, who in ROUTES.items() if who == "viewer"} - {f"GET {path}" for path in LISTS}
    managed = {route for route, who in ROUTES.items() if who == "manager"} - set(CHANGES)
    assert {f"GET /admin/v1/{kind}/{{id}}" for kind in KINDS} == viewed
    assert {"POST /admin/v1/users", "POST /admin/v1/keys"} == managed


@pytest.mark.parametrize("who", NARROW)
@pytest.mark.parametrize("path", LISTS)
def test_nothing_of_others_is_listed(target: Target, world: World, path: str, who: str) -> None:
    """With no parameter there is, whatever is asked for: what is out of reach comes out of no list and no report."""
    for params in ({}, *asked_of(path)):
        answer = target.ask("GET", path, world[who], params=params)
        assert answer.status_code in (200, 400), f"{params}: {answer.text}"
        assert "blue" not in answer.text, f"{params}: {answer.text}"
        if answer.status_code == 200 and "blue" in str([*params.values()]) and "cursor" not in params:
            assert {"data": [], "next_cursor": None} == answer.json(), params


def asked_of(path: str) -> list[dict[str, str]]:
    """What a list may be asked for; what another knows of is refused by name."""
    filters = {"team": "blue", "user": "blue-binh", "key": "blue-robot"}
    cursors = [{"cursor": "blue-a"}, {"cursor": "0-0"}, {"limit": "1"}, {"limit": "1", "cursor": "an"}]
    owners, details, grains = ("org", "team", "user", "key"), ("", ",model", ",kind"), ("", ",day", ",month", ",hour")
    groups = [owner + detail + grain for owner in owners for detail in details for grain in grains]
    if path.endswith("/usage"):
        return [{"group_by": group} for group in (*groups, "model", "kind", "day", "tag")]
    return [{name: value} for name, value in filters.items()] + cursors


@pytest.mark.parametrize("who", NARROW)
@pytest.mark.parametrize("kind", KINDS)
def test_a_role_sees_its_own_and_nothing_else(target: Target, world: World, kind: str, who: str) -> None:
    """In the list, page by page, and one by one; what is another's sounds as what is not there."""
    everything = {"teams": {"red", "blue"}, "users": {*PEOPLE}, "keys": {*KEYS}}[kind]
    path = f"/admin/v1/{kind}"
    pages: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = target.ask("GET", path, world[who], params={"limit": "1", "cursor": cursor}).json()
        pages += [row["id"] for row in page["data"]]
        cursor = page["next_cursor"]
    assert sorted(SEEN[who][kind]) == pages
    missing = target.ask("GET", f"{path}/no-such", world[who])
    for each in everything:
        answer = target.ask("GET", f"{path}/{each}", world[who])
        if each in SEEN[who][kind]:
            assert target.admin.get(f"/{kind}/{each}") == answer.json()
        else:
            assert said_of(missing, "no-such") == said_of(answer, each)


def said_of(answer: httpx.Response, name: str) -> tuple[int, list[tuple[str, str]], str]:
    """A refusal without the name in it, and without what differs from request to request."""
    passing = ("x-request-id", "date", "content-length")
    headers = [pair for pair in answer.headers.items() if pair[0] not in passing]
    return answer.status_code, headers, re.sub(rf"\b{name}\b", "it", answer.text)


@pytest.mark.parametrize("path", BOOKS)
@pytest.mark.parametrize("who", NARROW)
def test_the_books_are_those_of_ones_own(target: Target, world: World, path: str, who: str) -> None:
    """Every line of theirs and no other; who entered it and whose credit it was may be somebody else."""
    everything = target.admin.get(path.removeprefix("/admin/v1"), limit="1000")["data"]
    wanted = {"team": "red"} if who == "lead-key" else {"key": who}
    own = [row for row in everything if all(row[name] == value for name, value in wanted.items())]
    told = target.ask("GET", path, world[who], params={"limit": "1000"}).json()["data"]
    hidden = {"author": None, "counterpart": None}
    assert [row | {name: None for name in hidden if name in row} for row in own] == told
    assert len(everything) > len(own)
    one_by_one: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = target.ask(
            "GET", path, world[who], params={"limit": "1"} | ({"cursor": cursor} if cursor else {})
        ).json()
        one_by_one += page["data"]
        cursor = page["next_cursor"]
    assert told == one_by_one


@pytest.mark.parametrize("group_by", ["org", "team", "model", "user", "key", "user,model,day", "key,kind,month", "day"])
@pytest.mark.parametrize("span", ["month", "part of a day"])
def test_a_teams_report_is_its_part_of_the_whole(target: Target, world: World, group_by: str, span: str) -> None:
    """Exact, whatever it is grouped by: with calls of keys without a user, and what was corrected by hand."""
    today = target.admin.ledger()[-1]["at"][:10]
    when = {} if span == "month" else {"from": f"{today}T00:00:01Z", "to": f"{today}T23:59:58Z"}
    report = target.ask("GET", "/admin/v1/usage", world["lead-key"], params={"group_by": group_by, **when}).json()
    (team,) = [row for row in target.admin.get("/usage", group_by="team", **when)["data"] if row["team"] == "red"]
    assert {name: team[name] for name in report["total"]} == report["total"]
    owner = next((name for name in ("user", "key") if name in group_by), "")
    if owner:
        rows = target.admin.get("/usage", group_by=group_by, **when)["data"]
        named = {name for name, (where, *_) in KEYS.items() if where == "red"} | {
            name for name, where in PEOPLE.items() if where == "red"
        }
        assert [row for row in rows if row[owner] in named] == [row for row in report["data"] if row[owner]]
        assert [None] == list({row[owner] for row in report["data"]} - named)


@pytest.mark.parametrize("who", ["an-key", "robot"])
@pytest.mark.parametrize("group_by", ["org", "team", "user", "key,model", "user,day", "team,hour"])
def test_a_members_report_is_the_keys_own(target: Target, world: World, group_by: str, who: str) -> None:
    """What /v1/usage tells, with the owners' names."""
    own = target.ask("GET", "/v1/usage", world[who]).json()["total"]
    report = target.ask("GET", "/admin/v1/usage", world[who], params={"group_by": group_by}).json()
    assert (own, 1, 1) == (report["total"], own["requests"], len(report["data"]))
    team, user, _ = KEYS[who]
    named = {"org": "default", "team": team, "user": user, "key": who}
    assert {name: named[name] for name in group_by.split(",") if name in named}.items() <= report["data"][0].items()


@pytest.mark.parametrize("who", NARROW)
def test_tags_are_for_who_reads_all_books(target: Target, world: World, who: str) -> None:
    """They are counted for the whole organisation, not by team: who asks hears so and no number."""
    answer = target.ask("GET", "/admin/v1/usage", world[who], params={"group_by": "tag"})
    assert (400, "unsupported_grouping") == (answer.status_code, answer.json()["error"]["code"])


@pytest.mark.parametrize("route", CHANGES)
def test_another_teams_are_not_there_to_change(target: Target, world: World, route: str) -> None:
    """Every change there is: the answer is that of an id which does not exist, and nothing changes."""
    method, path = route.split(" ")
    kind = path.split("/")[3]
    before = everything_of(target)
    foreign = (
        [name for name, team in PEOPLE.items() if team == "blue"] if kind == "users" else ["blue-robot", "blue-chief"]
    )
    for name in foreign:
        asked = [
            target.ask(method, path.replace("{id}", each), world["lead-key"], **body_of(method))
            for each in (name, "no-such")
        ]
        assert 404 == asked[0].status_code
        assert said_of(asked[1], "no-such") == said_of(asked[0], name)
    assert before == everything_of(target)


@pytest.mark.parametrize("route", CHANGES)
def test_nothing_of_ones_own_and_no_other_role_is_changed(target: Target, world: World, route: str) -> None:
    """Nobody raises their own limits, nor takes over a key that may do more than a member's, or bars its owner."""
    method, path = route.split(" ")
    users, keys = ("lead", "second-lead"), ("lead-key", "second-lead-key", "red-books")
    before = everything_of(target)
    for name in users if "/users/" in path else keys:
        answer = target.ask(method, path.replace("{id}", name), world["lead-key"], **body_of(method))
        assert (403, "permission_denied") == (answer.status_code, answer.json()["error"]["code"]), name
    assert before == everything_of(target)


@pytest.mark.parametrize("route", CHANGES)
@pytest.mark.parametrize("who", ["an-key", "red-books"])
def test_a_member_and_an_auditor_change_nothing(target: Target, world: World, route: str, who: str) -> None:
    """Of their own or of others, of what is there or not."""
    method, path = route.split(" ")
    before = everything_of(target)
    for name in ("an", "an-key", "robot", "blue-robot", "no-such"):
        answer = target.ask(method, path.replace("{id}", name), world[who], **body_of(method))
        assert (403, "permission_denied") == (answer.status_code, answer.json()["error"]["code"])
    assert before == everything_of(target)


def body_of(method: str) -> dict[str, Any]:
    return {"json": {"name": "taken over"}} if method == "PATCH" else {}


def everything_of(target: Target) -> list[object]:
    return [target.admin.get(f"/{kind}") for kind in ("organisations", "teams", "users", "keys")]


def test_a_teams_administrator_runs_the_team(target: Target, world: World) -> None:
    """Makes users and keys, changes, blocks, rotates and ends them; a change is read back as it was made."""
    lead = world["lead-key"]
    assert 201 == target.ask("POST", "/admin/v1/users", lead, json={"id": "mai", "team": "red"}).status_code
    made = target.ask("POST", "/admin/v1/keys", lead, json={"id": "mai-key", "team": "red", "user": "mai"})
    assert (201, "member") == (made.status_code, made.json()["role"])
    assert 200 == target.ask("POST", CHAT, made.json()["key"], json=chat()).status_code
    for path, change in (("users/mai", {"limits": {"requests_per_minute": 5}}), ("keys/mai-key", {"name": "desk"})):
        answer = target.ask("PATCH", f"/admin/v1/{path}", lead, json=change)
        assert (200, target.admin.get(f"/{path}")) == (answer.status_code, answer.json())
    for path in ("users/mai", "keys/mai-key"):
        for action, blocked in (("block", True), ("unblock", False)):
            assert blocked is target.ask("POST", f"/admin/v1/{path}/{action}", lead).json()["blocked"]
    rotated = target.ask("POST", "/admin/v1/keys/mai-key/rotate", lead, json={"grace_s": 0}).json()["key"]
    assert 200 == target.ask("POST", CHAT, rotated, json=chat()).status_code
    assert 200 == target.ask("DELETE", "/admin/v1/keys/mai-key", lead).status_code
    assert 401 == target.ask("POST", CHAT, rotated, json=chat()).status_code


@pytest.mark.parametrize(
    ("path", "body", "as_if"),
    [
        ("users", {"id": "new", "team": "blue"}, {"id": "new", "team": "no-such"}),
        ("keys", {"team": "blue"}, {"team": "no-such"}),
        ("keys", {"team": "blue", "user": "blue-binh"}, {"team": "no-such", "user": "blue-binh"}),
        ("keys", {"team": "red", "user": "blue-binh"}, {"team": "red", "user": "no-such"}),
    ],
)
def test_nothing_is_made_elsewhere(
    target: Target, world: World, path: str, body: dict[str, str], as_if: dict[str, str]
) -> None:
    """A team or user out of reach is one that does not exist."""
    before = everything_of(target)
    answers = [target.ask("POST", f"/admin/v1/{path}", world["lead-key"], json=each) for each in (body, as_if)]
    assert 404 == answers[0].status_code
    foreign = "blue-binh" if body.get("team") == "red" else "blue"
    assert said_of(answers[1], "no-such") == said_of(answers[0], foreign)
    assert before == everything_of(target)


@pytest.mark.parametrize("role", ["admin", "team_admin", "auditor"])
def test_no_role_is_given_but_a_members(target: Target, world: World, role: str) -> None:
    """Neither to a new key nor to one that is there: nobody makes what may do more."""
    before = everything_of(target)
    asked: dict[tuple[str, str], dict[str, str]] = {
        ("POST", "/admin/v1/keys"): {"team": "red"},
        ("PATCH", "/admin/v1/keys/an-key"): {},
    }
    for (method, path), body in asked.items():
        answer = target.ask(method, path, world["lead-key"], json=body | {"role": role})
        assert (403, "permission_denied") == (answer.status_code, answer.json()["error"]["code"])
    assert before == everything_of(target)


def test_an_answer_to_another_caller_is_not_repeated(target: Target, world: World) -> None:
    """An Idempotency-Key is its caller's own: the administrator's opens nothing to who knows or guesses it."""
    once = {"idempotency-key": "guessed"}
    bodies = {ADMIN_KEY: {"team": "blue"}, world["blue-chief"]: {"team": "blue"}, world["lead-key"]: {"team": "red"}}
    made = [target.ask("POST", "/admin/v1/keys", key, json=body, headers=once) for key, body in bodies.items()]
    assert [201] * 3 == [answer.status_code for answer in made]
    assert 3 == len({answer.json()["key"] for answer in made})
    again = target.ask("POST", "/admin/v1/keys", world["lead-key"], json={"team": "red"}, headers=once)
    assert (409, made[2].json()["id"]) == (again.status_code, again.json()["error"]["id"])


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (("PATCH", "", {"role": "member"}), (403, "permission_denied")),
        (("POST", "/block", {}), (403, "scope_blocked")),
        (("POST", "/revoke", {}), (401, "invalid_api_key")),
    ],
)
@pytest.mark.parametrize("path", ["/admin/v1/keys", "/admin/v1/keys/an-other/block"])
def test_who_loses_the_role_while_sending_changes_nothing(
    target: Target, world: World, path: str, change: tuple[str, str, dict[str, str]], refused: tuple[int, str]
) -> None:
    """The key is looked at again when the body is there: a slow one keeps no door open."""
    admin = target.admin
    made = admin.post("/keys", {"team": "red", "role": "team_admin"})
    body, before = b'{"team": "red", "id": "late"}', admin.get("/keys")["data"]
    lines = f"POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {made['key']}\r\n"
    lines += f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
    with connected(target.gateway.url) as client:
        client.sendall(f"{lines}expect: 100-continue\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")  # the key was good, and its body is waited for
        method, action, fields = change
        admin.http.request(method, f"/admin/v1/keys/{made['id']}{action}", json=fields).raise_for_status()
        client.sendall(body)
        (reply,) = replies(read_to_end(client))
    assert refused == reply.refusal
    others = [[row for row in rows if row["id"] != made["id"]] for rows in (before, admin.get("/keys")["data"])]
    assert others[0] == others[1]


@pytest.mark.parametrize(
    ("argv", "shown", "hidden"),
    [
        (["keys", "list"], "an-other", "blue"),
        (["users", "list"], "second-lead", "blue"),
        (["teams", "show", "red"], "prepaid", "blue"),
        (["usage", "--group-by", "user"], "lead", "blue"),
        (["ledger", "tail"], "an-key", "blue"),
    ],
)
def test_the_command_line_takes_such_a_key(
    target: Target,
    world: World,
    argv: list[str],
    shown: str,
    hidden: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the place of the administrator's: the same commands, about one's own."""
    monkeypatch.setenv("GATEWAY_URL", target.gateway.url)
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", world["lead-key"])
    assert 0 == main(argv)
    out = capsys.readouterr().out
    assert shown in out
    assert hidden not in out


def test_the_books_are_right_throughout(target: Target, world: World) -> None:
    """After everything that was tried here."""
    assert [] == violations(read_books(target.stack.redis_url))
