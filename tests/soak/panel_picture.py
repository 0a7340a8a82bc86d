"""Draws the panels of the dashboard from the answers of a Prometheus, as one SVG: Grafana itself is not needed."""

from __future__ import annotations

import html
import math
from itertools import pairwise

from prometheus_server import filled_in, panels_and_rows

COLUMN, ROW, GAP = 50, 17, 4  # pixels
POINTS, MAX_LINES, MAX_ROWS = 60, 6, 8
COLOURS = ("#3274d9", "#e0752d", "#299c46", "#a352cc", "#c4162a", "#8a8a20")
WINDOW = "15s"
_LEFT_OUT = ("__name__", "job", "kernel")  # of tables
UNITS = {"bytes": "B", "Bps": "B/s", "cps": "/s", "s": "s"}


class PanelPicture:
    """The panels over one period; `begin`, `end`: Unix time. `hidden`: text that is left out of legends."""

    def __init__(self, server, begin, end):
        self._server = server
        self._begin, self._end = begin, end
        self._step = (end - begin) / POINTS

    def draw(self):
        """Return the SVG."""
        drawn, bottom = [], 0
        for panel in panels_and_rows():
            at = panel["gridPos"]
            x, y, width, height = at["x"] * COLUMN, at["y"] * ROW, at["w"] * COLUMN - GAP, at["h"] * ROW - GAP
            bottom = max(bottom, y + height)
            if panel["type"] == "row":
                title = html.escape(panel["title"].replace("$process in $unit", "all"))
                drawn.append(f'<text x="{x + 6}" y="{y + 12}" font-size="12" font-weight="bold">{title}</text>')
                continue
            kind = {"timeseries": self._lines, "stat": self._number, "heatmap": self._cells, "table": self._rows}
            inside = kind[panel["type"]](panel, width, height)
            title = html.escape(panel["title"])
            drawn.append(
                f'<g transform="translate({x} {y})"><rect width="{width}" height="{height}" fill="#fff" stroke="#ddd"/>'
                f'<text x="6" y="13" font-weight="bold">{title}</text>{inside}</g>'
            )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {24 * COLUMN} {bottom + GAP}" font-size="9" '
            f'font-family="sans-serif"><title>Panels of the dashboard, over {self._end - self._begin:.0f} s</title>'
            f'<rect width="{24 * COLUMN}" height="{bottom + GAP}" fill="#f4f5f5"/>\n{chr(10).join(drawn)}\n</svg>\n'
        )

    def _series(self, target):
        """Return (legend, [(share of the period, value)]) of each series of a query."""
        answer = self._server.ask(
            "query_range",
            query=filled_in(target["expr"], WINDOW),
            start=f"{self._begin:.3f}",
            end=f"{self._end:.3f}",
            step=f"{self._step:.3f}",
        )
        for series in answer["result"]:
            legend = target.get("legendFormat", "")
            for label, value in series["metric"].items():
                legend = legend.replace(f"{{{{{label}}}}}", value)
            values = [((at - self._begin) / (self._end - self._begin), float(text)) for at, text in series["values"]]
            yield (
                legend.split("{{", maxsplit=1)[0].strip(),
                [(at, value) for at, value in values if math.isfinite(value)],
            )

    def _lines(self, panel, width, height):
        found = [series for target in panel["targets"] for series in self._series(target) if series[1]]
        found.sort(key=lambda series: -max(value for _, value in series[1]))
        top = max((value for _, values in found for _, value in values), default=0) or 1
        unit = panel["fieldConfig"]["defaults"].get("unit", "short")
        left, upper, lower = 6, 24, height - 16
        parts = [f'<text x="{width - 6}" y="13" text-anchor="end" fill="#777">{readable(top, unit)}</text>']
        parts.append(f'<path d="M{left} {lower}H{width - 6}M{left} {upper}H{width - 6}" stroke="#e5e5e5"/>')
        legend = []
        room = width / 5  # characters
        for (name, values), colour in zip(found[:MAX_LINES], COLOURS, strict=False):
            points = " ".join(
                f"{left + at * (width - 12):.0f},{lower - value / top * (lower - upper):.0f}" for at, value in values
            )
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
            room -= len(name) + 3
            if room > 0:
                legend.append(f'<tspan fill="{colour}">{html.escape(name)}</tspan>')
        more = "" if len(legend) == len(found) else " …"
        parts.append(f'<text x="{left}" y="{height - 4}">{" · ".join(legend)}{more}</text>')
        return "".join(parts)

    def _number(self, panel, width, height):
        found = [series for target in panel["targets"] for series in self._series(target) if series[1]]
        text = (
            readable(found[0][1][-1][1], panel["fieldConfig"]["defaults"].get("unit", "short")) if found else "no data"
        )
        return f'<text x="{width / 2:.0f}" y="{height / 2 + 14:.0f}" font-size="20" text-anchor="middle">{text}</text>'

    def _cells(self, panel, width, height):
        by_edge = sorted(
            ((float(legend), dict(values)) for legend, values in self._series(panel["targets"][0])),
            key=lambda one: one[0],
        )
        cells = [
            (number, at, value - below.get(at, 0.0))
            for number, ((_, below), (_, values)) in enumerate(pairwise([(0.0, {}), *by_edge]))
            for at, value in values.items()
        ]
        top = max((value for _, _, value in cells), default=0) or 1
        tall, wide, bottom = (height - 24) / max(len(by_edge), 1), (width - 12) / POINTS, height - 4
        return "".join(
            f'<rect x="{6 + at * (width - 12 - wide):.0f}" y="{bottom - (number + 1) * tall:.1f}" width="{wide:.1f}" '
            f'height="{tall:.1f}" fill="#e0752d" opacity="{math.sqrt(value / top):.2f}"/>'
            for number, at, value in cells
            if value > top / 400
        )

    def _rows(self, panel, width, height):
        rows = {}
        for number, target in enumerate(panel["targets"]):
            for sample in self._server.query(filled_in(target["expr"], f"{self._end - self._begin:.0f}s")):
                labels = " ".join(value for name, value in sample["metric"].items() if name not in _LEFT_OUT)
                rows.setdefault(labels, {})[number] = float(sample["value"][1])
        order = sorted(rows.items(), key=lambda row: -row[1].get(0, 0.0))[:MAX_ROWS]
        units = [override["properties"][0]["value"] for override in panel["fieldConfig"]["overrides"]]
        heads = [override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]]
        place = [width * (0.35 + 0.65 * (number + 1) / len(units)) - 6 for number in range(len(units))]
        lines = [("", [f"{head}" for head in heads])]
        lines += [
            (labels, [readable(values[at], unit) if at in values else "" for at, unit in enumerate(units)])
            for labels, values in order
        ]
        return "".join(
            f'<text x="6" y="{30 + 15 * line}">{html.escape(labels)}</text>'
            + "".join(
                f'<text x="{x:.0f}" y="{30 + 15 * line}" text-anchor="end">{html.escape(text)}</text>'
                for x, text in zip(place, texts, strict=True)
            )
            for line, (labels, texts) in enumerate(lines)
            if 30 + 15 * line < height
        )


def readable(value, unit):
    """Return a value with its unit: "1.2 MB/s"."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ")):
        if abs(value) >= factor and (unit == "s" or factor >= 1) and not (unit == "s" and factor > 1):
            return f"{value / factor:.3g} {prefix}{UNITS.get(unit, '')}".strip()
    return f"{value:.3g} {UNITS.get(unit, '')}".strip()
