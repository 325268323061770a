"""`/admin/v1/audit`: who changed what; every change is there, before it is made, and no secret ever is."""

import json
import tomllib
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
import redis

from gateway.access import RuledRoute
from gateway.app import Gateway
from gateway.billing.budget import Calendar
from gateway.billing.price_file import price_schedule
from gateway.cli.main import main
from gateway.settings import Settings
from gateway.store.changes import QUOTA
from tests.stack import ADMIN_KEY, Admin, Process, Stack, bearer


def changes(admin: Admin, **filters: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = admin.get("/audit", limit="1000", **filters)["data"]
    return found


def told(change: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(change[name] for name in ("caller", "action", "resource", "resource_id", "status", "error"))


def test_each_change_tells_who_what_and_how_it_ended(admin: Admin) -> None:
    """In the order in which they were made, with the body as it was sent."""
    before = len(changes(admin))
    admin.post("/teams", {"id": "traced", "budgets": [{"window": "month", "limit_usd": "5.00"}]})
    admin.patch("/teams/traced", {"budgets": [{"window": "month", "limit_usd": "500.00"}]})
    admin.post("/teams/traced/block")
    key = admin.post("/keys", {"team": "traced"})["id"]
    admin.post(f"/keys/{key}/rotate")
    admin.http.delete(f"/admin/v1/keys/{key}")
    found = changes(admin)[before:]
    assert [
        ("admin", "create", "teams", "traced", 201, None),
        ("admin", "change", "teams", "traced", 200, None),
        ("admin", "block", "teams", "traced", 200, None),
        ("admin", "create", "keys", key, 201, None),
        ("admin", "rotate", "keys", key, 200, None),
        ("admin", "revoke", "keys", key, 200, None),
    ] == [told(change) for change in found]
    assert {"budgets": [{"window": "month", "limit_usd": "500.00"}]} == found[1]["fields"]
    assert "sk-" not in json.dumps(found)


def test_a_change_that_was_refused_is_there_with_the_reason(admin: Admin) -> None:
    """Whoever may change things and tries what cannot be done is seen, too."""
    admin.http.patch("/admin/v1/teams/nowhere-traced", json={"name": "x"})
    admin.http.post("/admin/v1/teams", json={"id": "odd-traced", "spent": 0})
    admin.http.post("/admin/v1/teams", content=b"{", headers={"content-type": "application/json"})
    assert [
        ("admin", "change", "teams", "nowhere-traced", 404, "not_found"),
        ("admin", "create", "teams", "odd-traced", 400, "unknown_field"),
        ("admin", "create", "teams", None, 400, "invalid_json"),
    ] == [told(change) for change in changes(admin)[-3:]]


def test_a_sub_key_is_named_by_its_id_and_strangers_are_not_listed(admin: Admin) -> None:
    """Who may not change anything cannot fill the list."""
    boss = admin.key("bosses", role="admin")
    member = admin.key("bosses")
    for secret, status in ((member["key"], 403), ("sk-mt-default-nobody", 401)):
        refused = admin.http.post("/admin/v1/teams/bosses/block", headers=bearer(secret))
        assert status == refused.status_code
    admin.http.post("/admin/v1/teams/bosses/block", headers=bearer(boss["key"]))
    (block,) = changes(admin, resource_id="bosses", action="block")
    assert (f"key {boss['id']}", "admin") == (block["caller"], block["role"])


def test_a_key_in_the_wrong_place_is_not_kept(admin: Admin) -> None:
    """In a note, say: the list is read by auditors."""
    stray = "sk-mt-default-" + "a" * 48
    for number, spelled in enumerate((stray, stray.replace("-", "\\u002d"), stray.replace("a", "\\u0061"))):
        body = f'{{"id": "stray-{number}", "name": "see {spelled}"}}'
        admin.http.post("/admin/v1/teams", content=body, headers={"content-type": "application/json"})
        (change,) = changes(admin, resource_id=f"stray-{number}")
        assert "see sk-…" == change["fields"]["name"]


def test_a_team_cannot_push_the_others_changes_out(admin: Admin, stack: Stack) -> None:
    """Past its quota for a day its administrators hear so, and nothing is changed."""
    lead = admin.key("busy-team", role="team_admin")
    admin.post("/users", {"id": "busy-user", "team": "busy-team"})
    with redis.Redis.from_url(stack.redis_url) as client:
        client.set("gw:{default}:changes-of:busy-team", QUOTA)
    refused = admin.http.patch("/admin/v1/users/busy-user", json={"name": "x"}, headers=bearer(lead["key"]))
    assert (429, "rate_limit_exceeded") == (refused.status_code, refused.json()["error"]["code"])
    assert "retry-after" in refused.headers
    assert "" == admin.get("/users/busy-user")["name"]
    assert "y" == admin.patch("/users/busy-user", {"name": "y"})["name"]


@pytest.mark.parametrize("action", ["block", "unblock", "revoke"])
def test_what_takes_no_fields_refuses_them(admin: Admin, action: str) -> None:
    """Whoever sends some believes that they mean something."""
    key = admin.key("fieldless")["id"]
    for body, code in (({"spent": 0}, "unknown_field"), ([], "invalid_json")):
        refused = admin.http.post(f"/admin/v1/keys/{key}/{action}", json=body)
        assert (400, code) == (refused.status_code, refused.json()["error"]["code"])
    assert (False, None) == tuple(admin.get(f"/keys/{key}")[name] for name in ("blocked", "revoked_at"))
    assert 200 == admin.http.post(f"/admin/v1/keys/{key}/{action}", json={}).status_code


def test_what_is_too_large_to_keep_is_left_out(admin: Admin) -> None:
    """The change itself is listed; its body is refused or stored where it belongs."""
    models = ["m" * 90 + str(number) for number in range(190)]
    admin.post("/teams", {"id": "large-traced", "models": models})
    (change,) = (one for one in changes(admin)[-1:])
    assert (None, 201, "large-traced") == (change["fields"], change["status"], change["resource_id"])


def test_the_list_is_filtered_and_paged(admin: Admin) -> None:
    """By whom, by what, and page by page to the end."""
    for number in range(3):
        admin.post("/teams", {"id": f"paged-{number}"})
    first = admin.get("/audit", limit="1", resource="teams", action="create")
    assert 1 == len(first["data"])
    names, cursor = [first["data"][0]["resource_id"]], first["next_cursor"]
    while cursor is not None:
        page = admin.get("/audit", limit="2", cursor=cursor, resource="teams", action="create")
        names += [change["resource_id"] for change in page["data"]]
        cursor = page["next_cursor"]
    assert names == [change["resource_id"] for change in changes(admin, resource="teams", action="create")]
    assert ["paged-0", "paged-1", "paged-2"] == names[-3:]
    assert [] == changes(admin, caller="nobody")
    assert [] == admin.get("/audit", **{"from": "2026-01-01", "to": "2026-01-31"})["data"]
    assert 400 == admin.http.get("/admin/v1/audit", params={"who": "me"}).status_code


def test_what_cannot_be_written_down_is_not_done(admin: Admin, stack: Stack) -> None:
    """Here Redis refuses the list alone; that it was refused is better than a change that nobody finds."""
    with redis.Redis.from_url(stack.redis_url) as client:
        client.rename("gw:{default}:changes", "gw:{default}:aside")
        client.set("gw:{default}:changes", "no list")
        try:
            refused = admin.http.post("/admin/v1/teams", json={"id": "untraced"})
        finally:
            client.rename("gw:{default}:aside", "gw:{default}:changes")
    assert (503, "ledger_unavailable") == (refused.status_code, refused.json()["error"]["code"])
    assert 404 == admin.http.get("/admin/v1/teams/untraced").status_code


def test_no_route_changes_anything_unseen(admin: Admin, repository: Path) -> None:
    """Each of the control plane's own routes that is no GET: one request, one line in the list."""
    with (repository / "config" / "prices.toml").open("rb") as file:
        prices = price_schedule(tomllib.load(file), Calendar(UTC))
    built = Gateway(Settings(upstream_api_key="sk-upstream"), prices, "sk-admin", "redis://127.0.0.1:1/0")
    routes = [
        (method, route.path)
        for route in built._router.routes
        if isinstance(route, RuledRoute) and route.path.startswith("/admin/")
        for method in route.methods or ()
        if method not in ("GET", "HEAD")
    ]
    assert len(routes) > 20
    for method, path in routes:
        before = len(changes(admin))
        admin.http.request(method, path.replace("{id}", "not-there").replace("{hold}", "not-there"), json={})
        assert before + 1 == len(changes(admin)), (method, path)


def test_the_command_lists_them(
    admin: Admin, gateway: Process, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a table, and as JSON."""
    monkeypatch.setenv("GATEWAY_URL", gateway.url)
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", ADMIN_KEY)
    admin.post("/teams", {"id": "by-command", "name": "Nhóm"})
    assert 0 == main(["audit", "--resource", "teams", "--id", "by-command"])
    assert '{"id": "by-command", "name": "Nhóm"}' in capsys.readouterr().out
    assert 0 == main(["audit", "--id", "by-command", "--json"])
    (change,) = json.loads(capsys.readouterr().out)["data"]
    assert 201 == change["status"]
