"""Charts are arithmetic on integers: what is drawn stands in proportion, inside the picture, and turned round whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dashboard.charts import BAR_UNITS, Part, bar_parts, column_chart, scale_top

AMOUNTS = st.integers(0, 9_000_000_000_000_000)


def test_columns_stand_in_proportion() -> None:
    """Half the amount is half the height; nothing is nothing; next to nothing is seen."""
    chart = column_chart([8_000, 4_000, 0, 1], width=400, height=234, mirrored=False, labels_max=4)
    assert [200, 100, 0, 1] == [column.height for column in chart.columns]
    assert {chart.base_y} == {column.y + column.height for column in chart.columns}
    assert [0, 2_000, 4_000, 6_000, 8_000] == [tick.value for tick in chart.ticks]


@given(st.lists(AMOUNTS, min_size=1, max_size=90), st.sampled_from([(350, 200), (1140, 260)]), st.booleans())
def test_nothing_is_drawn_outside(values: list[int], size: tuple[int, int], mirrored: bool) -> None:
    """Whatever the amounts: a column that leaves the picture would be cut, and lie."""
    width, height = size
    chart = column_chart(values, width=width, height=height, mirrored=mirrored, labels_max=4)
    assert len(values) == len(chart.columns)
    for column in chart.columns:
        assert chart.plot_x <= column.x
        assert column.x + column.width <= chart.plot_end_x
        assert 0 <= column.y <= chart.base_y
    assert 1 <= sum(column.labelled for column in chart.columns) <= 4
    assert chart.columns[-1].labelled


@pytest.mark.parametrize(
    ("values", "ticks"), [([0, 0], [0, 10, 20, 30, 40]), ([3, 0], [0, 0.001, 0.002, 0.003, 0.004])]
)
def test_a_scale_of_nothing_has_labels_that_can_be_read(values: list[int], ticks: list[float]) -> None:
    """In thousandths of a dollar; quarters of a few nano-dollars would be cut off."""
    chart = column_chart(values, width=400, height=200, mirrored=False, labels_max=2)
    assert ticks == [tick.value / 1_000_000 for tick in chart.ticks]


def test_mirrored_time_runs_from_right_to_left() -> None:
    """The scale stands at the right, the first day beside it."""
    left, right = (
        column_chart([1, 2, 3], width=400, height=200, mirrored=mirrored, labels_max=3) for mirrored in (False, True)
    )
    assert [1, 2, 3] == sorted([1, 2, 3], key=lambda n: left.columns[n - 1].x)
    assert [3, 2, 1] == sorted([1, 2, 3], key=lambda n: right.columns[n - 1].x)
    assert ("end", "start") == (left.label_anchor, right.label_anchor)
    assert left.label_x + right.label_x == 400


@given(AMOUNTS)
def test_the_scale_is_round_and_just_reaches(most: int) -> None:
    """No column passes its top, and none is dwarfed by it."""
    top = scale_top(most)
    assert most <= top <= max(4, most * 2)
    assert str(top // 4).strip("0") in ("1", "2", "3", "5")


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        ([("spent", 500), ("held", 250)], [Part("spent", 0, 500), Part("held", 500, 250)]),
        ([("spent", 1500), ("held", 250)], [Part("spent", 0, 1000)]),
        ([("spent", 900), ("held", 250)], [Part("spent", 0, 900), Part("held", 900, 100)]),
        ([("spent", 0), ("held", 0)], []),
    ],
)
def test_a_bar_is_filled_to_its_end_at_most(amounts: list[tuple[str, int]], expected: list[Part]) -> None:
    """What was spent above a limit (an overrun, a lowered limit) fills the bar and leaves it there."""
    assert expected == bar_parts(amounts, 1000, mirrored=False)
    turned = [Part(part.kind, BAR_UNITS - part.x - part.width, part.width) for part in expected]
    assert turned == bar_parts(amounts, 1000, mirrored=True)


def test_a_bar_of_nothing_is_full_when_something_is_spent() -> None:
    """A limit of $0.00 is a limit."""
    assert [Part("spent", 0, BAR_UNITS)] == bar_parts([("spent", 1)], 0, mirrored=False)
