"""Windows in the books: each budget holds exactly up to its border and is whole again behind it, on a real Valkey.

The borders are those where calendars go wrong: the turn of a month, nights on which clocks change, midnights that are
skipped or come twice, a day that never was. Redis's clock stands where each test puts it (`tests.store.clock`); the
gateway's own clock is somewhere else entirely, so each admission also goes by way of `stale_window`.
"""

from collections.abc import Callable
from datetime import datetime
from types import SimpleNamespace

import pytest

from gateway.billing.budget import Window
from gateway.billing.ledger import Progress, violations
from gateway.billing.usage import Usage
from gateway.store.admission import Admitted, Decision, HoldRequest, OverBudget
from gateway.store.leases import Leases
from tests.store.bench import BLUE, BY_DESK, BY_NOTEBOOK, BY_ROBOT, DAY_MS, NOTEBOOK, ORG, RED, Bench, capture
from tests.store.clock import ClockedBench

HOUR_MS = 3_600_000
SUNDAY = 6
OpenAt = Callable[..., ClockedBench]


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


BORDERS: list[tuple[str, str, tuple[Window, ...]]] = [
    ("UTC", "2026-12-01T00:00Z", ("day", "month")),
    ("Asia/Ho_Chi_Minh", "2027-01-01T00:00+07:00", ("day", "month")),
    ("Asia/Ho_Chi_Minh", "2028-03-01T00:00+07:00", ("day", "month")),  # behind a 29 February
    ("America/New_York", "2026-03-08T00:00-05:00", ("day", "week")),  # a day of 23 hours begins
    ("America/New_York", "2026-03-09T00:00-04:00", ("day",)),  # and ends
    ("America/New_York", "2026-11-01T00:00-04:00", ("day", "week", "month")),  # a day of 25 hours
    ("America/New_York", "2026-11-02T00:00-05:00", ("day",)),
    ("America/Sao_Paulo", "2018-11-04T01:00-02:00", ("day", "week")),  # this midnight is skipped; so are those below
    ("Asia/Beirut", "2026-03-29T01:00+03:00", ("day", "week")),
    ("Africa/Cairo", "2026-04-24T01:00+03:00", ("day",)),
    ("America/Asuncion", "2017-10-01T01:00-03:00", ("day", "week", "month")),  # with it the month begins
    ("America/St_Johns", "2010-11-07T00:00-02:30", ("day", "week")),  # a minute later it is 23:01 of the day before
    ("Pacific/Apia", "2011-12-31T00:00+14:00", ("day",)),  # behind the 29th: there is no 30th
]
EACH_BORDER = [
    pytest.param(zone, ms(at), window, id=f"{zone}-{at[:10]}-{window}")
    for zone, at, windows in BORDERS
    for window in windows
]


@pytest.mark.parametrize(("zone", "border_ms", "window"), EACH_BORDER)
def test_a_budget_is_whole_again_at_its_border_and_not_before(
    open_at: OpenAt, zone: str, border_ms: int, window: Window
) -> None:
    """To the millisecond. What was spent before does not count behind it, and neither does what is still held: that
    will be charged to the window it was admitted in."""
    bench = open_at(zone, border_ms - 1, SUNDAY)
    bench.limit(RED, 100, window)
    spent, running = bench.call(60), bench.call(40)
    bench.admit(spent)
    bench.admit(running)
    bench.settle(spent, capture(60))
    refused = bench.admit(bench.call(1))
    assert isinstance(refused, OverBudget)
    assert (RED, window, border_ms) == (refused.scope, refused.window, refused.span.end_ms)
    bench.set_clock(border_ms)
    assert (0, 0) == bench.spent_and_held(RED, window)
    assert isinstance(bench.admit(bench.call(100)), Admitted)
    assert bench.settle(running, capture(40))
    assert (0, 100) == bench.spent_and_held(RED, window)
    assert (100, 100) == bench.spent_and_held(RED)
    refused = bench.admit(bench.call(1))
    assert isinstance(refused, OverBudget)
    assert (True, border_ms) == (refused.only_held, refused.span.start_ms)
    assert [] == violations(bench.books())


