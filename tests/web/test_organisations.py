"""The organisation as a scope of the control plane: it bounds everybody, and there is one."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.billing.money import format_usd
from tests.stack import Admin, Process, bearer, chat

OURS = "/organisations/default"
UNBOUND: dict[str, Any] = {"name": "", "budgets": [], "models": None, "blocked": False}


@pytest.fixture(autouse=True)
def unbound(admin: Admin) -> Iterator[None]:
    """Whatever a test sets is gone after it, for the next one shares the organisation."""
    yield
    limits = dict.fromkeys(admin.get(OURS)["limits"])
    admin.patch(OURS, UNBOUND | {"limits": limits})


def refused(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


def call(gateway: Process, key: str, model: str = "gpt-4o-mini") -> httpx.Response:
    return httpx.post(f"{gateway.url}/api/chat-completions/", json=chat(model=model), headers=bearer(key), timeout=30)


def test_there_is_one_organisation_and_it_says_how_it_counts(admin: Admin) -> None:
    """The same alone and in the list; its time zone is the one its windows turn in."""
    ours = admin.get(OURS)
    assert ("default", "Asia/Ho_Chi_Minh", "monday", [], {}, False) == tuple(
        ours[name] for name in ("id", "timezone", "first_weekday", "budgets", "limits", "blocked")
    )
    assert {"data": [ours], "next_cursor": None} == admin.get("/organisations")
    assert (404, "not_found", None) == refused(admin.http.get("/admin/v1/organisations/other"))


def test_its_budget_counts_what_everybody_spends(admin: Admin, gateway: Process) -> None:
    """Two teams' calls in one sum, as in the reports; the last cent is refused with the organisation's name."""
    keys = [admin.key(team)["key"] for team in ("org-red", "org-blue")]
    for key in keys:
        assert 200 == call(gateway, key).status_code
    spent = sum(entry["cost_nano_usd"] for entry in admin.ledger())
    budget = {"window": "total", "limit_usd": format_usd(spent), "soft_percent": [50]}
    (shown,) = admin.patch(OURS, {"budgets": [budget]})["budgets"]
    assert (spent, 0, 0, [50]) == tuple(
        shown[name] for name in ("spent_nano_usd", "held_nano_usd", "remaining_nano_usd", "soft_percent")
    )
    answer = call(gateway, keys[0])
    assert (402, "budget_exceeded", None) == refused(answer)
    assert ("organisation", "default", "total") == tuple(
        answer.json()["error"][name] for name in ("scope", "id", "window")
    )


@pytest.mark.parametrize(("role", "told"), [("member", False), ("team_admin", False), ("auditor", True)])
def test_its_amounts_are_told_to_those_who_read_all_books(
    admin: Admin, gateway: Process, role: str, told: bool
) -> None:
    """In no refusal, no header and not on the own page of anybody else; prepaid credit included."""
    key = admin.key("org-told", role=role)["key"]
    for budget in ({"window": "month", "limit_usd": "0.00"}, {"window": "prepaid"}):
        admin.patch(OURS, {"budgets": [budget]})
        answer = call(gateway, key)
        error = answer.json()["error"]
        assert (402, told, told) == (answer.status_code, "limit_usd" in error, "spent_usd" in error)
        # Of the two amounts in a sentence a member hears the one that is their own call's.
        assert (told, True) == (error["message"].count("$") > 1, "required_usd" in error)
        assert "x-gateway-budget-remaining-usd" not in answer.headers
    mine = httpx.get(f"{gateway.url}/v1/me", headers=bearer(key)).json()["scopes"]
    assert told == ("organisation" in {scope["scope"] for scope in mine})


def test_its_limits_and_models_hold_for_everybody(admin: Admin, gateway: Process) -> None:
    """The outermost scope refuses, whatever a team allows."""
    key = admin.key("org-limited", models=["gpt-4o", "gpt-4o-mini"])["key"]
    admin.patch(OURS, {"models": ["gpt-4o-mini"], "limits": {"requests_per_minute": 1}})
    not_allowed = call(gateway, key, "gpt-4o")
    assert (403, "model_not_allowed", "model") == refused(not_allowed)
    assert 200 == call(gateway, key).status_code
    limited = call(gateway, key)
    assert (429, "rate_limit_exceeded", None) == refused(limited)
    for answer in (not_allowed, limited):
        assert ("organisation", "default") == tuple(answer.json()["error"][name] for name in ("scope", "id"))


def test_a_blocked_organisation_is_unblocked_with_the_administrators_own_key(admin: Admin, gateway: Process) -> None:
    """Sub-keys, an administrator's too, are inside it; the key of the deployment is not."""
    officer = bearer(admin.key("org-officer", role="admin")["key"])
    assert admin.patch(OURS, {"blocked": True})["blocked"]
    answer = httpx.post(f"{gateway.url}/admin/v1{OURS}/unblock", headers=officer)
    assert (403, "scope_blocked", None) == refused(answer)
    assert not admin.post(f"{OURS}/unblock")["blocked"]
    assert 200 == httpx.get(f"{gateway.url}/admin/v1{OURS}", headers=officer).status_code


def test_credit_is_paid_to_the_organisation(admin: Admin) -> None:
    """As to any scope with a prepaid budget."""
    admin.patch(OURS, {"budgets": [{"window": "prepaid"}]})
    body = {"scope": "organisation", "id": "default", "amount_usd": "12.50"}
    assert 201 == admin.http.post("/admin/v1/credits", json=body).status_code
    (budget,) = admin.get(OURS)["budgets"]
    assert ("prepaid", "12.50", "12.50") == tuple(budget[name] for name in ("window", "paid_in_usd", "remaining_usd"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"id": "default"}, (409, "already_exists", "id")),
        ({"id": "second", "budgets": [{"window": "month", "limit_usd": "1"}]}, (400, "invalid_request", "id")),
        ({}, (400, "invalid_request", "id")),
        ({"id": "second", "upstream_api_key": "sk-"}, (400, "unknown_field", "upstream_api_key")),
    ],
)
def test_no_second_organisation_is_half_made(
    admin: Admin, body: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    """It would need a key of its own at MiniToolAI; the refusal says what to do in its place."""
    answer = admin.http.post("/admin/v1/organisations", json=body)
    assert expected == refused(answer)
    assert ["default"] == [one["id"] for one in admin.get("/organisations")["data"]]
    if body.get("id") == "second" and "budgets" in body:
        assert "MINITOOLAI_API_KEY" in answer.json()["error"]["message"]


@pytest.mark.parametrize("field", ["id", "timezone", "first_weekday"])
def test_what_its_windows_count_by_never_changes(admin: Admin, field: str) -> None:
    """And nobody is told to create another organisation for it."""
    answer = admin.http.patch(f"/admin/v1{OURS}", json={field: "other"})
    assert (400, "invalid_request", field) == refused(answer)
    assert f"{field} never changes." == answer.json()["error"]["message"]
