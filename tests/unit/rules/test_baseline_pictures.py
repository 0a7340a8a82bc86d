"""The pictures of docs/anomalies.md are those that the present code draws: tests/bench/draw_baseline.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_pictures_are_those_of_the_present_code():
    spec = importlib.util.spec_from_file_location("draw_baseline", ROOT / "tests" / "bench" / "draw_baseline.py")
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    drawn = {f"baseline-{name}.svg": svg for name, svg in drawing.pictures().items()}
    assert drawn == {path.name: path.read_text() for path in (ROOT / "docs" / "images").glob("baseline-*.svg")}
    page = (ROOT / "docs" / "anomalies.md").read_text()
    assert all(f"images/{name}" in page for name in drawn)