@pytest.mark.parametrize(("zone", "border_ms", "window"), EACH_BORDER)
def test_a_window_never_goes_back(open_at: OpenAt, zone: str, border_ms: int, window: Window) -> None:
    """After a failover Redis's clock may be behind. Calls then stay in the window that has begun: the old one's rest is
    not handed out again, the new one's is not handed out twice, and both are charged where they were held."""
    bench = open_at(zone, border_ms - 1, SUNDAY)
    bench.limit(RED, 100, window)
    before = admitted(bench, bench.call(60))
    bench.set_clock(border_ms)
    behind = admitted(bench, bench.call(70))
    bench.set_clock(border_ms - HOUR_MS)
    assert isinstance(bench.admit(bench.call(31)), OverBudget)
    set_back = admitted(bench, bench.call(30, BY_ROBOT))
    bench.settle(before, capture(60))
    bench.settle(behind, capture(70))
    assert (70, 30) == stored(bench, window)
    bench.set_clock(border_ms + 1)
    assert isinstance(bench.admit(bench.call(1)), OverBudget)
    bench.settle(set_back, capture(30))
    assert (100, 0) == stored(bench, window) == bench.spent_and_held(RED, window)
    assert (160, 0) == bench.spent_and_held(RED)
    assert [] == violations(bench.books())


@pytest.mark.parametrize("gateway_is_off_ms", [-366 * DAY_MS, -1, 1, 40 * DAY_MS])
@pytest.mark.parametrize("from_border_ms", [-1, 0])
def test_the_gateways_own_clock_decides_nothing(
    open_at: OpenAt, monkeypatch: pytest.MonkeyPatch, gateway_is_off_ms: int, from_border_ms: int
) -> None:
    """At the last and the first instant of a month, by Redis: a gateway that is a millisecond off names the wrong one,
    hears `stale_window`, and asks again."""
    border_ms = ms("2026-12-01T00:00+07:00")
    bench = open_at("Asia/Ho_Chi_Minh", border_ms - 1)
    bench.limit(RED, 100, "month")
    bench.settle(admitted(bench, bench.call(100)), capture(100))
    bench.set_clock(border_ms + from_border_ms)
    own_clock_s = (border_ms + from_border_ms + gateway_is_off_ms) / 1000
    monkeypatch.setattr("gateway.store.ledger.time", SimpleNamespace(time=lambda: own_clock_s))
    decision = bench.admit(bench.call(100))
    assert (OverBudget if from_border_ms < 0 else Admitted) is type(decision)


def test_a_scope_that_slept_through_a_border_follows_the_others(open_at: OpenAt) -> None:
    """Its first call comes when the clock was set back again: its team is in the new month, so it is there as well."""
    border_ms = ms("2026-12-01T00:00Z")
    bench = open_at("UTC", border_ms - 1)
    bench.limit(NOTEBOOK, 100, "month")
    bench.settle(admitted(bench, bench.call(100, BY_NOTEBOOK)), capture(100))
    bench.set_clock(border_ms)
    bench.settle(admitted(bench, bench.call(5, BY_ROBOT)), capture(5))
    bench.set_clock(border_ms - DAY_MS)
    bench.settle(admitted(bench, bench.call(99, BY_NOTEBOOK)), capture(99))
    assert isinstance(bench.admit(bench.call(2, BY_NOTEBOOK)), OverBudget)
    assert (104, 0) == stored(bench, "month")
    bench.set_clock(border_ms)
    assert (99, 0) == bench.spent_and_held(NOTEBOOK, "month")


@pytest.mark.parametrize(
    ("zone", "begins", "hours"),
    [
        ("America/New_York", "2026-03-08T00:00-05:00", 23),
        ("America/New_York", "2026-11-01T00:00-04:00", 25),
        ("America/Sao_Paulo", "2018-11-04T01:00-02:00", 23),
        ("America/Sao_Paulo", "2018-02-17T00:00-02:00", 25),
        ("Asia/Beirut", "2026-03-29T01:00+03:00", 23),
        ("Asia/Beirut", "2026-10-24T00:00+03:00", 25),
        ("America/St_Johns", "2010-11-07T00:00-02:30", 25),
        ("Asia/Ho_Chi_Minh", "2026-11-21T00:00+07:00", 24),
    ],
)
def test_a_day_has_one_budget_however_many_hours_it_has(open_at: OpenAt, zone: str, begins: str, hours: int) -> None:
    """A call an hour: as many as the day has hours, then none, and behind midnight again."""
    bench = open_at(zone, ms(begins))
    bench.limit(RED, hours, "day")
    for hour in range(hours):
        bench.set_clock(ms(begins) + hour * HOUR_MS)
        bench.settle(admitted(bench, bench.call(1)), capture(1))
    bench.set_clock(ms(begins) + hours * HOUR_MS - 1)
    refused = bench.admit(bench.call(1))
    assert isinstance(refused, OverBudget)
    assert hours == refused.spent_nano_usd
    bench.set_clock(ms(begins) + hours * HOUR_MS)
    assert isinstance(bench.admit(bench.call(hours)), Admitted)


