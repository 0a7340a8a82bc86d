"""Plain text tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from watchdog.sanitize import escape_unprintable


def format_table(head: Sequence[str], rows: Sequence[Sequence[object]], max_characters: int = 40) -> str:
    """Return a table with aligned columns: numbers right, text left with unprintable characters escaped.

    Texts are cut at `max_characters`.
    """
    cells = [[_format_cell(value, max_characters) for value in row] for row in rows]
    widths = [max([len(title), *(len(row[column]) for row in cells)]) for column, title in enumerate(head)]
    right = [
        bool(rows) and all(row[column] is None or isinstance(row[column], int | float) for row in rows)
        for column in range(len(head))
    ]
    lines = [_format_line(head, widths, right), *(_format_line(row, widths, right) for row in cells)]
    return "\n".join(lines)


def _format_line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    aligned = (
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    )
    return "  ".join(aligned).rstrip()


def _format_cell(value: object, max_characters: int) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    return str(value) if isinstance(value, int) else escape_unprintable(str(value), max_characters)
