"""Windows: half-open, without gap or overlap, at every midnight the world has thought of."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.budget import Calendar, Span, instant

HOUR_MS = 3_600_000
ZONES = (
    *("UTC", "Asia/Ho_Chi_Minh", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu"),
    *("Asia/Beirut", "Africa/Cairo", "America/Sao_Paulo", "America/St_Johns", "Atlantic/Azores", "Pacific/Apia"),
)


def calendar(zone: str, first_weekday: int = 0) -> Calendar:
    return Calendar(ZoneInfo(zone), first_weekday)


def ms(text: str) -> int:
    """An instant as milliseconds."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/New_York", "2026-03-08", 23),
        ("America/New_York", "2026-11-01", 25),
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("Asia/Beirut", "2026-03-29", 23),
        ("Asia/Beirut", "2026-10-24", 25),
        ("Africa/Cairo", "2026-04-24", 23),
        ("America/Sao_Paulo", "2018-11-04", 23),
        ("America/Sao_Paulo", "2018-02-17", 25),
        ("Asia/Ho_Chi_Minh", "2026-11-21", 24),
    ],
)
def test_a_day_has_the_hours_its_zone_gives_it(zone: str, day: str, hours: float) -> None:
    """Clocks change at night, some at midnight itself: that day has 23 or 25 hours, and one budget."""
    books = calendar(zone)
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo(zone))
    span = books.spans_at(round(noon.timestamp() * 1000)).day
    assert span.end_ms is not None
    assert hours * HOUR_MS == span.end_ms - span.start_ms


@pytest.mark.parametrize(
    ("zone", "day", "begins"),
    [
        ("Asia/Beirut", date(2026, 3, 29), "2026-03-29T01:00:00+03:00"),
        ("Africa/Cairo", date(2026, 4, 24), "2026-04-24T01:00:00+03:00"),
        ("America/Sao_Paulo", date(2018, 11, 4), "2018-11-04T01:00:00-02:00"),
        ("Asia/Ho_Chi_Minh", date(2026, 11, 21), "2026-11-21T00:00:00+07:00"),
    ],
)
def test_where_midnight_is_skipped_the_day_begins_with_the_jump(zone: str, day: date, begins: str) -> None:
    """In these zones the clock goes from 23:59 to 01:00."""
    assert ms(begins) == calendar(zone).midnight_ms(day)


def test_a_day_that_never_was_is_in_no_window() -> None:
    """Samoa left out 30 December 2011: the 29th is followed by the 31st at once."""
    books, jump = calendar("Pacific/Apia"), ms("2011-12-30T10:00:00+00:00")
    assert date(2011, 12, 29) == books.date_at(jump - 1)
    assert date(2011, 12, 31) == books.date_at(jump)
    assert jump == books.spans_at(jump - 1).day.end_ms == books.spans_at(jump).day.start_ms


def test_a_repeated_hour_before_midnight_stays_in_the_day_that_began() -> None:
    """At 00:01 St John's went back to 23:01 of the day before; a budget that had been reset is not handed out twice."""
    books = calendar("America/St_Johns")
    first_midnight = books.midnight_ms(date(2010, 11, 7))
    half_past_eleven_again = first_midnight + HOUR_MS // 2
    wall_clock = datetime.fromtimestamp(half_past_eleven_again / 1000, books.zone)
    assert "2010-11-06T23:30:00-03:30" == wall_clock.isoformat()
    assert date(2010, 11, 7) == books.date_at(half_past_eleven_again)


@given(st.sampled_from(ZONES), st.integers(ms("1972-01-01T00:00Z"), ms("2037-12-31T00:00Z")), st.integers(0, 6))
def test_windows_contain_their_instant_and_meet_without_gap(zone: str, at_ms: int, first_weekday: int) -> None:
    """The next window begins where this one ends, so no call is in none or in two."""
    books = calendar(zone, first_weekday)
    spans = books.spans_at(at_ms)
    assert spans.hold(at_ms)
    for name in ("day", "week", "month"):
        end_ms = getattr(spans, name).end_ms
        assert end_ms == getattr(books.spans_at(end_ms), name).start_ms
        assert getattr(spans, name) == getattr(books.spans_at(end_ms - 1), name)


