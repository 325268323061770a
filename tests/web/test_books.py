"""Reports, entries and holds: what they group by, from when to when, and that they agree with one another."""

import csv
import io
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from gateway.billing.errors import UnsupportedGrouping
from gateway.web.usage_reports import grouping
from tests.stack import Admin, Process, Stack, bearer, chat

ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
SUMS = ("requests", "cost_nano_usd", "estimated_nano_usd")


@pytest.fixture(scope="module")
def spent(admin: Admin, gateway: Process) -> list[dict[str, Any]]:
    """Two teams, a user and a team's own key, two chat models and an image; the ledger's entries."""
    by_an, by_robot, by_binh = (
        admin.key("red", "an", id="notebook"),
        admin.key("red", id="robot"),
        admin.key("blue", "binh", id="desk"),
    )
    for key, path, body in (
        (by_an, "chat-completions", chat("one")),
        (by_an, "chat-completions", chat("two", model="gpt-4.1-nano")),
        (by_robot, "chat-completions", chat("three [[fault:no_usage]]")),
        (by_binh, "texttoimage", {"model": "realvision", "prompt": "a fox"}),
        (by_binh, "chat-completions", chat("[[fault:status=500]]")),
    ):
        httpx.post(f"{gateway.url}/api/{path}/", json=body, headers=bearer(key["key"]), timeout=30)
    return admin.ledger()


@pytest.mark.parametrize(
    "text",
    [
        *("org", "team", "user", "key", "model", "kind", "day", "month", "hour", "tag", "team,model", "user,kind,day"),
        *("key,model,month", "month,model,team", "team,model,hour", "hour,team", "org,day"),
    ],
)
def test_these_groupings_are_supported(text: str) -> None:
    """One owner or none, with model or kind or neither, and a period or none, in any order."""
    assert tuple(text.split(",")) == grouping(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", ",", "team,", "Team", "team,user", "org,team", "model,kind", "day,month", "team,team"),
        *("tag,day", "team,tag", "tag,tag", "tag,"),
        *("user,hour", "key,hour", "org,hour", "kind,hour", "team,kind,hour", "team model"),
    ],
)
def test_other_groupings_are_refused(text: str) -> None:
    """Those for which there are no sums, instead of an answer that means something else."""
    with pytest.raises(UnsupportedGrouping) as refused:
        grouping(text)
    assert "group_by" == refused.value.param


def test_every_grouping_has_the_same_total(admin: Admin, spent: list[dict[str, Any]]) -> None:
    """And it is the ledger's."""
    assert sum(entry["cost_nano_usd"] for entry in spent) > 1_500_000
    groupings = (
        "org",
        "team",
        "user",
        "key",
        "model",
        "kind",
        "day",
        "month",
        "hour",
        "team,model,hour",
        "key,kind,day",
    )
    totals = [admin.get("/usage", group_by=group)["total"] for group in groupings]
    assert [totals[0]] * len(groupings) == totals
    assert sum(entry["cost_nano_usd"] for entry in spent) == totals[0]["cost_nano_usd"]
    assert 4 == totals[0]["requests"]
    for group in groupings:
        rows = admin.get("/usage", group_by=group)["data"]
        assert [totals[0][name] for name in SUMS] == [sum(row[name] for row in rows) for name in SUMS]


def test_rows_name_their_group(admin: Admin, spent: list[dict[str, Any]]) -> None:
    """In the order of their names; a call whose key belongs to nobody has no user."""
    rows = admin.get("/usage", group_by="user,kind")["data"]
    assert [(None, "chat"), ("an", "chat"), ("binh", "image")] == [
        (row["user"], row["kind"]) for row in rows if row["cost_nano_usd"]
    ]
    assert [0, 0, 1] == [row["images"] for row in rows if row["cost_nano_usd"]]
    (nobodys,) = [row for row in rows if row["user"] is None]
    assert nobodys["cost_nano_usd"] == nobodys["estimated_nano_usd"] > 0
    assert {row["day"] for row in admin.get("/usage", group_by="day")["data"]} <= set(days_around_now())


