"""Tables of `sample`: they fit the terminal, and need no more memory when they have more rows."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from watchdog.cli.sample_columns import SampleColumn, SampleColumns
from watchdog.measure.ranked_rows import SampleRow

_SEPARATOR = "  "
_WIDE = frozenset({"W", "F"})  # East Asian Width, Unicode Standard Annex 11: two columns of a terminal


class SampleTables:
    """Consecutive tables with the same columns. Columns do not get narrower from one table to the next."""

    def __init__(self, columns: SampleColumns, width: int | None) -> None:
        """`width`: characters of a line at most; None: all columns, nothing is cut."""
        self._columns = columns
        self._width = width
        self._widths = [len(column.title) for column in columns.columns]

    def lines(self, rows: Iterable[SampleRow], seconds: float) -> Iterator[str]:
        """Yield the head and one line per row of a period of `seconds`. `rows` is read twice."""
        columns = self._columns.columns
        for row in rows:
            for index, column in enumerate(columns):
                self._widths[index] = max(self._widths[index], text_width(column.text(row, seconds)))
        limits = self._limits()
        shown = [(columns[index], limit) for index, limit in sorted(limits.items())]
        yield self._line(shown, [column.title for column, _ in shown])
        for row in rows:
            yield self._line(shown, [column.text(row, seconds) for column, _ in shown])

    def _limits(self) -> dict[int, int]:
        if self._width is None:
            return dict(enumerate(self._widths))
        columns = self._columns.columns
        return fit_columns(
            self._widths,
            [
                width if column.is_number else min(width, column.min_width)
                for width, column in zip(self._widths, columns, strict=True)
            ],
            self._columns.importance,
            self._width,
        )

    def _line(self, shown: Sequence[tuple[SampleColumn, int]], texts: Sequence[str]) -> str:
        cells = []
        for (column, limit), text in zip(shown, texts, strict=True):
            cut = cut_endpoint(text, limit) if column.is_endpoint else cut_text(text, limit)
            padding = " " * (limit - text_width(cut))
            cells.append(padding + cut if column.is_number else cut + padding)
        line = _SEPARATOR.join(cells).rstrip()
        return line if self._width is None else cut_text(line, self._width)


def fit_columns(widths: Sequence[int], least: Sequence[int], importance: Iterable[int], width: int) -> dict[int, int]:
    """Return the widths of the columns of a table of at most `width` characters, by index.

    `widths`, `least`: of each column, as wanted and at least. `importance`: indices. The least important columns are
    left out, then the widest ones are cut; the most important one is always there.
    """
    limits: dict[int, int] = {}
    for index in importance:
        limits[index] = least[index]
        if _line_width(limits.values()) > width and len(limits) > 1:
            del limits[index]
            break
    limits = {index: widths[index] for index in limits}
    while _line_width(limits.values()) > width:
        spare = {index: limit for index, limit in limits.items() if limit > least[index]}
        if not spare:
            break
        limits[max(spare, key=spare.__getitem__)] -= 1
    return limits


def text_width(text: str) -> int:
    """Return the columns of a terminal that printable `text` takes at most."""
    if text.isascii():
        return len(text)
    return sum(_character_width(character) for character in text)


def cut_text(text: str, limit: int) -> str:
    """Return `text` in at most `limit` columns of a terminal, "…" at its end if it is cut."""
    if text_width(text) <= limit:
        return text
    kept, width = [], 1
    for character in text:
        width += _character_width(character)
        if width > limit:
            break
        kept.append(character)
    return "".join(kept) + "…"


def _character_width(character: str) -> int:
    # Marks drawn over the character before count as one: terminals differ, and a line must not become too long.
    return 2 if unicodedata.east_asian_width(character) in _WIDE else 1


def cut_endpoint(text: str, limit: int) -> str:
    """Return an address and port in at most `limit` columns of a terminal: the address is cut."""
    address, colon, port = text.rpartition(":")
    if text_width(text) <= limit or not colon:
        return cut_text(text, limit)
    return cut_text(address, max(2, limit - len(colon + port))) + colon + port


def _line_width(widths: Iterable[int]) -> int:
    widths = list(widths)
    return sum(widths) + len(_SEPARATOR) * (len(widths) - 1)
