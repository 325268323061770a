"""What a key's holder is told of their usage: all of it, and nobody else's."""

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gateway.billing.errors import UnsupportedGrouping
from gateway.web.usage_reports import own_grouping
from tests.stack import Admin, Process, bearer, chat
from tests.web.test_books import days_around_now

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def key(admin: Admin, gateway: Process) -> dict[str, Any]:
    """Two models and an image of one key; another key of the same user has used something as well."""
    made, beside = admin.key("users", "one"), admin.key("users", "one")
    for owner, path, body in (
        (made, "chat-completions", chat("one")),
        (made, "chat-completions", chat("two", model="gpt-4.1-nano")),
        (made, "texttoimage", {"model": "realvision", "prompt": "a fox"}),
        (beside, "chat-completions", chat("nobody else's business")),
    ):
        httpx.post(f"{gateway.url}/api/{path}/", json=body, headers=bearer(owner["key"]), timeout=30)
    return made


def usage(gateway: Process, key: dict[str, Any], **params: str) -> httpx.Response:
    return httpx.get(f"{gateway.url}/v1/usage", params=params, headers=bearer(key["key"]), timeout=30)


def own_entries(admin: Admin, key: dict[str, Any]) -> list[dict[str, Any]]:
    return admin.ledger(key=key["id"])


@pytest.mark.parametrize(
    "group_by", ["", "day", "hour", "month", "model", "kind", "day,model", "hour,model", "month,kind", "model,hour"]
)
def test_every_grouping_adds_up_to_ones_own_entries(
    admin: Admin, gateway: Process, key: dict[str, Any], group_by: str
) -> None:
    """By cells or by entries, over the month or over today."""
    answer = usage(gateway, key, **({"group_by": group_by} if group_by else {}))
    assert 200 == answer.status_code
    report, entries = answer.json(), own_entries(admin, key)
    assert 3 == len(entries) == report["total"]["requests"] == sum(row["requests"] for row in report["data"])
    costs = [row["cost_nano_usd"] for row in report["data"]]
    assert sum(entry["cost_nano_usd"] for entry in entries) == sum(costs) == report["total"]["cost_nano_usd"]
    assert {*(group_by or "day").split(",")} <= report["data"][0].keys()
    assert not {"team", "key", "user", "org"} & report["data"][0].keys()
    assert "0.00" == answer.headers["x-gateway-cost-usd"]


def test_days_are_the_organisations(admin: Admin, gateway: Process, key: dict[str, Any]) -> None:
    """A date is a whole day in Vietnam; the report is the administrator's of the same key."""
    first, _, last = days_around_now()
    interval = {"from": first, "to": last}
    own = usage(gateway, key, group_by="day,model", **interval).json()["data"]
    of_all = admin.get("/usage", group_by="key,day,model", **interval)["data"]
    assert own == [{name: row[name] for name in row if name != "key"} for row in of_all if row["key"] == key["id"]]
    assert [] == usage(gateway, key, **{"from": "2020-01-01", "to": "2020-12-31"}).json()["data"]


def test_csv_has_the_rows_of_json(gateway: Process, key: dict[str, Any]) -> None:
    """For whoever keeps a spreadsheet."""
    rows = usage(gateway, key, group_by="model").json()["data"]
    table = usage(gateway, key, group_by="model", format="csv")
    assert "text/csv; charset=utf-8" == table.headers["content-type"]
    read = list(csv.DictReader(io.StringIO(table.text)))
    assert [{name: str(value) for name, value in row.items()} for row in rows] == read


def test_hours_reach_over_a_week_at_most(gateway: Process, key: dict[str, Any]) -> None:
    """They are read from everybody's entries: nobody's question may go on for ever, wherever the week lies."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)

    def asked(hours: int, back: timedelta, group_by: str = "hour") -> httpx.Response:
        begin = now - back
        interval = {"from": begin.isoformat(), "to": (begin + hours * HOUR).isoformat()}
        return usage(gateway, key, group_by=group_by, **interval)

    week = 7 * 24
    assert 3 == asked(week, timedelta(days=6)).json()["total"]["requests"]
    assert 0 == asked(week, timedelta(days=400)).json()["total"]["requests"]
    for refused in (asked(week + 1, timedelta(days=6)), asked(week + 1, timedelta(days=8), "model")):
        error = refused.json()["error"]
        assert (400, "invalid_request", "from") == (refused.status_code, error["code"], error["param"])
        assert "7 days" in error["message"]


@pytest.mark.parametrize("text", ["", "key", "team,day", "org", "user", "tag", "day,hour", "model,kind", "day,", "Day"])
def test_other_groupings_are_refused(text: str) -> None:
    """Owners among them: there is one only."""
    with pytest.raises(UnsupportedGrouping) as refused:
        own_grouping(text)
    assert "group_by" == refused.value.param


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"group_by": "key"}, "unsupported_grouping", "group_by"),
        ({"team": "another"}, "invalid_request", "team"),
        ({"format": "xml"}, "invalid_request", "format"),
        ({"from": "yesterday"}, "invalid_request", "from"),
        ({"from": "2026-11-02", "to": "2026-11-01"}, "invalid_request", "from"),
    ],
)
def test_a_report_that_cannot_be_is_refused(
    gateway: Process, key: dict[str, Any], params: dict[str, str], code: str, param: str
) -> None:
    """It names what is wrong with the question."""
    answer = usage(gateway, key, **params)
    error = answer.json()["error"]
    assert (400, code, param) == (answer.status_code, error["code"], error["param"])


def test_a_border_may_be_a_date_or_an_instant_and_says_so(gateway: Process, key: dict[str, Any]) -> None:
    """The error is where most people learn it."""
    message = usage(gateway, key, **{"from": "yesterday"}).json()["error"]["message"]
    date, instant = re.findall(r"20[-0-9T:Z]+", message)
    answers = [usage(gateway, key, **{"from": text, "to": date}) for text in (date, instant)]
    assert [200, 200] == [answer.status_code for answer in answers]


def test_only_who_holds_a_good_key_is_told(admin: Admin, gateway: Process) -> None:
    """As on every path of the data plane."""
    made = admin.key("gone")
    assert 200 == usage(gateway, made).status_code
    admin.post(f"/keys/{made['id']}/revoke")
    assert 401 == usage(gateway, made).status_code