def test_a_report_by_dates_is_a_report_by_their_instants(admin: Admin, spent: list[dict[str, Any]]) -> None:
    """A date is a whole day in Vietnam, both included; an instant is half-open. Both name the same interval."""
    yesterday, _, tomorrow = days_around_now()
    by_dates = admin.get("/usage", **{"group_by": "key,model", "from": yesterday, "to": tomorrow})
    after = (datetime.fromisoformat(tomorrow) + timedelta(days=1)).date()
    instants = {"from": f"{yesterday}T00:00:00+07:00", "to": f"{after}T00:00:00+07:00"}
    assert by_dates == admin.get("/usage", group_by="key,model", **instants)
    odd = {"from": f"{yesterday}T00:00:01+07:00", "to": f"{after}T00:00:00+07:00"}
    assert by_dates == admin.get("/usage", group_by="key,model", **odd)
    by_hour = {"group_by": "team,model,hour", "from": f"{yesterday}T00:00:00+07:00"}
    aligned, unaligned = (admin.get("/usage", **by_hour, to=f"{after}T00:00:0{n}+07:00") for n in (0, 1))
    assert aligned == unaligned
    assert 4 == aligned["total"]["requests"]
    assert 4 == by_dates["total"]["requests"]
    assert 0 == admin.get("/usage", **{"from": "2020-01-01", "to": "2020-12-31"})["total"]["requests"]


def test_an_instant_at_an_entry_takes_it_in_at_the_beginning_alone(admin: Admin, spent: list[dict[str, Any]]) -> None:
    """Reports that meet at it count it once."""
    at = spent[0]["admitted_at"]
    before = admin.get("/usage", **{"from": "2026-01-01T00:00:00Z", "to": at})["total"]["requests"]
    after = admin.get("/usage", **{"from": at, "to": f"{days_around_now()[2]}T00:00:00Z"})["total"]["requests"]
    assert (0, 4) == (before, after)


def test_csv_has_the_rows_of_json(admin: Admin, spent: list[dict[str, Any]]) -> None:
    """The same numbers, a header, and nothing that a spreadsheet would take for a formula."""
    rows = admin.get("/usage", group_by="user,model")["data"]
    response = admin.http.get("/admin/v1/usage", params={"group_by": "user,model", "format": "csv"})
    assert "text/csv; charset=utf-8" == response.headers["content-type"]
    read = list(csv.DictReader(io.StringIO(response.text)))
    assert [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows] == read


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"group_by": "tag,day"}, "unsupported_grouping", "group_by"),
        ({"group_by": "hour", "from": "2020-01-01", "to": "2020-01-02"}, "unsupported_grouping", "group_by"),
        ({"group_by": "team,hour", "from": "2099-01-01", "to": "2099-01-02"}, "unsupported_grouping", "group_by"),
        ({"format": "xml"}, "invalid_request", "format"),
        ({"from": "yesterday"}, "invalid_request", "from"),
        ({"from": "2026-02-30"}, "invalid_request", "from"),
        ({"from": "2026-11-01T00:00:00"}, "invalid_request", "from"),
        ({"from": "2026-11-02", "to": "2026-11-01"}, "invalid_request", "from"),
        ({"from": "2020-01-01", "to": "2026-01-01"}, "invalid_request", "to"),
        ({"from": "0001-01-01", "to": "0001-01-02"}, "invalid_request", "from"),
        ({"from": "9999-12-30", "to": "9999-12-31"}, "invalid_request", "from"),
        ({"from": "0001-01-01T00:00:00Z", "to": "0001-01-02T00:00:00Z"}, "invalid_request", "from"),
        ({"from": "9999-12-01T00:00:00Z", "to": "9999-12-31T23:59:59Z"}, "invalid_request", "from"),
        ({"team": "red"}, "invalid_request", "team"),
    ],
)
def test_a_report_that_cannot_be_is_refused(admin: Admin, params: dict[str, str], code: str, param: str) -> None:
    """It names what is wrong with the question."""
    response = admin.http.get("/admin/v1/usage", params=params)
    error = response.json()["error"]
    assert (400, code, param) == (response.status_code, error["code"], error["param"])


