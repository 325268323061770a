"""How long the account at MiniToolAI lasts: whole numbers, and no promise about what nobody can know."""

import pytest

from gateway.billing.upstream_account import DAY_MS, burn_per_day, runs_out_ms

NOW_MS = 1_795_000_000_000
USD = 1_000_000_000


@pytest.mark.parametrize(
    ("cost_nano_usd", "over_ms", "expected"),
    [
        (7 * USD, 7 * DAY_MS, USD),
        (10, 7 * DAY_MS, 1),
        (USD, 2 * DAY_MS, USD // 2),
        (USD, 60_000, USD),
        (USD, 0, USD),
        (0, 7 * DAY_MS, 0),
        (-USD, 7 * DAY_MS, 0),
    ],
    ids=["a week", "rounded down", "two days", "a minute", "no time", "nothing", "only refunds"],
)
def test_what_a_day_costs(cost_nano_usd: int, over_ms: int, expected: int) -> None:
    """An organisation of one minute has not spent sixty times as much in an hour."""
    assert expected == burn_per_day(cost_nano_usd, over_ms)


@pytest.mark.parametrize(
    ("balance_nano_usd", "burn_nano_usd", "days"),
    [
        (10 * USD, USD, 10),
        (USD, 2 * USD, 0.5),
        (0, 0, 0),
        (-5, USD, 0),
        (1, 0, None),
        (36_500 * USD, USD, 36_500),
        (36_500 * USD + 1, USD, None),
        (9_000_000 * USD, 1, None),
    ],
)
def test_when_it_is_used_up(balance_nano_usd: int, burn_nano_usd: int, days: float | None) -> None:
    """Now where nothing is left; never where nothing is spent, or not for a hundred years."""
    expected = None if days is None else NOW_MS + int(days * DAY_MS)
    assert expected == runs_out_ms(balance_nano_usd, burn_nano_usd, NOW_MS)
