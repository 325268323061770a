"""Geometry of the charts, in whole units of their viewBox; templates draw it. Money stays integer here, too.

Laws:
- A bar's length is to the chart's as its amount is to the top of the scale, rounded down; what is above nothing is
  never drawn as nothing.
- `mirrored` turns a chart round for scripts that run from right to left: time then runs that way as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

BAR_UNITS = 1000
_AXIS_WIDTH, _AXIS_HEIGHT, _TOP, _END = 62, 24, 10, 16
_TICKS = 4
_TOP_OF_NOTHING = 40_000_000
"""Four cents."""
_TOP_MIN = 4_000
"""The labels of a smaller scale have no room."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `index` is the place of its value, `middle_x` where its label stands."""

    index: int
    x: int
    y: int
    width: int
    height: int
    middle_x: int
    labelled: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """One line of the scale."""

    y: int
    value: int


@dataclass(frozen=True, slots=True)
class ColumnChart:
    width: int
    height: int
    plot_x: int
    plot_end_x: int
    label_x: int
    label_anchor: str
    base_y: int
    columns: Sequence[Column]
    ticks: Sequence[Tick]


@dataclass(frozen=True, slots=True)
class Part:
    """One stretch of a horizontal bar of `BAR_UNITS`."""

    kind: str
    x: int
    width: int


def column_chart(values: Sequence[int], *, width: int, height: int, mirrored: bool, labels_max: int) -> ColumnChart:
    """Columns for values ≥ 0, one each, with a scale of round numbers and at most `labels_max` labels below."""
    most = max(values, default=0)
    top = max(_TOP_MIN, scale_top(most)) if most else _TOP_OF_NOTHING
    base_y, plot_height = height - _AXIS_HEIGHT, height - _AXIS_HEIGHT - _TOP
    plot_width = width - _AXIS_WIDTH - _END
    plot_x = _END if mirrored else _AXIS_WIDTH
    label_every = -(-len(values) // labels_max)
    columns = []
    for index, value in enumerate(values):
        start, end = plot_width * index // len(values), plot_width * (index + 1) // len(values)
        gap = max(1, (end - start) // 5)
        bar = _length(value, top, plot_height)
        x = plot_x + (plot_width - end if mirrored else start)
        columns.append(
            Column(
                index=index,
                x=x + gap // 2,
                y=base_y - bar,
                width=max(1, end - start - gap),
                height=bar,
                middle_x=x + (end - start) // 2,
                labelled=(len(values) - 1 - index) % label_every == 0,
            )
        )
    ticks = [Tick(base_y - plot_height * n // _TICKS, top * n // _TICKS) for n in range(_TICKS + 1)]
    return ColumnChart(
        width=width,
        height=height,
        plot_x=plot_x,
        plot_end_x=plot_x + plot_width,
        label_x=width - _AXIS_WIDTH + 8 if mirrored else _AXIS_WIDTH - 8,
        label_anchor="start" if mirrored else "end",
        base_y=base_y,
        columns=columns,
        ticks=ticks,
    )


def scale_top(most: int) -> int:
    """The least of 4, 8, 12, 20, 40, 80 … not below `most`: its quarters are round numbers."""
    power = 1
    while True:
        for quarter in (1, 2, 3, 5):
            if _TICKS * quarter * power >= most:
                return _TICKS * quarter * power
        power *= 10


def bar_parts(amounts: Sequence[tuple[str, int]], whole: int, *, mirrored: bool) -> list[Part]:
    """Amounts one after the other along a bar that stands for `whole`; what would reach past its end is cut off."""
    parts: list[Part] = []
    begin = 0
    for kind, amount in amounts:
        width = min(_length(amount, whole, BAR_UNITS), BAR_UNITS - begin)
        if width > 0:
            parts.append(Part(kind, BAR_UNITS - begin - width if mirrored else begin, width))
        begin += width
    return parts


def _length(amount: int, whole: int, units: int) -> int:
    if amount <= 0 or whole <= 0:
        return units if amount > 0 else 0
    return max(1, min(units, amount * units // whole))
