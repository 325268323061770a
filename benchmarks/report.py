"""What a bench found: printed for a person, written down for whoever compares later."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.compare import Effort

Cell = str | int | float
Row = Mapping[str, Cell]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that has a target; `at_least` where more is better."""

    what: str
    value: float
    target: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclass(slots=True)
class Outcome:
    """Rows of one table with the same columns, the figures that have targets, and what a reader has to know."""

    rows: list[Row] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def text_of(bench: str, outcome: Outcome) -> str:
    """For a terminal."""
    targets = [
        {
            "target": figure.what,
            "wanted": f"{'≥' if figure.at_least else '≤'} {shown(figure.target)}",
            "found": figure.value,
            "": "met" if figure.met else "MISSED",
        }
        for figure in outcome.figures
    ]
    parts = [f"== {bench} ==", _table(outcome.rows), *([_table(targets)] if targets else []), *outcome.notes]
    return "\n\n".join(parts) + "\n"


def write(folder: Path, bench: str, outcome: Outcome, machine: Mapping[str, object], effort: Effort) -> Path:
    """One file a bench and day; a later run of the same day replaces it. Returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{str(machine['date'])[:10]}-{bench}.json"
    facts = {
        "bench": bench,
        "machine": machine,
        "effort": asdict(effort),
        "rows": outcome.rows,
        "figures": [{**asdict(figure), "met": figure.met} for figure in outcome.figures],
        "notes": outcome.notes,
    }
    path.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def shown(cell: Cell) -> str:
    """Three digits that mean something."""
    if not isinstance(cell, float):
        return f"{cell:,}" if isinstance(cell, int) else cell
    if abs(cell) >= 100:
        return f"{cell:,.0f}"
    return f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"


def _table(rows: Sequence[Row]) -> str:
    """Columns as wide as they need to be; text to the left, numbers to the right."""
    columns = list(rows[0])
    lines = [columns, *([shown(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    is_text = [isinstance(rows[0][column], str) for column in columns]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(line, widths, is_text, strict=True)
        ).rstrip()
        for line in lines
    )
