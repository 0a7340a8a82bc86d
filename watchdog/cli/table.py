"""Plain text tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from watchdog.sanitize import escape_unprintable

_MAX_CHARACTERS = 40


def format_table(head: Sequence[str], rows: Sequence[Sequence[object]], max_characters: int = _MAX_CHARACTERS) -> str:
    """Return a table as `table_lines`."""
    return "\n".join(table_lines(head, rows, max_characters))


def table_lines(
    head: Sequence[str], rows: Iterable[Sequence[object]], max_characters: int = _MAX_CHARACTERS
) -> Iterator[str]:
    """Yield the lines of a table with aligned columns: numbers right, text left with unprintable characters escaped.

    Texts are cut at `max_characters`. `rows` is read twice, and not kept in memory.
    """
    widths, right, empty = [len(title) for title in head], [True] * len(head), True
    for row in rows:
        empty = False
        for column, value in enumerate(row):
            widths[column] = max(widths[column], len(format_cell(value, max_characters)))
            right[column] &= value is None or isinstance(value, int | float)
    right = [to_right and not empty for to_right in right]
    yield format_line(head, widths, right)
    for row in rows:
        yield format_line([format_cell(value, max_characters) for value in row], widths, right)


def format_line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    """Return one line of a table; `right`: whether the column is aligned to the right."""
    aligned = (
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    )
    return "  ".join(aligned).rstrip()


def format_cell(value: object, max_characters: int | None = None) -> str:
    """Return the text of a cell, "-" for an empty one, with unprintable characters escaped."""
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    return str(value) if isinstance(value, int) else escape_unprintable(str(value), max_characters)
