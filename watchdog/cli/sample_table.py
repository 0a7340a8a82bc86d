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
        # Widths of the columns to show, by index: the least important ones are left out, then texts are cut.
        if self._width is None:
            return dict(enumerate(self._widths))
        columns, limits = self._columns.columns, dict[int, int]()
        least: dict[int, int] = {}
        for index in self._columns.importance:
            width = self._widths[index]
            least[index] = width if columns[index].is_number else min(width, columns[index].min_width)
            if limits and _line_width(least.values()) > self._width:
                del least[index]
                break
            limits[index] = width
        while _line_width(limits.values()) > self._width:
            spare = {index: limit for index, limit in limits.items() if limit > least[index]}
            if not spare:
                break
            limits[max(spare, key=spare.__getitem__)] -= 1
        return limits

    def _line(self, shown: Sequence[tuple[SampleColumn, int]], texts: Sequence[str]) -> str:
        cells = []
        for (column, limit), text in zip(shown, texts, strict=True):
            cut = _cut_endpoint(text, limit) if column.is_endpoint else cut_text(text, limit)
            padding = " " * (limit - text_width(cut))
            cells.append(padding + cut if column.is_number else cut + padding)
        line = _SEPARATOR.join(cells).rstrip()
        return line if self._width is None else cut_text(line, self._width)


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


def _cut_endpoint(text: str, limit: int) -> str:
    address, colon, port = text.rpartition(":")
    if text_width(text) <= limit or not colon:
        return cut_text(text, limit)
    return cut_text(address, max(2, limit - len(colon + port))) + colon + port


def _line_width(widths: Iterable[int]) -> int:
    widths = list(widths)
    return sum(widths) + len(_SEPARATOR) * (len(widths) - 1)
