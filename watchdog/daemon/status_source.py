"""The source of the status page: the history of its charts, and the answers of the commands as one view.

Imported only where `[web]` serves the page.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from watchdog.alerts.wording import value_format
from watchdog.clock import SECOND_NS, Clock, Now
from watchdog.control.alert_handlers import AlertDetail
from watchdog.daemon.control_api import ControlApi
from watchdog.daemon.pipeline import Pipeline
from watchdog.daemon.rule_states import RuleStates
from watchdog.routing.silencing import Silence
from watchdog.rules.engine.engine import Verdict
from watchdog.rules.language.condition_text import matchers_text, patterns_of
from watchdog.rules.language.rule import OVERFLOW_LABELS, Rule, Severity
from watchdog.thread_edge import ThreadEdge
from watchdog.web.busiest_traffic import BusiestTraffic
from watchdog.web.chart_history import MAX_CHARTS, ChartHistory, ChartSeries, RuleReading
from watchdog.web.status_view import ShownRule, ShownSilence, StatusView

SAMPLE_SECONDS: Final = 10.0
"""Interval of the readings of all rules; each tick adds the values of pending and firing alerts."""

MAX_ALERTS: Final = 50
"""Alerts shown, the worst ones."""
MAX_SILENCES_SHOWN: Final = 100

_STOP_SECONDS = 1.0
_SHORT_FINGERPRINT = 8


class StatusSource:
    """Collects from `start` until `stop`. `shows_commands`: whether evidence keeps its command lines."""

    def __init__(self, pipeline: Pipeline, api: ControlApi, clock: Clock, *, shows_commands: bool) -> None:
        """Read `pipeline` and the answers of `api`."""
        self._pipeline = pipeline
        self._api = api
        self._clock = clock
        self._shows_commands = shows_commands
        self._alerts = api.alerts
        self._rules = RuleStates(pipeline, clock)
        self._history = ChartHistory()
        self._peaks: dict[str, RuleReading] = {}  # of the ticks since the newest sample, by rule; under the tick lock
        self.traffic = BusiestTraffic()
        """To be given each snapshot."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="page-history", daemon=True)

    def start(self) -> None:
        """Start the thread that reads the rules."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)

    def add_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Note the worst value of each rule in a tick: a peak between two samples is in the chart too."""
        for verdict in verdicts:
            if verdict.breached is None or verdict.labels == OVERFLOW_LABELS or not math.isfinite(verdict.value):
                continue
            rule, known = verdict.rule, self._peaks.get(verdict.rule.id)
            is_above = rule.thresholds.above
            if known is None or (verdict.value > known.value if is_above else verdict.value < known.value):
                facts = verdict.facts
                limits, usual = (rule.thresholds.fire, None) if facts is None else (facts.limits, facts.usual)
                self._peaks[rule.id] = _reading(verdict.value, limits, usual)

    def sample(self) -> None:
        """Read the worst group of each rule; a tick waits for one rule at most."""
        with self._pipeline.view() as view:
            rules = view.engine.rules[:MAX_CHARTS]
            peaks, self._peaks = self._peaks, {}
        self._history.retain_only({rule.id for rule in rules})
        for rule in rules:
            inspected, _ = self._rules.inspect(rule)
            if inspected is not None and inspected.worst is not None:
                self._add(rule, _reading(inspected.worst[1], inspected.limits, inspected.usual))
            if rule.id in peaks:
                self._add(rule, peaks[rule.id])

    def read(self) -> StatusView:
        """Return the content of the page now."""
        now = Now.read(self._clock)
        details, more_alerts = self._alerts.list_details(MAX_ALERTS)
        silences = self._pipeline.silences.current
        suppressed = Counter(one.name for causes in self._pipeline.suppressed.values() for one in causes)
        return StatusView(
            wall=now.wall,
            status=self._api.status.read(),
            alerts=tuple(detail if self._shows_commands else _without_command(detail) for detail in details),
            more_alerts=more_alerts,
            rules=tuple(self._shown_rules(now.boottime_ns)),
            ranking=self.traffic.ranking,
            silences=tuple(_shown_silence(one, suppressed[one.id], now) for one in silences[:MAX_SILENCES_SHOWN]),
            more_silences=max(0, len(silences) - MAX_SILENCES_SHOWN),
        )

    def _run(self) -> None:
        edge = ThreadEdge("page-history")
        while not self._stopping.wait(SAMPLE_SECONDS):
            with edge.step():
                self.sample()
        edge.end()

    def _add(self, rule: Rule, reading: RuleReading) -> None:
        if math.isfinite(reading.value):
            above, now_ns = rule.thresholds.above, self._clock.boottime_ns()
            self._history.add(now_ns, rule.id, rule.evaluation_key, reading, above=above)

    def _shown_rules(self, now_ns: int) -> Iterable[ShownRule]:
        configuration = self._api.configuration
        formats = {rule.id: value_format(rule) for rule in configuration.rules}
        for status in self._rules.list_rules(configuration):
            series = self._history.series(status.id, now_ns)
            yield ShownRule(status, formats.get(status.id, "count"), None if _is_empty(series) else series)


def _reading(value: float, limits: Mapping[Severity, float], usual: float | None) -> RuleReading:
    return RuleReading(
        value,
        limits.get(Severity.WARNING, math.nan),
        limits.get(Severity.CRITICAL, math.nan),
        math.nan if usual is None else usual,
    )


def _is_empty(series: ChartSeries | None) -> bool:
    return series is None or bool(np.isnan(series.values).all())


def _without_command(detail: AlertDetail) -> AlertDetail:
    """Return the alert without the command line of its top process: not every reader is one of the group."""
    if detail.evidence is None or detail.evidence["top_process"] is None:
        return detail
    top: dict[str, Any] = {**detail.evidence["top_process"], "command": None, "unread": None}
    return replace(detail, evidence={**detail.evidence, "top_process": top})


def _shown_silence(silence: Silence, alerts: int, now: Now) -> ShownSilence:
    ends = None if silence.ends_ns is None else now.wall + (silence.ends_ns - now.boottime_ns) / SECOND_NS
    return ShownSilence(
        id=silence.id,
        kind=silence.suppression.kind.value,
        matchers=_matchers_text(silence),
        author=silence.author,
        comment=silence.comment,
        ends=ends,
        alerts=alerts,
        withheld=silence.withheld,
    )


def _matchers_text(silence: Silence) -> str:
    if silence.acknowledged is not None:
        return f"alert {silence.acknowledged.fingerprint[:_SHORT_FINGERPRINT]}"
    return matchers_text(patterns_of(silence.where))
