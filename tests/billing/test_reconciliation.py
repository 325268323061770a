"""The share that rests on estimates, in whole numbers."""

import pytest

from gateway.billing.reconciliation import hundredths_percent


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [(0, 5, 0), (5, 5, 10_000), (1, 3, 3_333), (-1, 5, 0), (0, 0, None), (0, -5, None)],
    ids=["none", "all", "rounded down", "a refund", "nothing was spent", "more was refunded"],
)
def test_a_share(part: int, whole: int, expected: int | None) -> None:
    """Never above the truth, and none where there is nothing to share."""
    assert expected == hundredths_percent(part, whole)
