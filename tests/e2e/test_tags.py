"""x-gateway-tags on every path that is billed, and what becomes of them in reports, lists and exports."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.billing.ledger import violations
from tests.books import read_books
from tests.e2e.client import CHAT, IMAGES, send
from tests.e2e.waiting import until
from tests.stack import Admin, Process, Stack, chat

OPENAI_CHAT = "/v1/chat/completions"
OPENAI_IMAGES = "/v1/images/generations"
IMAGE = {"model": "realvision", "prompt": "A tree"}
BILLED: dict[str, dict[str, Any]] = {CHAT: chat(), OPENAI_CHAT: chat(), IMAGES: IMAGE, OPENAI_IMAGES: IMAGE | {"n": 2}}


@pytest.fixture(scope="module")
def gateway(stack: Stack) -> Process:
    return stack.gateway(job_first_poll_s="0.2")


@pytest.fixture(scope="module")
def admin(gateway: Process) -> Iterator[Admin]:
    admin = Admin(gateway.url)
    yield admin
    admin.http.close()


@pytest.mark.parametrize("path", BILLED)
def test_every_billed_path_takes_tags(admin: Admin, gateway: Process, path: str) -> None:
    """They stand in the entry; a call without the header has none."""
    key = admin.key("tagging")["key"]
    for headers, tags in (({"x-gateway-tags": "project=fox,env=prod"}, ["env=prod", "project=fox"]), ({}, [])):
        answer = send(gateway.url, path, BILLED[path], key, headers)
        assert 200 == answer.status
        (entry,) = admin.ledger(request_id=answer.request_id, type="capture")
        assert tags == entry["tags"]


@pytest.mark.parametrize("path", [*BILLED, "/v1/estimate"])
def test_tags_that_are_none_are_refused_before_anything_is_held(
    admin: Admin, gateway: Process, stack: Stack, path: str
) -> None:
    """Each path says which header, and what would be right."""
    key = admin.key("mistagging")["key"]
    seen = len(stack.emulator.get("/__requests").json()["requests"])
    answer = send(gateway.url, path, BILLED.get(path, chat()), key, {"x-gateway-tags": "Project: Fox"})
    assert (400, "invalid_request", "x-gateway-tags") == (answer.status, answer.error["code"], answer.error["param"])
    assert "name=value" in answer.error["message"]
    assert seen == len(stack.emulator.get("/__requests").json()["requests"])


def test_a_report_by_tag_counts_a_call_under_each(admin: Admin, gateway: Process, stack: Stack) -> None:
    """As JSON without a total, and as CSV; the books agree, cell by cell."""
    key = admin.key("reported")["key"]
    for tags in ("client=a,kind=draft", "client=a", "client=b,kind=draft"):
        assert 200 == send(gateway.url, CHAT, chat(), key, {"x-gateway-tags": tags}).status
    expected: dict[str, int] = defaultdict(int)
    for entry in admin.ledger():
        for tag in entry["tags"]:
            expected[tag] += entry["cost_nano_usd"]
    report = admin.get("/usage", group_by="tag")
    assert expected == {row["tag"]: row["cost_nano_usd"] for row in report["data"]}
    assert {"client=a": 2, "client=b": 1, "kind=draft": 2}.items() <= {
        row["tag"]: row["requests"] for row in report["data"]
    }.items()
    assert report["total"] is None
    table = admin.http.get("/admin/v1/usage", params={"group_by": "tag", "format": "csv"}).text
    assert [row["tag"] for row in report["data"]] == [row["tag"] for row in csv.DictReader(io.StringIO(table))]
    assert [] == violations(read_books(stack.redis_url))


def test_a_failed_images_refund_takes_back_from_its_tags(admin: Admin, gateway: Process) -> None:
    """The gateway polls the job by itself, long after the call that named them."""
    key = admin.key("refunded")["key"]
    image = IMAGE | {"prompt": "[[fault:job_fails]] a tree"}
    answer = send(gateway.url, IMAGES, image, key, {"x-gateway-tags": "image=lost"})
    refunds = until(lambda: admin.ledger(request_id=answer.request_id, type="refund"))
    assert [["image=lost"]] == [entry["tags"] for entry in refunds]
    (row,) = [row for row in admin.get("/usage", group_by="tag")["data"] if row["tag"] == "image=lost"]
    assert (1, 0, 0) == (row["requests"], row["images"], row["cost_nano_usd"])
