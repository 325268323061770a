"""Months close: a report that was made two days after a month's end stays as it is, and nothing is lost of the sum."""

from collections.abc import Callable
from datetime import date, datetime

import pytest

from gateway.billing.adjustment import Adjusted
from gateway.billing.ledger import Entry, violations
from gateway.store.audit import Audit
from gateway.web.books import entry_json
from tests.store.bench import ORG, RED, Bench, capture
from tests.store.clock import ClockedBench

OpenAt = Callable[..., ClockedBench]
ZONE = "America/Asuncion"  # where 1 October 2017 began at one o'clock
SEPTEMBER, OCTOBER = "2017-09", "2017-10"


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


LAST_OF_SEPTEMBER_MS = ms("2017-09-30T23:59:59.999-04:00")
CLOSES_MS = ms("2017-10-03T01:00-03:00")


@pytest.mark.parametrize(
    ("refunded_ms", "months", "day", "for_period"),
    [
        (CLOSES_MS - 1, {SEPTEMBER: 30}, "2017-09-30", None),
        (CLOSES_MS, {SEPTEMBER: 120, OCTOBER: -90}, "2017-10-03", SEPTEMBER),
    ],
)
def test_what_is_posted_to_a_closed_month_counts_when_it_is_posted(
    open_at: OpenAt, refunded_ms: int, months: dict[str, int], day: str, for_period: str | None
) -> None:
    """The refund of an image of the month's last millisecond, a millisecond before the month closes, and then."""
    bench = open_at(ZONE, LAST_OF_SEPTEMBER_MS)
    job = bench.submitted_job(90)
    request = bench.call(30)
    bench.admit(request)
    bench.settle(request, capture(30))
    bench.set_clock(refunded_ms)
    assert "refunded" == bench.refund(job)
    assert months == costs(bench, "month")
    assert (-90 if for_period else 30) == costs(bench, "day")[day]
    assert [None, None, for_period] == [entry_json(entry, bench.calendar)["for_period"] for entry in bench.entries()]
    assert_sums_agree(bench)


def test_an_adjustment_of_a_closed_month_counts_today(open_at: OpenAt) -> None:
    """Its entry says which instant it is for; October's window is not touched by what September's report keeps."""
    bench = open_at(ZONE, CLOSES_MS)
    assert isinstance(bench.adjust(RED, 70, at_ms=LAST_OF_SEPTEMBER_MS), Adjusted)
    assert isinstance(bench.adjust(RED, 5), Adjusted)
    assert {OCTOBER: 75} == costs(bench, "month")
    assert (LAST_OF_SEPTEMBER_MS, SEPTEMBER) == late(bench, bench.entries()[0])
    assert (5, 0) == bench.spent_and_held(RED, "month")
    assert_sums_agree(bench)


def late(bench: Bench, entry: Entry) -> tuple[int, object]:
    return entry.admitted_at_ms, entry_json(entry, bench.calendar)["for_period"]


def costs(bench: Bench, grain: str) -> dict[str, int]:
    """What the team spent, by day or month, in the two months together."""
    from_ms, to_ms = (bench.calendar.midnight_ms(date(2017, month, 1)) for month in (9, 11))
    found = bench.listed(bench.reports.over(ORG, "team", from_ms, to_ms, grain))
    return {
        cell.period: sum(one.measures.cost_nano_usd for one in found if one.period == cell.period) for cell in found
    }


def assert_sums_agree(bench: Bench) -> None:
    """Days, months and any interval add up to the same; so do the books."""
    instants = [entry.at_ms for entry in bench.entries()]
    read = bench.listed(bench.reports.cells_between(ORG, "team", min(instants) - 1, max(instants) + 1, "month"))
    expected = sum(entry.cost_nano_usd for entry in bench.entries())
    assert [expected] * 3 == [
        sum(costs(bench, "day").values()),
        sum(costs(bench, "month").values()),
        sum(cell.measures.cost_nano_usd for cell in read),
    ]
    assert [] == violations(bench.books())
    audit = Audit(bench.redis, bench.ledger, bench.reports, bench.calendar, ORG)
    assert [] == bench.run(audit.run()).differences
