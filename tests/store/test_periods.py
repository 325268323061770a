"""Periods that are looked up for many instants, against the names that each instant has by itself."""

import random
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from gateway.billing.budget import Calendar
from gateway.store.periods import HOUR_MS, Timetable, period_of

TURNS = [
    ("UTC", "2027-01-01T00:00Z"),
    ("Asia/Kathmandu", "2027-01-01T00:00+05:45"),  # a day begins at a quarter of an hour of UTC
    ("America/Sao_Paulo", "2018-11-04T01:00-02:00"),  # this midnight is skipped
    ("America/Havana", "2026-11-01T00:00-05:00"),  # this one comes twice
    ("America/St_Johns", "2006-10-29T00:01-02:30"),  # so does the minute behind it
    ("Pacific/Apia", "2011-12-31T00:00+14:00"),  # the day before it never was
    ("Australia/Lord_Howe", "2026-04-05T02:00+11:00"),  # clocks go back by half an hour
]


@pytest.mark.parametrize(("zone", "turn"), TURNS)
def test_an_instant_has_the_periods_it_has_by_itself(zone: str, turn: str) -> None:
    """In any order, around each turn of hour, day and clocks; to the millisecond."""
    calendar = Calendar(ZoneInfo(zone))
    turn_ms = round(datetime.fromisoformat(turn).timestamp() * 1000)
    chance = random.Random(20261122)  # noqa: S311  # instants that repeat, no secret
    offsets_ms = (-1, 0, 1, HOUR_MS // 2 - 1, HOUR_MS // 2)
    instants = [turn_ms + hours * HOUR_MS + offset_ms for hours in range(-26, 27) for offset_ms in offsets_ms]
    instants += [turn_ms + chance.randrange(-HOUR_MS, HOUR_MS) for _ in range(500)]
    chance.shuffle(instants)
    timetable = Timetable(calendar)
    for at_ms in instants:
        periods = timetable.at(at_ms)
        found = {"month": periods.month, "day": periods.day, "hour": periods.hour}
        assert {grain: period_of(calendar, at_ms, grain) for grain in found} == found


def test_neighbours_share_what_was_worked_out() -> None:
    """Around the turn of an hour calls of both hours come mixed: neither is worked out again."""
    timetable = Timetable(Calendar(ZoneInfo("Asia/Ho_Chi_Minh")))
    before, after = timetable.at(HOUR_MS - 1), timetable.at(HOUR_MS)
    assert before is not after
    assert (before, after) == (timetable.at(0), timetable.at(2 * HOUR_MS - 1))
