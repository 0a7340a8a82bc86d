"""A view of the status page with everything on it, of a host with hostile names of processes."""

from __future__ import annotations

import math
from typing import Any

from factories import make_evidence, make_peer, make_top_process
from watchdog.clock import SECOND_NS
from watchdog.control.alert_handlers import ActiveAlert, AlertDetail, AlertReceiver, TimerStatus
from watchdog.control.rule_handlers import RuleStatus, WorstGroup
from watchdog.control.status_handlers import (
    AlertCounts,
    DaemonStatus,
    ReceiverStatus,
    ReloadStatus,
    RulesStatus,
    SuppressionStatus,
    TickStatus,
)
from watchdog.web.busiest_traffic import BusyTraffic, TrafficRanking
from watchdog.web.chart_history import POINT_SECONDS, POINTS, ChartHistory, RuleReading
from watchdog.web.status_view import ShownRule, ShownSilence, StatusView

WALL = 1_750_000_000.0
HOSTILE = (
    "<script>alert(1)",
    "\u202etxt.exe\u2066",
    "a\nb\x1b[31mred",
    "z" + "\u0301\u0316\u0334\u0302\u0317\u0332\u0300",  # 15 bytes: a letter under combining marks
    "\"' onload=x a='",
    "\udcff\udcfe\x00\x7f",
    "&lt;b&gt;&#60;",
    "שלום-עולם",
)
"""Names of processes, 15 bytes at most."""

_NAN = math.nan


def make_active_alert(**changes: Any) -> ActiveAlert:
    """Return a firing critical alert."""
    fields = {
        "fingerprint": "0123456789abcdef",
        "rule": "outbound-connection-storm",
        "state": "firing",
        "severity": "critical",
        "labels": {"process": "crawler", "unit": "crawler.service"},
        "since": WALL - 600,
        "fired": WALL - 590,
        "value": 612.0,
        "limit": 500.0,
        "value_text": "612/s",
        "limit_text": "500/s",
        "share": 1.224,
        "summary": "crawler opens connections at 612/s (limit 500/s)",
        "reason": "value above 500/s for 10s",
        "timers": (TimerStatus("critical", "firing", None, None),),
        "receivers": (AlertReceiver("oncall", "critical"), AlertReceiver("chat", None)),
    }
    return ActiveAlert(**{**fields, **changes})


def make_alert_detail(alert: ActiveAlert | None = None, **changes: Any) -> AlertDetail:
    """Return an alert with its evidence."""
    fields = {
        "active": alert or make_active_alert(),
        "alert": None,
        "evidence": make_evidence(taken=WALL - 590).to_json(),
        "runbook": "https://wiki.example.net/storm",
        "rule_file": "/etc/bpf-watchdog/rules.d/network.toml",
        "rule_line": 7,
    }
    return AlertDetail(**{**fields, **changes})


def make_rule_status(rule_id: str = "outbound-connection-storm", **changes: Any) -> RuleStatus:
    """Return an inactive rule at a fifth of its limit."""
    fields = {
        "id": rule_id,
        "origin": "shipped",
        "file": "/usr/lib/bpf-watchdog/rules/network.toml",
        "line": 7,
        "state": "inactive",
        "reason": "",
        "firing": 0,
        "pending": 0,
        "timer": None,
        "groups": 12,
        "worst": WorstGroup({"process": "nginx", "unit": "nginx.service"}, 20.0, "20/s", 0.2),
        "limit_text": "100/s",
        "window_seconds": 10.0,
        "filled_seconds": 10.0,
        "has_matched": True,
        "learning_seconds": 0.0,
        "last_fired": None,
        "fired_in_7_days": 0,
    }
    return RuleStatus(**{**fields, **changes})


def make_series(values, warning=_NAN, critical=_NAN, usual=_NAN, *, above=True):
    """Return the series of `values`, the newest ones, None for a gap; limits are constant."""
    history = ChartHistory()
    for number, value in enumerate(values):
        if value is not None:
            at_ns = (POINTS - len(values) + number) * POINT_SECONDS * SECOND_NS
            history.add(at_ns, "r", None, RuleReading(value, warning, critical, usual), above=above)
    return history.series("r", (POINTS - 1) * POINT_SECONDS * SECOND_NS)


