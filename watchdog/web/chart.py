"""The chart of one rule as SVG: its worst value against its limits, and the band of its baseline."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watchdog.config.counts import format_count
from watchdog.rules.language.formats import FORMATS
from watchdog.web.chart_history import POINT_SECONDS, POINTS, ChartSeries
from watchdog.web.markup import Markup, element

_WIDTH, _HEIGHT = 360, 100
_TOP, _BOTTOM = 14, 16  # for text
_JOINED = 3  # points per drawn column: 120 columns
_HEADROOM = 1.08
_HOUR_SECONDS: Final = 3_600
_MARK = 3  # half the width of the mark of a column beyond a limit

Numbers = NDArray[np.float32]


def draw_chart(series: ChartSeries, rule_id: str, number: int, format_name: str) -> Markup:
    """Return the chart of `series`; `number`: unique on the page. `describe_series` has it in words."""
    scale = _Scale(series)
    title = f"chart-{number}"
    return element(
        "svg",
        element("title", f"{rule_id}: worst value of the last {_span_text()}", id=title),
        *_grid(scale),
        _band(scale, series),
        *_lines("limit warning", scale.columns(series.warning), scale),
        *_lines("limit critical", scale.columns(series.critical), scale),
        *_lines("value", scale.columns(series.values), scale),
        *_marks(series, scale),
        element("text", FORMATS[format_name](scale.top), x=0, y=_TOP - 4),
        element("text", f"{_span_text()} ago", x=0, y=_HEIGHT - 4),
        element("text", "now", x=_WIDTH, y=_HEIGHT - 4, class_="end"),
        class_="chart",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_labelledby=title,
    )


def describe_series(series: ChartSeries, format_name: str, wall: float) -> str:
    """Return the chart in words: newest and worst value with its time, the limits, the time beyond them."""
    write = FORMATS[format_name]
    known = np.flatnonzero(~np.isnan(series.values))
    if not len(known):
        return "No value yet."
    worst = int(known[series.values[known].argmax() if series.above else series.values[known].argmin()])
    at = dt.datetime.fromtimestamp(wall - (POINTS - 1 - worst) * POINT_SECONDS, tz=dt.UTC)
    newest = float(series.values[known[-1]])
    extreme = "highest" if series.above else "lowest"
    parts = [f"newest {write(newest)}", f"{extreme} {write(float(series.values[worst]))} at {at:%H:%M} UTC"]
    for severity, limits in (("warning", series.warning), ("critical", series.critical)):
        limit = float(limits[known[-1]])
        if math.isfinite(limit):
            parts.append(f"{severity} {'above' if series.above else 'below'} {write(limit)}")
    usual = float(series.usual[known[-1]])
    if math.isfinite(usual):
        parts.append(f"usual {write(usual)}")
    if beyond := int(_is_beyond(series).sum()):
        parts.append(f"beyond a limit in {format_count(beyond, 'half minute')}")
    return "; ".join(parts) + "."


def _is_beyond(series: ChartSeries) -> NDArray[np.bool_]:
    """Return, (POINTS,), whether the value is beyond a limit."""
    limits = (series.warning, series.critical)
    beyond = [series.values > one if series.above else series.values < one for one in limits]
    return np.asarray(beyond[0] | beyond[1])


class _Scale:
    # From numbers to the coordinates of the chart; the vertical one begins at zero, or below where values do.

    def __init__(self, series: ChartSeries) -> None:
        self._above = series.above
        drawn = np.concatenate([series.values, series.warning, series.critical, series.usual])
        drawn = drawn[np.isfinite(drawn)].astype(np.float64)
        self._low = min(0.0, float(drawn.min())) if len(drawn) else 0.0
        top = max(0.0, float(drawn.max())) if len(drawn) else 0.0
        self.top = top if top > self._low else self._low + 1.0

    def columns(self, points: Numbers) -> Numbers:
        """Return the worst of each `_JOINED` points, NaN where all are."""
        joined = points.reshape(-1, _JOINED)
        worst = np.fmax.reduce(joined, axis=1) if self._above else np.fmin.reduce(joined, axis=1)
        return np.asarray(worst)

    def x(self, column: float) -> str:
        return f"{(column + 1) * _JOINED / POINTS * _WIDTH:.1f}"

    def y(self, value: float) -> str:
        share = (value - self._low) / ((self.top - self._low) * _HEADROOM)
        return f"{_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM):.1f}"

    def points(self, values: Iterable[tuple[int, float]]) -> str:
        return " ".join(f"{self.x(column)},{self.y(value)}" for column, value in values)


def _runs(columns: Numbers) -> Iterator[list[tuple[int, float]]]:
    """Yield (column, value) of each run of columns without a gap."""
    run: list[tuple[int, float]] = []
    for column, value in enumerate(columns.tolist()):
        if math.isfinite(value):
            run.append((column, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _lines(kind: str, columns: Numbers, scale: _Scale) -> Iterator[Markup]:
    for run in _runs(columns):
        first = [(run[0][0] - 1, run[0][1])] if len(run) == 1 else []  # one point alone is a line of one column
        yield element("polyline", class_=kind, points=scale.points([*first, *run]))


def _band(scale: _Scale, series: ChartSeries) -> Markup | None:
    """Return the area between the usual value and the nearest limit that the baseline has learnt."""
    usual = scale.columns(series.usual)
    nearest = np.fmin if series.above else np.fmax
    limits = scale.columns(nearest(series.warning, series.critical))
    both = np.isfinite(usual) & np.isfinite(limits)
    if not both.any():
        return None
    areas = []
    for run in _runs(np.where(both, usual, np.nan).astype(np.float32)):
        edge = [(column, float(limits[column])) for column, _ in reversed(run)]
        areas.append(element("polygon", class_="band", points=scale.points([*run, *edge])))
    return element("g", *areas)


def _marks(series: ChartSeries, scale: _Scale) -> Iterator[Markup]:
    """Yield a triangle above each column with a value beyond a limit: a sign beside the colour."""
    beyond = _is_beyond(series).reshape(-1, _JOINED).any(axis=1)
    for column in np.flatnonzero(beyond).tolist():
        x = float(scale.x(column))
        points = f"{x - _MARK:.1f},{_TOP - 6} {x + _MARK:.1f},{_TOP - 6} {x:.1f},{_TOP - 1}"
        yield element("polygon", class_="mark", points=points)


def _grid(scale: _Scale) -> Iterator[Markup]:
    base = scale.y(0.0)
    yield element("line", class_="axis", x1=0, x2=_WIDTH, y1=base, y2=base)
    for hours in range(1, math.ceil(POINTS * POINT_SECONDS / _HOUR_SECONDS)):
        x = _WIDTH - hours * _HOUR_SECONDS / POINT_SECONDS / POINTS * _WIDTH
        yield element("line", class_="axis", x1=x, x2=x, y1=_TOP, y2=_HEIGHT - _BOTTOM)


def _span_text() -> str:
    return f"{POINTS * POINT_SECONDS / _HOUR_SECONDS:g} h"