@pytest.mark.parametrize("first_weekday", range(7))
def test_a_week_turns_on_the_day_that_was_set(open_at: OpenAt, first_weekday: int) -> None:
    """A budget of one call a week, asked for every noon of a fortnight that begins on a Monday."""
    noon_ms = ms("2026-11-16T12:00+07:00")
    bench = open_at("Asia/Ho_Chi_Minh", noon_ms, first_weekday)
    bench.limit(RED, 1, "week")
    served = []
    for day in range(14):
        bench.set_clock(noon_ms + day * DAY_MS)
        served += [day] * isinstance(bench.admit(bench.call(1)), Admitted)
    assert [day for day in range(14) if day == 0 or day % 7 == first_weekday] == served


def test_each_window_turns_by_itself(open_at: OpenAt) -> None:
    """The Monday night on which November ends: day and month begin anew, the week goes on."""
    border_ms = ms("2026-12-01T00:00+07:00")
    bench = open_at("Asia/Ho_Chi_Minh", border_ms - 1)
    bench.limit(RED, 10, "day")
    bench.limit(NOTEBOOK, 10, "month")
    bench.limit(BLUE, 10, "week")
    for caller in (BY_NOTEBOOK, BY_DESK):
        bench.settle(admitted(bench, bench.call(10, caller)), capture(10))
    bench.set_clock(border_ms)
    assert isinstance(bench.admit(bench.call(10, BY_NOTEBOOK)), Admitted)
    assert isinstance(bench.admit(bench.call(1, BY_DESK)), OverBudget)


def test_what_expires_behind_a_border_is_charged_before_it(open_at: OpenAt) -> None:
    """Its gateway was killed before midnight: estimate and late charge both belong to the old day."""
    border_ms = ms("2026-12-01T00:00Z")
    bench = open_at("UTC", border_ms - 1)
    bench.limit(RED, 100, "day")
    request = admitted(bench, bench.call(80))
    leases = Leases(bench.redis, bench.scripts, bench.ledger, lease_s=30)
    bench.run(leases.renew(ORG, [(request.hold_id, Progress(20, Usage(prompt_tokens=3)))]))
    bench.set_clock(border_ms + 60_000)
    bench.settle(admitted(bench, bench.call(50)), capture(50))
    (overdue,) = bench.run(leases.overdue(ORG, bench.now_ms(), 10))
    assert bench.run(leases.expire(overdue))[0].changed
    assert (50, 0) == bench.spent_and_held(RED, "day")
    assert bench.settle(request, capture(70))
    assert (50, 0) == bench.spent_and_held(RED, "day")
    assert (120, 0) == bench.spent_and_held(RED)
    assert [20, 50] == [entry.cost_nano_usd for entry in bench.entries() if entry.hold_id == request.hold_id]
    assert [] == violations(bench.books())


def test_an_image_refunded_behind_a_border_gives_nothing_to_the_new_window(open_at: OpenAt) -> None:
    """Its budget would else be above its limit, or what is spent below zero."""
    border_ms = ms("2026-12-01T00:00Z")
    bench = open_at("UTC", border_ms - 1)
    bench.limit(RED, 100, "month")
    job = bench.submitted_job(90)
    bench.set_clock(border_ms)
    bench.settle(admitted(bench, bench.call(10)), capture(10))
    assert "refunded" == bench.refund(job)
    assert (10, 0) == bench.spent_and_held(RED, "month")
    assert (10, 0) == bench.spent_and_held(RED)


def admitted(bench: Bench, request: HoldRequest) -> HoldRequest:
    decision: Decision = bench.admit(request)
    assert isinstance(decision, Admitted)
    return request


def stored(bench: Bench, window: Window) -> tuple[int, int]:
    """Spent and held of the team's window that admission counts in, wherever the clock stands."""
    return bench.state(RED)._windows[window][1:]
