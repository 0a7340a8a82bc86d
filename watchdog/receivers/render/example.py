"""Example notifications, firing and resolved, for `notify test`, the selftest and the check of templates."""

from __future__ import annotations

import dataclasses
import socket
import uuid
from collections.abc import Iterator

from watchdog.alerts.alert import Alert, AlertState, fingerprint
from watchdog.alerts.evidence import Evidence, TopProcess
from watchdog.alerts.identity import HostIdentity
from watchdog.clock import SystemClock
from watchdog.routing.notification import Notification, NotificationReason
from watchdog.rules.engine.contributor_values import Peer
from watchdog.rules.language.rule import Severity


def example_notifications(receiver: str, identity: HostIdentity | None = None) -> Iterator[Notification]:
    """Yield the firing and the resolved notification of a connection storm that began ten seconds ago.

    `identity`: of this host, by its settings; None: its name alone.
    """
    now = SystemClock().wall()
    firing = _firing_alert(now - 10)
    if identity is not None:
        firing = identity.mark(firing)
    resolved = dataclasses.replace(
        firing,
        state=AlertState.RESOLVED,
        resolved=now,
        duration_seconds=10.0,
        value=3.0,
        reason="value below 300/s for 10s",
    )
    for alert in (firing, resolved):
        yield Notification(
            id=uuid.uuid4().hex,
            receiver=receiver,
            group_key=alert.rule,
            reason=NotificationReason.TEST,
            alerts=(alert,),
            created=now,
            host=socket.gethostname() if identity is None else identity.host,
            is_test=True,
        )


def _firing_alert(fired: float) -> Alert:
    rule, labels = "outbound-connection-storm", (("process", "example"), ("unit", "example.service"))
    return Alert(
        rule=rule,
        labels=labels,
        fingerprint=fingerprint(rule, (*labels, ("test", "true"))),
        state=AlertState.FIRING,
        severity=Severity.CRITICAL,
        summary="example opens 612/s connections (limit 500/s)",
        value=612.0,
        threshold=500.0,
        peak=640.0,
        started=fired,
        fired=fired,
        resolved=None,
        reason="value above 500/s",
        receivers=None,
        runbook=None,
        format="rate",
        evidence=_example_evidence(fired),
    )


def _example_evidence(taken: float) -> Evidence:
    """Return evidence of such a storm; its addresses are reserved for documentation (RFC 5737)."""
    top_process = TopProcess(
        pid=4711,
        name="example",
        exe="/usr/bin/example",
        user="nobody",
        unit="example.service",
        container="",
        share=1.0,
        other_process_count=0,
        started=taken - 7_509,
        command="/usr/bin/example --config /etc/example.toml --token=***",
        parents=((640, "supervisor"), (1, "systemd")),
        has_exited=False,
    )
    refused = Peer("192.0.2.7", 443, "out", 580.0, 580, 0, 0, (), (("refused", 580),))
    other = Peer("198.51.100.20", 5432, "out", 32.0, 32, 41_000, 96_000, (("ESTABLISHED", 32),), ())
    return Evidence(
        taken=taken,
        metric="connects",
        amount=612.0,
        tick_seconds=1.0,
        peers=(refused, other),
        peer_count=2,
        top_process=top_process,
        history=(2.0, 0.0, 4.0, 3.0, 120.0, 340.0, 610.0, 612.0),
        history_format="rate",
        history_seconds=8.0,
    )
