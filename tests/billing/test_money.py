"""Amounts are exact, both ways, and nothing that may be a float is read as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.money import NANO_USD_MAX, format_usd, nano_from_pico, parse_usd


@pytest.mark.parametrize(
    ("text", "nano_usd"),
    [
        ("0", 0),
        ("0.00", 0),
        ("25.00", 25_000_000_000),
        ("0.00000435", 4_350),
        ("0.000000001", 1),
        ("1.100000000000", 1_100_000_000),
        ("9000000.00", NANO_USD_MAX),
    ],
)
def test_a_decimal_string_is_read_exactly(text: str, nano_usd: int) -> None:
    """Down to one nano-dollar; zeros behind it change nothing."""
    assert nano_usd == parse_usd(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "-1", "+1", "1.", ".5", "1e3", "0x10", "1,000.00", "1_000", "NaN", "inf", " 1", "1\n", "$1"),
        *("\u0663", "\uff11", "1.0\u0663"),
        *("0.0000000001", "9000000.000000001", "99999999999", "1." + "0" * 13),
    ],
)
def test_what_is_no_plain_amount_is_refused(text: str) -> None:
    """Signs, exponents, foreign digits, separators, what is finer than a nano-dollar or above the maximum."""
    with pytest.raises(ValueError, match="an amount"):
        parse_usd(text)


@pytest.mark.parametrize("value", [25, 25.0, True, None, ["25.00"], {"usd": "25.00"}, b"25.00"])
def test_a_json_number_is_no_amount(value: object) -> None:
    """A number may be a float somewhere on its way; only text keeps its digits."""
    with pytest.raises(ValueError, match="decimal string"):
        parse_usd(value)


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [(0, "0.00"), (1, "0.000000001"), (4_350, "0.00000435"), (1_500_000, "0.0015"), (25_000_000_000, "25.00"),
     (25_100_000_000, "25.10"), (-1_500_000, "-0.0015"), (-1, "-0.000000001"), (2**53 - 1, "9007199.254740991")],
)  # fmt: skip
def test_an_amount_is_written_with_two_decimals_or_as_many_as_it_needs(nano_usd: int, text: str) -> None:
    """No float, no exponent, no needless zero; a refund has its sign in front."""
    assert text == format_usd(nano_usd)


@given(st.integers(min_value=0, max_value=NANO_USD_MAX))
def test_what_is_written_reads_back_the_same(nano_usd: int) -> None:
    """No amount is changed by passing through JSON."""
    assert nano_usd == parse_usd(format_usd(nano_usd))


@pytest.mark.parametrize(
    ("pico_usd", "nano_usd"), [(0, 0), (1, 1), (999, 1), (1_000, 1), (1_001, 2), (4_350_000, 4_350)]
)
def test_a_charge_is_rounded_up_to_a_nano_dollar(pico_usd: int, nano_usd: int) -> None:
    """Rounding down would give away what the upstream bills."""
    assert nano_usd == nano_from_pico(pico_usd)
