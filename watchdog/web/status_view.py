"""The content of the status page at one moment, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.control.alert_handlers import AlertDetail
from watchdog.control.rule_handlers import RuleStatus
from watchdog.control.status_handlers import DaemonStatus
from watchdog.web.busiest_traffic import TrafficRanking
from watchdog.web.chart_history import ChartSeries


@dataclass(frozen=True, slots=True)
class ShownRule:
    """One rule; `format`: that of its values, by name; `series`: None without a chart."""

    status: RuleStatus
    format: str
    series: ChartSeries | None


@dataclass(frozen=True, slots=True)
class ShownSilence:
    """One silence or acknowledgement: its matchers in words, end in wall-clock seconds (None: without an end).

    `alerts`: number of alerts that it suppresses now.
    """

    id: str
    kind: str
    matchers: str
    author: str
    comment: str
    ends: float | None
    alerts: int
    withheld: int


@dataclass(frozen=True, slots=True)
class StatusView:
    """The content of the page.

    `wall`: wall-clock seconds. `alerts`: the worst ones, with evidence; `more_alerts`: number of the others, which
    are pending or firing. `silences`: the oldest ones; `more_silences`: number of the others.
    """

    wall: float
    status: DaemonStatus
    alerts: tuple[AlertDetail, ...]
    more_alerts: int
    rules: tuple[ShownRule, ...]
    ranking: TrafficRanking | None
    silences: tuple[ShownSilence, ...]
    more_silences: int
