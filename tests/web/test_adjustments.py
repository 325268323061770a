"""`/admin/v1/adjustments`: what is taken, refused and answered; the script itself is tested in tests/store."""

from typing import Any

import httpx
import pytest

from tests.stack import Admin, Process, Stack, bearer


@pytest.fixture(scope="module")
def gateway(stack: Stack) -> Process:
    return stack.gateway()


@pytest.fixture(scope="module")
def admin(gateway: Process) -> Admin:
    admin = Admin(gateway.url)
    admin.key("corrected", "an", id="desk")
    return admin


def adjust(admin: Admin, key: str | None = None, **body: Any) -> httpx.Response:
    fields = {"scope": "key", "id": "desk", "amount_usd": "0.50", "note": "charged twice", **body}
    given = {name: value for name, value in fields.items() if value is not None}
    return admin.http.post("/admin/v1/adjustments", json=given, headers={"idempotency-key": key} if key else {})


def test_an_adjustment_is_an_entry_with_a_note_and_an_author(admin: Admin) -> None:
    """It counts at the key and every scope above it, and in the reports."""
    answer = adjust(admin)
    assert 201 == answer.status_code
    body = answer.json()
    assert ("0.50", 500_000_000, "charged twice", "admin") == (
        body["amount_usd"],
        body["amount_nano_usd"],
        body["note"],
        body["author"],
    )
    (entry,) = [entry for entry in admin.ledger(key="desk") if entry["id"] == body["entry"]]
    assert ("adjustment", 500_000_000, "corrected", "an", "desk") == (
        entry["type"],
        entry["cost_nano_usd"],
        entry["team"],
        entry["user"],
        entry["key"],
    )
    (row,) = [row for row in admin.get("/usage", group_by="team")["data"] if row["team"] == "corrected"]
    assert (0, 500_000_000) == (row["requests"], row["cost_nano_usd"])
    back = adjust(admin, amount_usd="-0.50")
    assert -500_000_000 == back.json()["amount_nano_usd"]


def test_what_is_sent_again_is_posted_once(admin: Admin) -> None:
    """The first answer, marked; another wish under the same key is a conflict."""
    first, again = adjust(admin, "k1"), adjust(admin, "k1")
    assert first.json() == again.json()
    assert "true" == again.headers["idempotent-replayed"]
    assert 409 == adjust(admin, "k1", amount_usd="0.51").status_code


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"note": None}, 400, "note"),
        ({"note": "  "}, 400, "note"),
        ({"amount_usd": "0.00"}, 400, "amount_usd"),
        ({"amount_usd": "--1"}, 400, "amount_usd"),
        ({"amount_usd": -1}, 400, "amount_usd"),
        ({"amount_usd": "1e3"}, 400, "amount_usd"),
        ({"amount_usd": "-900.00"}, 400, "amount_usd"),
        ({"amount_usd": None}, 400, "amount_usd"),
        ({"scope": "planet"}, 400, "scope"),
        ({"id": "nobody"}, 404, None),
        ({"at": "tomorrow"}, 400, "at"),
        ({"at": 5}, 400, "at"),
        ({"at": "1970-01-01T00:00:00Z"}, 400, "at"),
        ({"at": "2999-01-01T00:00:00Z"}, 400, "at"),
        ({"spent": 1}, 400, "spent"),
    ],
)
def test_what_is_wrong_is_named(admin: Admin, change: dict[str, Any], status: int, param: str | None) -> None:
    """And nothing is posted."""
    before = len(admin.ledger())
    answer = adjust(admin, **change)
    assert (status, param) == (answer.status_code, answer.json()["error"]["param"])
    assert before == len(admin.ledger())


def test_only_administrators_correct(admin: Admin, gateway: Process) -> None:
    """Nobody lowers what they have spent themselves."""
    member = admin.key("corrected")["key"]
    answer = httpx.post(f"{gateway.url}/admin/v1/adjustments", json={}, headers=bearer(member))
    assert 403 == answer.status_code