@pytest.mark.parametrize(
    ("first_weekday", "begins"),
    [(0, "2026-11-16"), (1, "2026-11-17"), (2, "2026-11-18"), (3, "2026-11-19"), (4, "2026-11-20"), (5, "2026-11-21"),
     (6, "2026-11-15")],
)  # fmt: skip
def test_a_week_begins_on_the_day_that_was_set(first_weekday: int, begins: str) -> None:
    """Seen from Saturday, 21 November 2026; 0 is Monday."""
    week = calendar("UTC", first_weekday).spans_at(ms("2026-11-21T12:00Z")).week
    assert Span(ms(f"{begins}T00:00Z"), ms(f"{begins}T00:00Z") + 7 * 24 * HOUR_MS) == week


@pytest.mark.parametrize(
    ("at", "begins", "ends"),
    [
        ("2026-11-30T23:59:59.999+07:00", "2026-11-01T00:00+07:00", "2026-12-01T00:00+07:00"),
        ("2026-12-01T00:00:00+07:00", "2026-12-01T00:00+07:00", "2027-01-01T00:00+07:00"),
        ("2028-02-29T12:00:00+07:00", "2028-02-01T00:00+07:00", "2028-03-01T00:00+07:00"),
        ("2027-01-31T17:30:00+00:00", "2027-02-01T00:00+07:00", "2027-03-01T00:00+07:00"),
    ],
)
def test_a_month_is_the_organisations_month(at: str, begins: str, ends: str) -> None:
    """Its last millisecond belongs to it; in Vietnam a new month begins at 17:00 UTC."""
    assert Span(ms(begins), ms(ends)) == calendar("Asia/Ho_Chi_Minh").spans_at(ms(at)).month


@pytest.mark.parametrize(
    ("admitted", "posted", "counts_when_posted"),
    [
        ("2017-09-30T23:59:59.999-04:00", "2017-10-01T01:00-03:00", False),
        ("2017-09-30T23:59:59.999-04:00", "2017-10-03T00:59:59.999-03:00", False),
        ("2017-09-30T23:59:59.999-04:00", "2017-10-03T01:00-03:00", True),
        ("2017-09-01T00:00-04:00", "2017-10-03T00:59:59.999-03:00", False),
        ("2017-09-01T00:00-04:00", "2017-10-03T01:00-03:00", True),
        ("2017-10-01T01:00-03:00", "2017-10-31T23:59-03:00", False),
        ("2017-10-01T01:00-03:00", "2017-09-30T00:00-04:00", False),
    ],
)
def test_a_month_stays_open_for_two_days(admitted: str, posted: str, *, counts_when_posted: bool) -> None:
    """In Asunción, where October 2017 began at one o'clock. The last is a clock that was set back in between."""
    counts_ms = calendar("America/Asuncion").counts_at_ms(ms(admitted), ms(posted))
    assert ms(posted if counts_when_posted else admitted) == counts_ms


def test_the_total_has_neither_start_nor_end() -> None:
    """It holds every instant."""
    total = calendar("UTC").spans_at(0).of("total")
    assert Span(0, None) == total
    assert total.holds(2**52)


def test_a_window_is_half_open() -> None:
    """Its first millisecond is in, its last border is out."""
    assert [False, True, True, False] == [Span(10, 20).holds(at) for at in (9, 10, 19, 20)]


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (1_795_305_600_123, "2026-11-22T00:00:00.123Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_an_instant_is_written_in_utc(at_ms: int, text: str) -> None:
    """RFC 3339; milliseconds where there are any, and it reads back the same."""
    assert text == instant(at_ms)
    assert at_ms == (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
