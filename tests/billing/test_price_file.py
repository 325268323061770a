"""Dates in the price file: days of the organisation's zone, or instants; read exactly or not at all."""

import tomllib
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from gateway.billing.budget import Calendar
from gateway.billing.price_file import price_schedule
from gateway.billing.price_schedule import PriceSchedule
from gateway.billing.prices import PriceListError
from gateway.billing.usage import Usage

LISTED = """
[chat."mini"]
input_usd_per_million = "0.15"
output_usd_per_million = "0.60"
context_tokens = 128000
output_tokens = 16384
image_tokens_low = 85
image_tokens_high = 1445

[units.image]
usd = "0.0015"
models = ["realvision", "juggernaut"]
"""


def read(text: str, zone: str = "UTC") -> PriceSchedule:
    return price_schedule(tomllib.loads(LISTED + text), Calendar(ZoneInfo(zone)))


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1000)


def image_cost(schedule: PriceSchedule, at_ms: int, model: str = "realvision") -> int | None:
    price = schedule.at(at_ms).find(model)
    return None if price is None else price.cost_of(Usage(units=1))


@pytest.mark.parametrize(
    ("zone", "day", "begins"),
    [
        ("UTC", "2026-12-01", "2026-12-01T00:00:00+00:00"),
        ("Asia/Ho_Chi_Minh", "2026-12-01", "2026-11-30T17:00:00+00:00"),
        ("Europe/Berlin", "2026-03-30", "2026-03-29T22:00:00+00:00"),  # the night before the clocks went ahead
        ("Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00+00:00"),
        ("Europe/Berlin", "2026-10-26", "2026-10-25T23:00:00+00:00"),
        ("Asia/Beirut", "2022-03-27", "2022-03-26T22:00:00+00:00"),  # a day without a midnight: it begins at one
        (
            "America/Havana",
            "2026-11-01",
            "2026-11-01T04:00:00+00:00",
        ),  # a day with two midnights: it begins at the first
    ],
)
def test_a_day_begins_at_its_first_instant_where_the_organisation_is(zone: str, day: str, begins: str) -> None:
    """To the millisecond, on days that daylight saving makes odd as well."""
    schedule = read(f'[[change]]\nfrom = {day}\nmodel = "realvision"\nusd = "0.002"', zone)
    assert [1_500_000, 2_000_000] == [image_cost(schedule, ms(begins) + late) for late in (-1, 0)]


def test_an_instant_is_itself_in_every_zone() -> None:
    """With its offset, and as fine as a millisecond."""
    for zone in ("UTC", "America/New_York"):
        schedule = read('[[change]]\nfrom = 2026-12-01T07:30:00.250+07:00\nmodel = "realvision"\nusd = "0"', zone)
        begins = ms("2026-12-01T00:30:00.250+00:00")
        assert [1_500_000, 0] == [image_cost(schedule, begins + late) for late in (-1, 0)]


def test_a_change_may_be_of_several_models() -> None:
    """And of chat: its sizes stay."""
    schedule = read(
        '[[change]]\nfrom = 2026-12-01\nmodels = ["realvision", "juggernaut"]\nusd = "0.002"\n'
        '[[change]]\nfrom = 2026-12-02\nmodel = "mini"\ninput_usd_per_million = "1"\noutput_usd_per_million = "2"\n'
    )
    then = schedule.at(ms("2026-12-02T00:00:00+00:00"))
    assert [2_000_000] * 2 == [then.of(model, "image").cost_of(Usage(units=1)) for model in then.models("image")]
    mini = then.of("mini", "chat")
    assert (1000, 2000, 128_000) == (
        mini.cost_of(Usage(1)),
        mini.cost_of(Usage(0, 1)),
        mini.context_tokens_max,
    )


