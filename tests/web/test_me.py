"""A key's own page: what its holder may know, and no more."""

import httpx
import pytest

from tests.stack import Admin, Process, bearer, chat


def test_a_key_sees_itself_its_user_and_its_team(admin: Admin, gateway: Process) -> None:
    """Budgets with what is left, and the models that every scope above it allows."""
    admin.post("/teams", {"id": "seen", "models": ["gpt-4o", "gpt-4o-mini", "realvision", "retired"]})
    admin.post("/users", {"id": "seen", "team": "seen", "budgets": [{"window": "day", "limit_usd": "1.00"}]})
    key = admin.key("seen", "seen", name="notebook", models=["gpt-4o-mini", "realvision", "gpt-4.1"])
    sent = httpx.post(f"{gateway.url}/api/chat-completions/", json=chat("hi"), headers=bearer(key["key"]), timeout=30)
    assert 200 == sent.status_code
    me = httpx.get(f"{gateway.url}/v1/me", headers=bearer(key["key"])).json()
    assert {"id": key["id"], "name": "notebook", "team": "seen", "user": "seen"} == me["key"]
    assert [("team", "seen"), ("user", "seen"), ("key", key["id"])] == [
        (row["scope"], row["id"]) for row in me["scopes"]
    ]
    assert ["gpt-4o-mini", "realvision"] == me["models"]
    (budget,) = me["scopes"][1]["budgets"]
    (entry,) = admin.ledger(key=key["id"])
    assert (entry["cost_nano_usd"], 0, 1_000_000_000 - entry["cost_nano_usd"]) == tuple(
        budget[f"{name}_nano_usd"] for name in ("spent", "held", "remaining")
    )
    assert {"today_usd": entry["cost_usd"], "month_usd": entry["cost_usd"]} == me["usage"]


def test_the_organisations_amounts_are_not_shown(admin: Admin, gateway: Process) -> None:
    """What everyone together spends is its administrators' business; nor is any secret or digest on the page."""
    key = admin.key("plain")
    response = httpx.get(f"{gateway.url}/v1/me", headers={"x-api-key": key["key"]})
    assert ["team", "key"] == [row["scope"] for row in response.json()["scopes"]]
    for hidden in ("organisation", key["key"], "digest", "created_at"):
        assert hidden not in response.text


@pytest.mark.parametrize("role", ["admin", "auditor"])
def test_who_reads_all_books_sees_the_organisation(admin: Admin, gateway: Process, role: str) -> None:
    """Its administrators and auditors see its scope on their own page as well."""
    key = admin.key("seers", role=role)
    me = httpx.get(f"{gateway.url}/v1/me", headers=bearer(key["key"])).json()
    assert ["organisation", "team", "key"] == [row["scope"] for row in me["scopes"]]


def test_a_blocked_or_revoked_key_sees_nothing(admin: Admin, gateway: Process) -> None:
    """Its state is read at each request, cached owner or not."""
    key = admin.key("unseen")
    path = f"/keys/{key['id']}"

    def answer() -> tuple[int, str | None]:
        response = httpx.get(f"{gateway.url}/v1/me", headers=bearer(key["key"]))
        return response.status_code, response.json().get("error", {}).get("code")

    assert (200, None) == answer()
    admin.post("/teams/unseen/block")
    assert (403, "scope_blocked") == answer()
    admin.post("/teams/unseen/unblock")
    admin.patch(path, {"expires_at": "2020-01-01T00:00:00Z"})
    assert (401, "expired_api_key") == answer()
    admin.post(f"{path}/revoke")
    assert (401, "invalid_api_key") == answer()