def make_receiver_status(name: str = "oncall", **changes: Any) -> ReceiverStatus:
    """Return a receiver that answers."""
    fields = {
        "name": name,
        "destination": "webhook alerts.example.net",
        "state": "ok",
        "since": None,
        "reason": None,
        "pending": 0,
        "oldest_seconds": 0.0,
        "answer": "ok",
        "answered_at": WALL - 12,
        "lost": {},
    }
    return ReceiverStatus(**{**fields, **changes})


def make_daemon_status(**changes: Any) -> DaemonStatus:
    """Return the status of a daemon that is well, with one critical alert."""
    fields = {
        "version": "0.1.0",
        "host": "web-1",
        "pid": 4711,
        "account": "bpf-watchdog",
        "uptime_seconds": 93_784.0,
        "kernel": "6.12.0",
        "rules": RulesStatus(50, "c0ffee" * 10, "/etc/bpf-watchdog/rules.d", 49, ()),
        "reload": ReloadStatus("accepted", WALL - 7_200),
        "ticks": TickStatus(1.0, 1.0, 0.0042, 0.4),
        "quality": {},
        "alerts": AlertCounts(0, 1, 0),
        "suppression": SuppressionStatus(0, 0, (), 0, {}),
        "receivers": (make_receiver_status(),),
        "problems": (),
    }
    return DaemonStatus(**{**fields, **changes})


def make_status_view(**changes: Any) -> StatusView:
    """Return the view of a daemon with one alert and one rule."""
    values = [20 + 10 * math.sin(number / 9) for number in range(POINTS)]
    fields = {
        "wall": WALL,
        "status": make_daemon_status(),
        "alerts": (make_alert_detail(),),
        "more_alerts": 0,
        "rules": (ShownRule(make_rule_status(), "rate", make_series(values, 100.0, 500.0)),),
        "ranking": TrafficRanking(WALL - 5, 30.0, (_busy("nginx", "nginx.service"),), (_busy("192.0.2.7", "out"),)),
        "silences": (),
        "more_silences": 0,
    }
    return StatusView(**{**fields, **changes})


def hostile_view() -> StatusView:
    """Return the view of a host with alerts, rules and receivers in every state, and hostile names all over."""
    return make_status_view(
        status=make_daemon_status(
            rules=RulesStatus(9, "c0ffee" * 10, "/etc/bpf-watchdog/rules.d", 0, ("closed-by-reset",)),
            reload=ReloadStatus("refused", WALL - 300, 'network.toml:4: rule.metric: unknown metric "opn"'),
            ticks=TickStatus(1.0, 2.0, 0.71, 0.9),
            quality={"missed_events": 12_402, "unread_names": 3},
            alerts=AlertCounts(1, 1, len(HOSTILE)),
            suppression=SuppressionStatus(1, 1, ("nights",), 2, {"silence": 4, "mute time": 17}),
            receivers=(make_receiver_status(), *_bad_receivers()),
            problems=("receiver chat is down for 14 min: connection refused",),
        ),
        alerts=tuple(_hostile_alerts()),
        more_alerts=131,
        rules=tuple(_rules()),
        ranking=TrafficRanking(
            WALL - 5,
            30.0,
            tuple(_busy(name, f"user@1000/{name}.service", 8 - place) for place, name in enumerate(HOSTILE)),
            (
                _busy("2001:db8:85a3:8d3:1319:8a2e:370:7348", "out", 9),
                _busy("192.0.2.7", "in", 4),
                _busy("127.0.0.1", "out", 1),
            ),
        ),
        silences=tuple(_silences()),
        more_silences=2,
    )


def _busy(first: str, second: str, factor: float = 1.0) -> BusyTraffic:
    return BusyTraffic((first, second), 1.2e6 * factor, 3.1e8 * factor, 612.4 * factor, 0.0, 2.5 * factor, 1204)