def test_entries_are_filtered_by_every_name(admin: Admin, spent: list[dict[str, Any]]) -> None:
    """Oldest first; each entry with amounts, owner and what it rests on."""
    assert sorted(entry["id"] for entry in spent) == [entry["id"] for entry in spent]
    for name in ("team", "user", "key", "model", "kind", "type", "request_id"):
        for value in {entry[name] for entry in spent if entry[name]}:
            assert [entry for entry in spent if entry[name] == value] == admin.ledger(**{name: value})
    assert ["release"] == [entry["type"] for entry in spent if entry["key"] == "desk" and entry["kind"] == "chat"]
    (estimate,) = [entry for entry in spent if entry["usage_source"] == "estimated" and entry["type"] == "capture"]
    assert ("robot", None) == (estimate["key"], estimate["user"])
    assert estimate["flags"]


def test_pages_hold_each_entry_once(admin: Admin, spent: list[dict[str, Any]]) -> None:
    """Whatever the size of a page, and with a filter that leaves gaps."""
    page = admin.get("/ledger", limit="1", team="red")
    read = page["data"]
    while page["next_cursor"]:
        page = admin.get("/ledger", limit="1", team="red", cursor=page["next_cursor"])
        read += page["data"]
    assert [entry for entry in spent if entry["team"] == "red"] == read


@pytest.mark.parametrize("cursor", ["x", "1", "-", "1-", "-1", "1-2-3", "1-x", "9" * 30 + "-0", "0-" + "9" * 30, "+"])
def test_a_cursor_that_is_none_is_refused(admin: Admin, cursor: str) -> None:
    """Redis would take some of them for something else, or fail."""
    response = admin.http.get("/admin/v1/ledger", params={"cursor": cursor})
    assert (400, "cursor") == (response.status_code, response.json()["error"]["param"])


def test_no_hold_is_left_of_calls_that_ended(admin: Admin, spent: list[dict[str, Any]]) -> None:
    """The list is that of running calls."""
    assert {"data": [], "next_cursor": None} == admin.get("/holds")
    assert {"data": [], "next_cursor": None} == admin.get("/holds", cursor="1795219200000-anything")
    for cursor in ("x", "1", "-1", "1-", "1-é", f"{'9' * 30}-a"):
        response = admin.http.get("/admin/v1/holds", params={"cursor": cursor})
        assert (400, "cursor") == (response.status_code, response.json()["error"]["param"])


def test_running_calls_are_paged(admin: Admin, stack: Stack, gateway: Process) -> None:
    """Each hold on one page; the last page says that it is the last."""
    key = admin.key("runners")["key"]
    with ThreadPoolExecutor(3) as pool:
        calls = [
            pool.submit(
                httpx.post,
                f"{gateway.url}/api/chat-completions/",
                json=chat("[[fault:withhold]]"),
                headers=bearer(key),
                timeout=30,
            )
            for _ in range(3)
        ]
        stack.emulator.get("/__withheld", params={"at_least": "3"})
        pages = [admin.get("/holds", limit="2")]
        while pages[-1]["next_cursor"]:
            pages.append(admin.get("/holds", limit="2", cursor=pages[-1]["next_cursor"]))
        stack.emulator.post("/__release")
        assert [200] * 3 == [call.result().status_code for call in calls]
    assert [2, 1] == [len(page["data"]) for page in pages]
    assert 3 == len({hold["id"] for page in pages for hold in page["data"]})


def days_around_now() -> tuple[str, str, str]:
    """Yesterday, today, tomorrow in the organisation's zone."""
    today = datetime.now(ZONE).date()
    first, second, third = (str(today + timedelta(days=number)) for number in (-1, 0, 1))
    return first, second, third
