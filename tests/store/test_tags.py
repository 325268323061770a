"""Tags: they go with whatever becomes of their call, and each one's report is the sum of its entries."""

import json
from collections import defaultdict
from typing import Any, cast

import pytest

from gateway.billing.audit import Difference
from gateway.billing.ledger import OTHER_TAGS, RELEASE, Posting, violations
from gateway.billing.usage import Usage
from gateway.store.admission import HoldRequest
from gateway.store.audit_cells import CellAudit
from gateway.store.cells import TAG, Measures, measures_of
from gateway.store.jobs import Job
from gateway.store.periods import period_of
from gateway.store.records import about_json, entry_json
from gateway.store.reports import Reports
from gateway.store.spool_file import Owed, read_spool, record_of
from tests.store.bench import BY_DESK, BY_NOTEBOOK, BY_ROBOT, DAY_MS, ORG, RED, Bench, capture
from tests.store.test_projection import fields_of, write

FOX = ("env=prod", "project=fox")
PROD = ("env=prod",)


def lapsed(bench: Bench, request: HoldRequest) -> None:
    """Admitted, and expired by a reaper that knows the call by its hold alone."""
    bench.admit(request)
    bench.lapse(request)
    (hold,) = bench.run(bench.ledger.open_holds(ORG))
    assert request.tags == hold.tags
    bench.run(bench.leases.expire(hold))


def a_mixed_day(bench: Bench) -> None:
    """Calls with two tags, one and none, that end in every way there is."""
    for who, posting, tags in (
        (BY_NOTEBOOK, capture(30), FOX),
        (BY_NOTEBOOK, capture(7), PROD),
        (BY_ROBOT, capture(40, "estimated"), PROD),
        (BY_DESK, capture(100), ()),
        (BY_DESK, RELEASE, FOX),
    ):
        request = bench.call(1_000, who, tags=tags)
        bench.admit(request)
        bench.settle(request, posting)
    lapsed(bench, bench.call(1_000, tags=FOX))
    late = bench.call(1_000, tags=PROD)
    lapsed(bench, late)
    bench.settle(late, capture(60))
    job = bench.submitted_job(1_500_000, tags=FOX)
    stored = bench.run(bench.jobs.find(job.jobid, job.signature))
    assert isinstance(stored, Job)
    assert "refunded" == bench.refund(stored)
    bench.adjust(RED, 70)


def report(bench: Bench, grain: str = "", from_ms: int | None = None, to_ms: int | None = None) -> dict[str, Measures]:
    month = bench.calendar.spans_at(bench.now_ms()).month
    first, last = from_ms or month.start_ms, to_ms or cast(int, month.end_ms)
    sums: dict[str, Measures] = defaultdict(Measures)
    for cell in bench.listed(bench.reports.over(ORG, TAG, first, last, grain)):
        sums[cell.id] += cell.measures
    return sums


def test_every_entry_of_a_call_has_its_tags(bench: Bench) -> None:
    """However it ended, and whoever ended it: its gateway, a reaper, the spool, a poll of its job."""
    a_mixed_day(bench)
    tags_of_type = defaultdict(set)
    for entry in bench.entries():
        tags_of_type[entry.type].add(entry.tags)
    assert {
        "capture": {FOX, PROD, ()},
        "release": {FOX},
        "expire": {FOX, PROD},
        "late_capture": {PROD},
        "refund": {FOX},
        "adjustment": {()},
    } == tags_of_type
    assert [] == violations(bench.books())