def test_changes_follow_one_another_by_their_dates() -> None:
    """Wherever they stand in the file: a later one keeps the sizes that an earlier one set."""
    rates = 'model = "mini"\ninput_usd_per_million = "1"\noutput_usd_per_million = "2"\n'
    schedule = read(f"[[change]]\nfrom = 2026-12-02\n{rates}[[change]]\nfrom = 2026-12-01\n{rates}context_tokens = 7\n")
    assert [128_000, 7, 7] == [
        schedule.at(ms(f"{day}T00:00:00+00:00")).of("mini", "chat").context_tokens_max
        for day in ("2026-11-30", "2026-12-01", "2026-12-02")
    ]


def test_a_model_may_be_withdrawn_and_a_table_may_begin_later() -> None:
    """Both are models without a price for a while."""
    schedule = read(
        '[units.speech]\nusd = "1"\nmodels = ["voice"]\nfrom = 2026-12-01\n'
        '[[change]]\nfrom = 2026-12-01\nmodel = "realvision"\nwithdrawn = true\n'
    )
    begins = ms("2026-12-01T00:00:00+00:00")
    assert [(1_500_000, None), (None, 1_000_000_000)] == [
        (image_cost(schedule, begins + late), image_cost(schedule, begins + late, "voice")) for late in (-1, 0)
    ]


RATE = 'usd = "0.002"'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f'[[change]]\nmodel = "realvision"\n{RATE}', "change 1.from must be a date"),
        (f'[[change]]\nfrom = "2026-12-01"\nmodel = "realvision"\n{RATE}', "without quotes"),
        (f'[[change]]\nfrom = 2026-12-01T00:00:00\nmodel = "realvision"\n{RATE}', "with its offset"),
        (f'[[change]]\nfrom = 1970-01-01\nmodel = "realvision"\n{RATE}', "between the years 1971 and 9000"),
        (f'[[change]]\nfrom = 9000-01-01\nmodel = "realvision"\n{RATE}', "between the years 1971 and 9000"),
        (f"[[change]]\nfrom = 2026-12-01\n{RATE}", "change 1 must name its model"),
        (f'[[change]]\nfrom = 2026-12-01\nmodel = "a"\nmodels = ["b"]\n{RATE}', "change 1 must name its model"),
        (f"[[change]]\nfrom = 2026-12-01\nmodels = []\n{RATE}", "must be a list of model names"),
        (f'[[change]]\nfrom = 2026-12-01\nmodel = "new"\n{RATE}', "new has no table of its own"),
        ('[[change]]\nfrom = 2026-12-01\nmodel = "realvision"', "change 1, realvision: usd must be a decimal string"),
        ('[[change]]\nfrom = 2026-12-01\nmodel = "mini"\nusd = "1"', "change 1, mini: usd is not known here"),
        (
            f'[[change]]\nfrom = 2026-12-01\nmodel = "realvision"\nwithdrawn = true\n{RATE}',
            "withdrawn is true, and then",
        ),
        ('[[change]]\nfrom = 2026-12-01\nmodel = "realvision"\nwithdrawn = "yes"', "withdrawn is true, and then"),
        (f'[change]\nfrom = 2026-12-01\nmodel = "realvision"\n{RATE}', "write [[change]]"),
        ('[units.speech]\nusd = "1"\nmodels = ["voice"]\nfrom = "soon"', "units.speech.from must be a date"),
        (
            f'[[change]]\nfrom = 2026-12-01\nmodels = ["realvision", "realvision"]\n{RATE}',
            "two prices from the same instant",
        ),
        (
            f'[[change]]\nfrom = 2026-12-01\nmodel = "realvision"\n{RATE}\n'
            f'[[change]]\nfrom = 2026-12-01T00:00:00Z\nmodel = "realvision"\n{RATE}',
            "change 2, realvision: there are two prices from the same instant",
        ),
    ],
)
def test_a_wrong_date_or_change_names_what_is_wrong(text: str, says: str) -> None:
    """In one line."""
    with pytest.raises(PriceListError) as refused:
        read(text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