def _hostile_alerts():
    yield make_alert_detail()
    for place, name in enumerate(HOSTILE):
        evidence = make_evidence(
            taken=WALL - 100,
            peers=(make_peer(), make_peer(address="2001:db8::1", port=8443)),
            top_process=make_top_process(name=name, exe=f"/tmp/{name}", command=f"{name} --token=***", user=name),
        )
        alert = make_active_alert(
            fingerprint=f"{place:016x}",
            rule="closed-by-reset",
            timers=(TimerStatus("warning", "firing", None, None),),
            severity="warning",
            labels={"process": name, "unit": f"user@1000/{name}.service"},
            summary=f"{name} fails to connect at 31/s (limit 20/s)",
            suppressed_by=("silence 1f0a3c5e",) if place % 3 == 0 else (),
            value=31.0,
            limit=20.0,
            value_text="31/s",
            limit_text="20/s",
            share=1.55,
        )
        yield make_alert_detail(alert, evidence=evidence.to_json(), runbook="javascript:alert(1)")
    pending = make_active_alert(
        fingerprint="f" * 16,
        rule="listen-drops",
        state="pending",
        severity="warning",
        summary="",
        reason="",
        fired=None,
        since=WALL - 4,
        timers=(TimerStatus("warning", "pending", 4.0, 30.0),),
        receivers=(),
    )
    yield make_alert_detail(pending, evidence=None, runbook=None)


def _rules():
    hours = POINTS
    storm = [*(40 + 25 * math.sin(one / 20) + (545 if one > hours - 22 else 0) for one in range(hours - 1)), 612]
    yield ShownRule(
        make_rule_status(
            state="firing",
            firing=1,
            worst=WorstGroup({"process": HOSTILE[0], "unit": "crawler.service"}, 612.0, "612/s", 6.12),
        ),
        "rate",
        make_series(storm, 100.0, 500.0),
    )
    usual = [2e6 + 1.5e6 * math.sin(one / 40) for one in range(hours)]
    yield ShownRule(
        make_rule_status(
            "unusual-bytes-sent",
            state="pending",
            pending=1,
            timer=TimerStatus("warning", "pending", 60.0, 300.0),
            limit_text="9 MB/s",
            worst=WorstGroup({"process": HOSTILE[1]}, 9.4e6, "9.4 MB/s", 1.04),
        ),
        "bytes/s",
        make_series([one if one < 3.4e6 else 9.4e6 for one in usual], 9e6, 2.5e7, 2.2e6),
    )
    yield ShownRule(
        make_rule_status(
            "closed-by-reset", state="unknown", reason="input incomplete", limit_text="30 %", groups=None, worst=None
        ),
        "percent",
        make_series([None if 90 < one < 200 else 0.1 + 0.04 * math.sin(one / 3) for one in range(hours)], 0.3),
    )
    below = make_series([max(0.0, 14 - one / 20) for one in range(hours)], 5.0, 2.0, above=False)
    yield ShownRule(
        make_rule_status("few-clients", limit_text="5", worst=WorstGroup({}, 0.0, "0", None), groups=1), "count", below
    )
    yield ShownRule(
        make_rule_status(
            "connect-latency", limit_text="200 ms", worst=WorstGroup({"process": HOSTILE[3]}, 0.02, "20 ms", 0.1)
        ),
        "seconds",
        make_series([0.02] * 5, 0.2),
    )
    learning = make_rule_status("unusual-round-trip-time", learning_seconds=86_400.0 * 6, worst=None)
    yield ShownRule(learning, "seconds", None)
    yield ShownRule(make_rule_status("listen-drops", has_matched=False, worst=None, groups=0), "rate", None)


def _bad_receivers():
    yield make_receiver_status(
        "chat", state="down", since=WALL - 840, reason="connection refused", pending=14, oldest_seconds=840.0
    )
    yield make_receiver_status(
        "syslog", state="failing", since=WALL - 20, reason="timeout <b>after</b> 10 s", lost={"expired": 3}
    )


def _silences():
    yield ShownSilence(
        "1f0a3c5e", "silence", "process=nginx* unit!=web.service", "ann", "move of the database", WALL + 5_400, 2, 4
    )
    yield ShownSilence("77aa01ff", "acknowledgement", "alert 01234567", "bob <b>", "is known\u202e", None, 1, 0)
