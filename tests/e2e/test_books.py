"""Five hundred calls of every kind, and then the books against the upstream's own bill, line by line."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.billing.ledger import violations
from tests.books import read_books
from tests.e2e.traffic import CHAT_MODELS, IMAGE_MODELS, Made, make, plan
from tests.e2e.waiting import until
from tests.stack import Admin, Stack

CALLS = 500
AT_ONCE = 32
KEYS = (("research", "an"), ("research", "binh"), ("sales", "chi"), ("sales", None), ("support", "dung"))
FLAGS = {"estimated": ["estimated"], "unanswered": ["estimated", "unanswered"], "anomaly": ["anomaly"]}


@dataclass(frozen=True)
class Closed:
    """The books after all calls have ended."""

    stack: Stack
    admin: Admin
    made: Sequence[Made]
    entries: Sequence[dict[str, Any]]
    lines: dict[str, dict[str, Any]] = field(default_factory=dict)

    def entries_of(self, request_id: str) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if entry["request_id"] == request_id]


@pytest.fixture(scope="module")
def closed(stack: Stack) -> Closed:
    """Make all calls, through two gateways; wait until nothing is held and no job is left to refund."""
    gateways = [stack.gateway(job_first_poll_s="0.5"), stack.gateway(job_first_poll_s="0.5")]
    admin = Admin(gateways[0].url)
    keys = [admin.key(team, user) for team, user in KEYS]
    for scope in ("teams", "users", "keys"):
        for row in admin.get(f"/{scope}")["data"]:
            budgets = [{"window": window, "limit_usd": "1000"} for window in ("total", "day", "week", "month")]
            admin.patch(f"/{scope}/{row['id']}", {"budgets": budgets})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        made = list(pool.map(lambda call: make(stack, gateways, keys[call.key]["key"], call), plan(CALLS, len(KEYS))))
    until(lambda: stack.emulator.post("/__release").is_success and admin.get("/holds")["data"] == [])
    failed = sum(call.planned.fault == "job_fails" for call in made)
    until(lambda: len(admin.ledger(type="refund")) == failed)
    lines = {line["request_id"]: line for line in stack.bill()["lines"]}
    return Closed(stack, admin, made, admin.ledger(), lines)


def test_the_plan_holds_every_kind_of_call_and_ending(closed: Closed) -> None:
    """Five hundred calls that all went well would prove little."""
    planned = Counter((call.planned.kind, call.planned.ends) for call in closed.made)
    assert 10 == len(planned)
    assert min(planned.values()) >= 15, planned
    assert CALLS == planned.total()
    assert set(CHAT_MODELS + IMAGE_MODELS) == {call.planned.model for call in closed.made}


def test_every_entry_without_a_flag_is_what_the_upstream_billed(closed: Closed) -> None:
    """To the nano-dollar, line by line, and so in their sum; where it claimed nothing, by what it truly generated."""
    sums: Counter[str] = Counter()
    for call in closed.made:
        entries = closed.entries_of(call.request_id)
        if any(entry["flags"] for entry in entries):
            continue
        line = closed.lines[call.request_id]
        charged, billed = sum(entry["cost_nano_usd"] for entry in entries), line["claimed_nano_usd"]
        if billed is None:
            billed = line["generated_nano_usd"]
        assert billed == charged, (call, line)
        sums.update(charged=charged, billed=billed, lines=1)
    assert sums["billed"] == sums["charged"] > 0
    assert sums["lines"] >= CALLS / 2


def test_what_was_flagged_is_what_the_fault_makes_of_it(closed: Closed) -> None:
    """Nothing is called exact that is not, and nothing exact is called an estimate."""
    for call in closed.made:
        first, *others = closed.entries_of(call.request_id)
        ends = call.planned.ends
        if ends == "free":
            assert ("release", 0, []) == (first["type"], first["cost_nano_usd"], first["flags"]), call
            continue
        assert ("capture", FLAGS.get(ends, [])) == (first["type"], first["flags"]), (call, first)
        assert ["refund"] * (ends == "refunded") == [entry["type"] for entry in others], call


def test_estimates_are_what_was_generated_where_the_text_tells(closed: Closed) -> None:
    """Streamed without usage, or never answered: counting what was sent and streamed gives the upstream's own count,
    unless the connection broke inside what it had already generated."""
    for call in closed.made:
        line = closed.lines.get(call.request_id)
        if line is None or call.planned.ends not in ("estimated", "unanswered"):
            continue
        (entry,) = closed.entries_of(call.request_id)
        if "reset_byte" in call.planned.fault or "gzip" in call.planned.fault:
            assert entry["cost_nano_usd"] <= line["generated_nano_usd"], call
        else:
            assert entry["cost_nano_usd"] == line["generated_nano_usd"], (call, entry, line)


def test_every_call_ended_once_and_nothing_is_held(closed: Closed) -> None:
    """All invariants of the books, over everything Redis holds."""
    books = read_books(closed.stack.redis_url)
    assert [] == violations(books)
    assert [] == list(books.holds)
    assert {0} == set(books.held.values())
    assert {call.request_id for call in closed.made} == {entry.request_id for entry in books.entries}


def test_failed_images_are_refunded_once_and_voided_upstream(closed: Closed) -> None:
    """By whoever polled it: a client, or one of the two gateways."""
    failed = [call for call in closed.made if call.planned.ends == "refunded"]
    for call in failed:
        costs = [entry["cost_nano_usd"] for entry in closed.entries_of(call.request_id)]
        assert [1_500_000, -1_500_000] == costs
        assert closed.lines[call.request_id]["voided"]
    assert {"error", ""} == {call.job for call in failed}


@pytest.mark.parametrize("axis", ["org", "team", "user", "key", "model", "kind", "day", "month", "team,model,hour"])
def test_reports_are_the_sums_of_the_entries(closed: Closed, axis: str) -> None:
    """Each way to group a report adds up to the same entries."""
    expected: Counter[tuple[Any, ...]] = Counter()
    for entry in closed.entries:
        expected[tuple(place_of(entry, group) for group in axis.split(","))] += entry["cost_nano_usd"]
    report = closed.admin.get("/usage", group_by=axis)
    actual = {tuple(row[group] for group in axis.split(",")): row["cost_nano_usd"] for row in report["data"]}
    assert {place: cost for place, cost in expected.items() if cost} == {p: cost for p, cost in actual.items() if cost}
    assert sum(expected.values()) == report["total"]["cost_nano_usd"]


def test_reports_say_how_much_is_estimated(closed: Closed) -> None:
    """What is not proven is labelled in the reports too."""
    estimated = sum(entry["cost_nano_usd"] for entry in closed.entries if entry["flags"])
    assert estimated == closed.admin.get("/usage", group_by="team")["total"]["estimated_nano_usd"] > 0


@pytest.mark.parametrize("kind", ["team", "user", "key"])
def test_balances_are_the_sums_of_the_entries(closed: Closed, kind: str) -> None:
    """In each of the four windows, as the control plane shows them."""
    spent: dict[str, int] = defaultdict(int)
    for entry in closed.entries:
        spent[entry[kind]] += entry["cost_nano_usd"]
    for row in closed.admin.get(f"/{kind}s")["data"]:
        for budget in row["budgets"]:
            assert (spent[row["id"]], 0) == (budget["spent_nano_usd"], budget["held_nano_usd"]), (row["id"], budget)


def place_of(entry: dict[str, Any], group: str) -> str | None:
    """Where an entry stands in a report: by the instant its call was admitted."""
    admitted: str = entry["admitted_at"]
    periods = {"day": admitted[:10], "month": admitted[:7], "hour": f"{admitted[:13]}Z"}
    place: str | None = periods[group] if group in periods else entry[group]
    return place
