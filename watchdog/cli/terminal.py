"""The terminal that output goes to: its width, whether it takes colours, and tables that fit it."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence

from watchdog.cli.table import format_cell, format_line
from watchdog.clock import SECOND_NS
from watchdog.config.durations import format_duration
from watchdog.sanitize import escape_unprintable

SEVERITY_COLOURS: Mapping[str, str] = {"critical": "31", "warning": "33"}
"""Colour codes of ECMA-48 SGR by severity: red and yellow."""

_MIN_CELL = 13  # characters to which a column of texts is cut at most: less is not readable
_MAX_PLAIN_SECONDS = 121  # "90s" and "120s", as people write them
_TIME = "(UTC)"  # end of the heads of columns of times
_FILE = "FILE"  # head of columns of files with lines, whose ends identify them
_SEPARATOR = 2  # characters between two columns


def age_text(seconds: float) -> str:
    """Return a time that has passed in its largest unit, as a column of a table: "4 s", "7 min", "2 h", "3 d"."""
    whole = max(0, round(seconds))
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if whole >= unit:
            return f"{whole // unit} {name}"
    return f"{whole} s"


def duration_text(seconds: float) -> str:
    """Return a length of time as rules have it: "0.5s", "60s", "1d"; above two minutes in whole seconds."""
    if seconds < _MAX_PLAIN_SECONDS:
        return f"{round(seconds, 1):g}s"
    return format_duration(round(seconds) * SECOND_NS)


def output_width() -> int | None:
    """Return the columns of the terminal, or of COLUMNS if that is set; None for a pipe or file: nothing is cut."""
    if os.environ.get("COLUMNS", "").isdecimal() or sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    return None


def paint(text: str, colour: str | None) -> str:
    """Return `text` in a colour, on a terminal that takes colours; NO_COLOR (no-color.org) switches them off."""
    if not colour or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty():
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


def print_facts(facts: Iterable[tuple[str, str]], name_width: int, commands: Collection[str] = ()) -> None:
    """Print a line per fact: its name, then its text, which goes on below itself where the terminal ends.

    Unprintable characters are escaped. A word that is longer than a line stays whole, and the texts of `commands` do:
    they are copied.
    """
    for name, text in facts:
        if name in commands:
            print(f"{name:<{name_width}} {escape_unprintable(text)}")
        else:
            print_wrapped(f"{name:<{name_width}} ", text)


def print_wrapped(head: str, text: str, indent: int | None = None) -> None:
    """Print `head` and `text`, which goes on in lines with `indent` spaces where the terminal ends; None: below itself.

    As `print_facts`: unprintable characters are escaped, and a word that is longer than a line stays whole. A pipe gets
    one line.
    """
    indent = len(head) if indent is None else indent
    print("\n".join(wrapped_lines(head, text, " " * indent)), flush=True)


def wrapped_lines(head: str, text: str, indent: str) -> list[str]:
    """Return the lines of `print_wrapped`."""
    width, whole = output_width(), head + escape_unprintable(text)
    if width is None or len(whole) <= width:
        return [whole.rstrip()]
    lines = textwrap.wrap(
        whole[len(head) :],
        max(width, len(indent) + _MIN_CELL, len(head) + _MIN_CELL),
        initial_indent=" " * len(head),  # replaced below: the spaces of the head stay as they are
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [head + lines[0][len(head) :], *lines[1:]]


def print_table(
    head: Sequence[str], rows: Sequence[Sequence[object]], colours: Sequence[str | None] | None = None
) -> None:
    """Print a table that fits `output_width`; `colours`: of each row."""
    lines = fitted_table(head, rows, output_width())
    for number, line in enumerate(lines):
        print(paint(line, colours[number - 1] if number and colours is not None else None))


def fitted_table(head: Sequence[str], rows: Sequence[Sequence[object]], width: int | None) -> list[str]:
    """Return the lines of a table, one per row, of at most `width` characters; None: as wide as it is.

    Cells of the widest columns are cut, files at their start, never those of the first column or of times; where that
    is not enough, the last columns are left out.
    """
    cells = [[format_cell(cell) for cell in row] for row in rows]
    columns = range(len(head))
    right = [all(row[column] is None or isinstance(row[column], int | float) for row in rows) for column in columns]
    widths = [max([len(head[column]), *(len(row[column]) for row in cells)]) for column in columns]
    if width is not None:
        whole = {0, *(column for column in columns if head[column].endswith(_TIME))}
        widths = _limits(widths, width, whole)
    lines = []
    for row in [list(head), *cells]:
        shown = [_cut(cell, limit, name) for cell, limit, name in zip(row, widths, head, strict=False)]
        lines.append(format_line(shown, widths, right[: len(widths)])[:width])
    return lines


def _limits(widths: Sequence[int], width: int, whole: Collection[int]) -> list[int]:
    """Return the widths of the columns that are shown: the widest ones cut, and the last ones left out.

    `whole`: numbers of the columns that are not cut.
    """
    limits = list(widths)
    least = [limit if column in whole else min(limit, _MIN_CELL) for column, limit in enumerate(limits)]
    while len(limits) > 1 and _line_width(least[: len(limits)]) > width:
        limits.pop()
    while _line_width(limits) > width:
        excess = [limit - least[column] for column, limit in enumerate(limits)]
        if max(excess) <= 0:
            break
        widest = max((column for column in range(len(limits)) if excess[column] > 0), key=limits.__getitem__)
        limits[widest] -= 1
    return limits


def _line_width(widths: Sequence[int]) -> int:
    return sum(widths) + _SEPARATOR * (len(widths) - 1)


def _cut(text: str, limit: int, head: str) -> str:
    if len(text) <= limit:
        return text
    return "…" + text[1 - limit :] if head == _FILE else text[: limit - 1] + "…"
