"""Write bpf-watchdog.json, the dashboard for Grafana, from this description: dashboard.py (or `make dashboard`).

Needs the development tools (`make setup-dev`). The tests run each query against a real Prometheus.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    Panel,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

sys.path.insert(0, str(Path(__file__).parent))

from panels import SOURCE
from rows import HOST, ROWS

FILE = Path(__file__).with_name("bpf-watchdog.json")


def variables() -> list[Builder[VariableModel]]:
    """Return the variables: data source, job, host, unit, process."""
    found: list[Builder[VariableModel]] = [
        dashboard.DatasourceVariable("datasource").label("data source").type("prometheus")
    ]
    for name, label, source, everything in (
        ("job", "job", "bpf_watchdog_build_info", None),  # all others have `up` and `process_…` too
        ("instance", "host", 'bpf_watchdog_build_info{job=~"$job"}', None),
        ("unit", "unit", f"bpf_watchdog_tcp_connects_total{{{HOST}}}", ".*"),
        ("process", "process", f'bpf_watchdog_tcp_connects_total{{{HOST},unit=~"$unit"}}', ".*"),
    ):
        variable = (
            dashboard.QueryVariable(name)
            .label(label)
            .datasource(SOURCE)
            .query({"query": f"label_values({source}, {name})", "refId": name})
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .current(VariableOption(selected=True, text="All", value="$__all"))
        )
        found.append(variable.all_value(everything) if everything else variable)
    return found


def build() -> str:
    """Return the dashboard as JSON."""
    board = (
        dashboard.Dashboard("bpf-watchdog")
        .uid("bpf-watchdog")
        .description("Connections of hosts by process and unit, alerts, and the health of bpf-watchdog.")
        .tags(["bpf-watchdog", "network"])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .variables(variables())
    )
    for title, panels in ROWS:
        board = board.with_row(dashboard.Row(title))
        for panel in panels():
            board = board.with_panel(panel)
    built = board.build()
    for number_of, panel in enumerate(built.panels or (), start=1):
        panel.id_val = number_of
        if isinstance(panel, Panel) and panel.field_config.defaults.custom is None:
            panel.field_config.defaults.custom = {}  # as Grafana writes it
    return json.dumps(built, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(build(), encoding="utf-8")
