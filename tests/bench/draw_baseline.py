"""Draw the pictures of docs/anomalies.md: draw_baseline.py [FOLDER], by default docs/images.

Each shows the highest value of each hour of one simulated process, and the limit that the daemon's code learnt.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from watchdog.rules.engine.baseline_columns import BaselineColumns

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 200, 44, 22, 24
FLOOR = 30.0


def usual(hours, random, level=40.0):
    """Return the highest value of each hour of a service: busy by day, quiet at night."""
    hour = np.arange(hours) % 24
    rhythm = 0.25 + 0.75 * (0.5 - 0.5 * np.cos((hour - 3) / 24 * 2 * np.pi))
    return random.poisson(level * rhythm * np.exp(random.normal(0, 0.15, hours))).astype(np.float32)


def limits_of(values):
    """Return the limit of warning in force in each hour, infinite while it learns."""
    columns = BaselineColumns(FLOOR, (720.0,))
    columns.add(1)
    found = np.full(len(values), np.inf)
    for hour, value in enumerate(values):
        found[hour] = columns.limit[0]
        columns.tick(np.array([value], np.float32))
        columns.close(slice(0, 1), columns.end_hour(), hour)
        columns.set_limits(slice(0, 1), hour + 1)
    return found


def picture(title, values, first, marks):
    """Return an SVG of the hours from `first` on; `marks`: texts by hour."""
    limits = limits_of(values)[first:]
    shown = values[first:]
    top = 1.15 * max(shown.max(), limits[np.isfinite(limits)].max())
    scale = (WIDTH - LEFT - 8) / len(shown)

    def x(hour):
        return f"{LEFT + hour * scale:.0f}"

    def y(value):
        return f"{TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(value, top) / top):.0f}"

    bars = "".join(f"M{x(i + 0.5)} {y(0)}V{y(value)}" for i, value in enumerate(shown) if value)
    line = "".join(
        f"{'M' if i == 0 or np.isinf(limits[i - 1]) else 'L'}{x(i)} {y(limit)}H{x(i + 1)}"
        for i, limit in enumerate(limits)
        if np.isfinite(limit)
    )
    fired = "".join(
        f'<circle cx="{x(i + 0.5)}" cy="{y(value)}" r="3"/>'
        for i, (value, limit) in enumerate(zip(shown, limits, strict=True))
        if value > limit
    )
    days = "".join(
        f'<text x="{x(hour)}" y="{HEIGHT - 8}">day {(first + hour) // 24 + 1}</text>'
        for hour in range(0, len(shown), 24)
    )
    ticks = "".join(f'<text x="4" y="{y(value)}">{value:.0f}</text>' for value in (0, top / 2, top))
    notes = "".join(f'<text x="{x(hour - first)}" y="{TOP - 6}">{text}</text>' for hour, text in marks.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="11"><title>{title}</title><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<path d="{bars}" stroke="#9ab" stroke-width="{0.7 * scale:.1f}"/>'
        f'<path d="{line}" fill="none" stroke="#c60" stroke-width="1.5"/><g fill="#c00">{fired}</g>'
        f'<g fill="#333">{days}{ticks}{notes}</g></svg>\n'
    )


def pictures():
    """Return the SVG of each picture, by name."""
    random = np.random.default_rng(5)
    storm, deploy, growth = (usual(hours, random) for hours in (24 * 9, 24 * 10, 24 * 16))
    storm[24 * 7 + 3] = 90
    deploy[24 * 6 + 10 :] = usual(24 * 10, random, 400.0)[24 * 6 + 10 :]
    growth *= np.float32(1.12) ** np.maximum(np.arange(len(growth)) / 24 - 5, 0).astype(np.float32)
    return {
        "storm": picture(
            "A storm at night", storm, 24 * 4, {24 * 7 - 20: "03:00: above all that this hour lately had"}
        ),
        "deploy": picture("A new normal", deploy, 24 * 4, {24 * 6 + 4: "a deploy: reported once, adopted after a day"}),
        "growth": picture("Slow growth", growth, 24 * 4, {24 * 6: "12 % more each day: learnt, not reported"}),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs" / "images")
    folder.mkdir(parents=True, exist_ok=True)
    for name, svg in pictures().items():
        (folder / f"baseline-{name}.svg").write_text(svg)
