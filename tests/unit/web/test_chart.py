"""Charts: every part within the frame, in the order of the values."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from status_views import WALL, make_series

from watchdog.web.chart import describe_series, draw_chart
from watchdog.web.chart_history import POINTS

VALUES = st.one_of(st.none(), st.floats(-(2.0**40), 2.0**50, width=32))


def parts(svg, kind):
    """Return the points of each element of a class."""
    found = re.findall(rf'<poly\w+ class="{kind}" points="([^"]*)"', svg.html)
    return [[tuple(map(float, pair.split(","))) for pair in points.split()] for points in found]


def draw(series):
    return draw_chart(series, "storm", 0, "rate")


@given(st.lists(VALUES, min_size=1, max_size=POINTS), st.booleans(), st.floats(-1e9, 1e9, width=32))
def test_everything_is_within_the_frame(values, above, limit):
    if all(one is None for one in values):
        return
    svg = draw(make_series(values, limit, 2 * limit, limit / 2, above=above))
    shown = [
        point
        for kind in ("value", "limit warning", "limit critical", "band", "mark")
        for one in parts(svg, kind)
        for point in one
    ]
    assert shown
    assert all(-3 <= x <= 363 and 0 <= y <= 100 for x, y in shown)
    assert "nan" not in svg.html


def test_a_gap_divides_the_line():
    svg = draw(make_series([1.0] * 30 + [None] * 30 + [2.0] * 30))
    first, second = parts(svg, "value")
    assert first[-1][0] < second[0][0]
    assert second[0][1] < first[0][1], "the greater value is higher"
    assert second[-1][0] == 360


def test_one_value_is_a_line_too():
    [line] = parts(draw(make_series([5.0])), "value")
    assert len(line) == 2
    assert line[0][1] == line[1][1]


@pytest.mark.parametrize(("above", "peak", "limit"), [(True, 50.0, 20.0), (False, 1.0, 5.0)])
def test_a_value_beyond_the_limit_has_a_mark_and_words(above, peak, limit):
    values = [10.0] * 60 + [peak] + [10.0] * 29
    series = make_series(values, limit, above=above)
    assert len(parts(draw(series), "mark")) == 1
    words = describe_series(series, "rate", WALL)
    assert f"{'highest' if above else 'lowest'} {peak:g}/s at 14:52 UTC" in words
    assert "beyond a limit in 1 half minute" in words
    assert not parts(draw(make_series(values, math.nan)), "mark")


def test_the_band_of_a_baseline_lies_between_usual_and_limit():
    svg = draw(make_series([3.0] * 30, 10.0, 20.0, 4.0))
    [band], [warning] = parts(svg, "band"), parts(svg, "limit warning")
    assert min(y for _, y in band) == warning[0][1]
    assert "usual 4/s" in describe_series(make_series([3.0], 10.0, 20.0, 4.0), "rate", WALL)
