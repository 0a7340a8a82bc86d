"""Alerts, notices and hostile names for the tests of receivers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from watchdog.alerts.alert import Alert, AlertState
from watchdog.alerts.evidence import Evidence, TopProcess
from watchdog.routing.notification import Notification, NotificationReason
from watchdog.rules.engine.contributors import Peer
from watchdog.rules.language.rule import Severity

STORM = Alert(
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

CULPRIT = TopProcess(
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
REFUSING = Peer("192.0.2.7", 443, "out", 580.0, 580, 0, 0, (), (("refused", 580),))
EVIDENCE = Evidence(
    taken=1_750_000_000.0,
    metric="connects",
    amount=612.0,
    tick_seconds=1.0,
    peers=(REFUSING,),
    peer_count=33,
    top_process=CULPRIT,
    history=(0.0, None, 300.0, 612.0),
    history_format="rate",
    history_seconds=4.0,
)

# What a process may call itself; bytes that are no UTF-8 arrive surrogate-escaped.
HOSTILE_NAMES = (
    "\x1b[2J\x1b]0;owned\x07",
    "line\r\nfeed: <26>1 - - - - - forged",
    "nul\x00nul",
    "\u202egnp.exe",
    "zero\u200bwidth\ufeff",
    "c1\u009b31m",
    "separators\u2028\u2029",
    b"bytes \xff\xfe\x1b".decode("utf-8", "surrogateescape"),
    "lone \ud800 surrogate",
    "<!channel> <@U012AB3CD> <https://evil.example|click>",
    "``` *bold* _it_ ~no~ :fire: @here #general",
    '"] [forged@32473 rule="x"] \\',
    "%s %n {0.__class__} {value} ${x} $(id) `id` ../../etc/passwd",
    "&amp; &lt; <>&",
    "already \\x1b \\u202e \\\\ escaped \\",
    "\U000e0041\U000e0042 tags",
    "a" * 5_000,
    "é" * 5_000,
    "\x1b" * 5_000,
    "",
)


@pytest.fixture(params=HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
def hostile_name(request) -> str:
    """Give each of the names that no receiver may stumble over."""
    return request.param


@pytest.fixture
def evidence() -> Evidence:
    """Show a crawler that a server refuses."""
    return EVIDENCE


@pytest.fixture
def make_alert() -> Callable[..., Alert]:
    """Make a storm that fires, with any field changed."""

    def make(**changes: object) -> Alert:
        return Alert(**{**{name: getattr(STORM, name) for name in Alert.__slots__}, **changes})

    return make


@pytest.fixture
def make_notification(make_alert) -> Callable[..., Notification]:
    """Make a notice of the given alerts, of one storm if none is given."""

    def make(*alerts: Alert, **changes: object) -> Notification:
        fields = {
            "id": "5f0c7e7a8d9b4c6e8f1a2b3c4d5e6f70",
            "receiver": "oncall",
            "group_key": "outbound-connection-storm",
            "reason": NotificationReason.FIRST,
            "alerts": alerts or (make_alert(),),
            "created": 1_750_000_012.0,
            "host": "web-1",
        }
        merged = {**fields, **changes}
        return Notification(**{**merged, "reason": NotificationReason(merged["reason"])})

    return make


@pytest.fixture
def hostile_notification(make_alert, make_notification, hostile_name) -> Notification:
    """Put a hostile name wherever text from the host can stand."""
    texts = dict.fromkeys(("name", "exe", "user", "unit", "container", "command"), hostile_name)
    culprit = replace(CULPRIT, **texts, parents=((1, hostile_name),) * 5)
    alert = make_alert(
        labels=(("process", hostile_name), ("unit", hostile_name)),
        summary=hostile_name,
        reason=hostile_name,
        evidence=replace(EVIDENCE, top_process=culprit, peers=(replace(REFUSING, address=hostile_name),) * 5),
    )
    return make_notification(alert, host=hostile_name)
