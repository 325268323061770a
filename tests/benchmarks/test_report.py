"""The tables as a person reads them."""

import pytest

from benchmarks.report import Figure, Outcome, shown, text_of


def test_a_table_says_what_was_wanted_and_what_was_found() -> None:
    """A miss is written in capitals: it is what a reader looks for."""
    outcome = Outcome(
        rows=[{"side": "nginx", "calls/s": 17_000.4}, {"side": "gateway", "calls/s": 640.0}],
        figures=[Figure("CPU by nginx's", 4.5, 4.0), Figure("2 workers by 1", 1.8, 1.7, at_least=True)],
        notes=["A quiet machine."],
    )
    expected = """\
== calls ==

side     calls/s
nginx     17,000
gateway      640

target          wanted  found
CPU by nginx's  ≤ 4.00   4.50  MISSED
2 workers by 1  ≥ 1.70   1.80  met

A quiet machine.
"""
    assert expected == text_of("calls", outcome)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [(0.0567, "0.06"), (12.34, "12.3"), (1234.5, "1,234"), (100_000, "100,000"), ("direct", "direct")],
)
def test_numbers_show_the_digits_that_mean_something(cell: str | int | float, expected: str) -> None:
    """A figure of a noisy machine with seven digits claims what nobody knows."""
    assert expected == shown(cell)