@pytest.mark.parametrize("grain", ["", "day", "month"])
def test_each_tag_adds_up_to_its_entries(bench: Bench, grain: str) -> None:
    """A call counts under every tag it has; read from cells, and from entries where the borders fit no cells."""
    a_mixed_day(bench)
    expected: dict[str, Measures] = defaultdict(Measures)
    for entry in bench.entries():
        for tag in entry.tags:
            expected[tag] += measures_of(entry)
    assert {"env=prod", "project=fox"} == expected.keys()
    assert expected == report(bench, grain)
    now_ms = bench.now_ms()
    assert expected == report(bench, grain, now_ms - DAY_MS // 2, now_ms + 1)


def test_who_names_no_tags_leaves_what_they_always_left(bench: Bench) -> None:
    """Hold and entry byte for byte: whoever reads them may be of a version that knows no tags."""
    request = bench.call(5, hold_id="h")
    about = (
        b'{"request_id":"req-h","org":"acme","team":"red","user":"an","key":"notebook","kind":"chat",'
        b'"model":"gpt-4o-mini","price_version":"v1"'
    )
    assert about + b"}" == about_json(request)
    rest = (
        b',"prompt_tokens":10,"completion_tokens":5,"cached_tokens":0,"units":0,"usage_source":"upstream","flags":[]}'
    )
    assert about + rest == entry_json(request, capture(3))
    assert about + b',"tags":["env=prod"]}' == about_json(request._replace(tags=PROD))


def test_the_spool_keeps_them(bench: Bench) -> None:
    """A charge that outlives its gateway still says what it was for."""
    owed = Owed(bench.call(5, tags=FOX), Posting("capture", 3, Usage(1, 2)))
    assert (owed,) == read_spool(record_of(owed)).owed
    wrong = Owed(bench.call(5, tags=cast(Any, (1,))), Posting("capture", 3))
    assert 1 == read_spool(record_of(wrong)).unreadable


def test_projectors_that_race_count_each_tag_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches of a few entries, by many gateways at once."""
    monkeypatch.setattr("gateway.store.reports._BATCH", 7)
    monkeypatch.setattr("gateway.store.projection._SUMS_MAX", 5)
    write(bench, [fields_of(at_ms=bench.now_ms(), tags=[f"n=v{number % 5}", "env=prod"]) for number in range(60)])
    projectors = [Reports(bench.redis, bench.scripts, bench.ledger, bench.calendar) for _ in range(20)]
    assert 60 == sum(bench.together([projector.catch_up(ORG) for projector in projectors]))
    requests = {tag: measures.requests for tag, measures in report(bench, "day").items()}
    assert {"env=prod": 60, **{f"n=v{number}": 12 for number in range(5)}} == requests


@pytest.fixture
def crowded(bench: Bench) -> Bench:
    """A month with 1,100 tags, each of two calls; and the last month, with one of them."""
    at_ms = bench.now_ms()
    tags = [[f"user=u{number + offset}" for offset in range(5)] for number in range(0, 1_100, 5)]
    last_month_ms = bench.calendar.spans_at(at_ms).month.start_ms - 1
    write(bench, [fields_of(at_ms=at_ms, tags=some) for some in tags * 2])
    write(bench, [fields_of(at_ms=last_month_ms, tags=["user=u1099"])])
    return bench


def test_past_a_thousand_tags_the_others_are_counted_together(crowded: Bench) -> None:
    """The first thousand of a month have rows of their own; nothing is lost, and another month has room."""
    by_day = report(crowded, "day")
    assert 1_001 == len(by_day)
    assert 200 == by_day.pop(OTHER_TAGS).requests
    assert {2} == {measures.requests for measures in by_day.values()}
    assert {f"user=u{number}" for number in range(1_000)} == by_day.keys()
    month = crowded.calendar.spans_at(crowded.now_ms()).month
    before = report(crowded, "day", month.start_ms - DAY_MS, month.start_ms)
    assert {"user=u1099": 1} == {tag: measures.requests for tag, measures in before.items()}


def test_verifying_knows_which_tags_are_counted_together(crowded: Bench) -> None:
    """No difference where there is none; what is wrong is found, in a tag's own cells and in those of all others."""

    def differences() -> list[Difference]:
        audit = CellAudit(crowded.redis, crowded.ledger, crowded.reports, crowded.calendar, ORG)
        return crowded.listed(audit.differences(crowded.now_ms()))

    def add(tag: str, amount: int) -> None:
        crowded.run(crowded.redis.hincrby(crowded.keys.sheet("day", day[:7], TAG, tag), field, amount))

    day = period_of(crowded.calendar, crowded.now_ms(), "day")
    field = f"{day}|gpt-4o|chat|cost_nano_usd"
    assert [] == differences()
    wrong = {"user=u3": (65, 60), OTHER_TAGS: (6_005, 6_000), "user=u1050": (5, 0)}
    for tag in wrong:
        add(tag, 5)
    expected = {(f"report of tag {tag} by day, {day[:7]}", field, *amounts) for tag, amounts in wrong.items()}
    assert expected == {(found.place, found.what, found.stored, found.expected) for found in differences()}
    for tag in wrong:
        add(tag, -5)
    crowded.run(crowded.redis.delete(crowded.keys.sheet("day", day[:7], TAG, OTHER_TAGS)))
    assert {f"report of tag {OTHER_TAGS} by day, {day[:7]}"} == {found.place for found in differences()}


def test_tags_decide_about_nothing(bench: Bench) -> None:
    """What pays and what refuses is the same with and without them."""
    bench.limit(RED, 100)
    assert bench.admit(bench.call(60, tags=FOX)) is not None
    plain, tagged = bench.call(50), bench.call(50, tags=FOX)
    assert bench.admit(plain) == bench.admit(tagged)


def test_an_entry_says_its_tags_in_its_json(bench: Bench) -> None:
    """Where archives and exports have them as well."""
    request = bench.call(100, tags=FOX)
    bench.admit(request)
    bench.settle(request, capture(3))
    rows = bench.run(bench.redis.xrange(bench.keys.ledger))
    assert list(FOX) == json.loads(cast(Any, rows)[0][1][b"entry"])["tags"]
