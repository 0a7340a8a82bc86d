"""Objects for tests, complete and plausible: a test passes only the fields that it is about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from watchdog.alerts.alert import Alert, AlertState, fingerprint
from watchdog.alerts.evidence import Evidence, TopProcess
from watchdog.clock import SECOND_NS
from watchdog.routing.notification import Notification, NotificationReason
from watchdog.rules.engine.contributor_values import Peer
from watchdog.rules.language.expression import Expression, MetricReference
from watchdog.rules.language.rule import Condition, Rule, Severity, Stat, StatKind, Thresholds
from watchdog.rules.language.template import Template
from watchdog.web.own_health import OwnHealth, ReceiverMetrics

_STORM = Alert(
    rule="outbound-connection-storm",
    labels=(("process", "crawler"), ("unit", "crawler.service")),
    fingerprint="0123456789abcdef",
    state=AlertState.FIRING,
    severity=Severity.CRITICAL,
    summary="crawler opens 612/s connections (limit 500/s)",
    value=612.0,
    threshold=500.0,
    peak=640.5,
    started=1_750_000_000.0,
    fired=1_750_000_010.25,
    resolved=None,
    reason="value above 500/s for 10 s",
    receivers=None,
    runbook=None,
    format="rate",
)
_PEER = Peer("192.0.2.7", 443, "out", 580.0, 580, 0, 0, (), (("refused", 580),))
_TOP_PROCESS = TopProcess(
    pid=4711,
    name="crawler",
    exe="/usr/bin/crawler",
    user="www-data",
    unit="crawler.service",
    container="",
    share=0.75,
    other_process_count=2,
    started=1_749_992_491.0,
    command="/usr/bin/crawler --token=***",
    parents=((640, "supervisor"), (1, "systemd")),
    has_exited=False,
)
_EVIDENCE = Evidence(
    taken=1_750_000_000.0,
    metric="connects",
    amount=612.0,
    tick_seconds=1.0,
    peers=(_PEER,),
    peer_count=33,
    top_process=_TOP_PROCESS,
    history=(0.0, None, 300.0, 612.0),
    history_format="rate",
    history_seconds=4.0,
)


class FakeClock:
    """A clock that does not run: `advance` lets time pass, `step` sets the wall clock alone."""

    def __init__(self) -> None:
        self._boottime_ns = 1_000 * SECOND_NS
        self._wall = 1_750_000_000.0

    def boottime_ns(self) -> int:
        return self._boottime_ns

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        self._boottime_ns += round(seconds * SECOND_NS)
        self._wall += seconds

    def step(self, seconds: float) -> None:
        self._wall += seconds


def make_alert(**changes: Any) -> Alert:
    """Return a firing alert; with `resolved` it is resolved, and a changed rule or label changes its fingerprint."""
    alert = replace(_STORM, **changes)
    if "state" not in changes and alert.resolved is not None:
        alert = replace(alert, state=AlertState.RESOLVED)
    if "fingerprint" not in changes and {"rule", "labels"} & changes.keys():
        alert = replace(alert, fingerprint=fingerprint(alert.rule, alert.labels))
    return alert


def make_notification(*alerts: Alert, **changes: Any) -> Notification:
    """Return a notification of `alerts`, of one firing alert without any; its group is the first alert's rule."""
    alerts = alerts or (make_alert(),)
    fields = {
        "id": "5f0c7e7a8d9b4c6e8f1a2b3c4d5e6f70",
        "receiver": "oncall",
        "group_key": alerts[0].rule,
        "reason": NotificationReason.FIRST,
        "created": 1_750_000_012.0,
        "host": "web-1",
    }
    merged = {**fields, **changes}
    return Notification(**{**merged, "alerts": alerts, "reason": NotificationReason(merged["reason"])})


def make_own_health(**changes: Any) -> OwnHealth:
    """Return the health of a daemon with a receiver that is down."""
    health = OwnHealth(
        version="1.0",
        kernel="6.12",
        configured_seconds=1.0,
        interval_seconds=2.0,
        age_seconds=0.5,
        losses={"ledger_full": 3},
        sockmap_connections=2,
        rules={"firing": 1, "ok": 4},
        alerts={("firing", "critical"): 1, ("pending", "warning"): 0},
        oldest_firing_seconds={"critical": 90.5, "warning": 0.0},
        suppressed_alerts=0,
        withheld={"silence": 2},
        receivers=(ReceiverMetrics("oncall", "down", 3, 60.5, 7, {"expired": 1}, {"timeout": 9}),),
        reload_succeeded=False,
        reload_at=1_750_000_000.0,
    )
    return replace(health, **changes)


def make_peer(**changes: Any) -> Peer:
    """Return a server that refuses connections."""
    return replace(_PEER, **changes)


def make_top_process(**changes: Any) -> TopProcess:
    """Return the process with the largest share of a storm."""
    return replace(_TOP_PROCESS, **changes)


def make_evidence(**changes: Any) -> Evidence:
    """Return the evidence of a storm: one process, and one peer that refuses its connections."""
    return replace(_EVIDENCE, **changes)


def make_stat(text: str) -> Stat:
    """Return the stat of a rule file: `p999` is the percentile 99.9."""
    if text.startswith("distinct:"):
        return Stat(text, StatKind.DISTINCT, dimension=text.removeprefix("distinct:"))
    if text.startswith("p"):
        digits = text[1:]
        return Stat(text, StatKind.PERCENTILE, float(digits[:2] + "." + digits[2:] if len(digits) > 2 else digits))
    return Stat(text, StatKind(text))


def make_rule(
    name: str = "storm",
    metric: str | Expression = "connects",
    stat: str = "rate",
    by: Iterable[str] = ("process",),
    where: Iterable[Condition] = (),
    above: float | None = 100,
    critical: float | None = None,
    below: float | None = None,
    clear: float | None = None,
    clear_critical: float | None = None,
    window_seconds: float = 10,
    for_seconds: float = 0,
    keep_firing_for_seconds: float = 0,
    **changes: Any,
) -> Rule:
    """Return a rule: `above`, `below` and `clear` are the thresholds of its warning; `changes` are fields of `Rule`."""
    limits = {Severity.WARNING: above if below is None else below, Severity.CRITICAL: critical}
    fire = {severity: limit for severity, limit in limits.items() if limit is not None}
    clears = {Severity.WARNING: clear, Severity.CRITICAL: clear_critical}
    cleared = {severity: limit if clears[severity] is None else clears[severity] for severity, limit in fire.items()}
    fields = {
        "id": name,
        "summary": Template("", ()),
        "metric": MetricReference(metric) if isinstance(metric, str) else metric,
        "stat": make_stat(stat),
        "window_ns": round(window_seconds * SECOND_NS),
        "by": tuple(by),
        "where": tuple(where),
        "only_if": None,
        "thresholds": Thresholds(below is None, fire, cleared),
        "for_ns": round(for_seconds * SECOND_NS),
        "keep_firing_for_ns": round(keep_firing_for_seconds * SECOND_NS),
        "receivers": None,
        "runbook": None,
        "file": "rules.toml",
        "line": 1,
    }
    return Rule(**{**fields, **changes})
