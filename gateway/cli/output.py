"""What commands print: a table for people, JSON for scripts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, empty: str) -> None:
    """Print rows under column titles; numbers stand right. `empty` is said when there are none."""
    if not rows:
        print(empty)
        return
    cells = [[cell_text(row.get(column)) for column in columns] for row in rows]
    right = [is_number_column([line[index] for line in cells]) for index in range(len(columns))]
    titles = [column.replace("_", " ") for column in columns]
    widths = [max(len(line[index]) for line in [titles, *cells]) for index in range(len(columns))]
    for line in [titles, *cells]:
        aligned = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ]
        print("  ".join(aligned).rstrip())


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print one thing: a name and its value a line; values that are not there are left out."""
    shown = {name.replace("_", " "): value for name, value in fields.items() if value not in (None, "", [])}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        print(f"{name:<{width}}  {cell_text(value)}")


def cell_text(value: object) -> str:
    """One value on one line; control characters of a name typed by someone else never reach the terminal."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(cell_text(item) for item in value)
    return "".join(character if character.isprintable() else "�" for character in str(value))


def is_number_column(texts: Sequence[str]) -> bool:
    values = [text for text in texts if text != "-"]
    return bool(values) and all(text.removeprefix("-").replace(".", "", 1).isdecimal() for text in values)
