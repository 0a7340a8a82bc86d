"""A sample alert, firing and then over: what receivers are tried with."""

from __future__ import annotations

import dataclasses
import socket
import uuid
from collections.abc import Iterator

from watchdog.alerts.alert import Alert, State, fingerprint
from watchdog.alerts.notice import Notice
from watchdog.clock import SystemClock
from watchdog.rules.schema import Severity


def sample_pair(receiver: str) -> Iterator[Notice]:
    """Return the notices of a connection storm that began ten seconds ago, firing and then over."""
    now = SystemClock().wall()
    labels = (("process", "example"), ("unit", "example.service"))
    rule = "outbound-connection-storm"
    firing = Alert(
        rule=rule,
        labels=labels,
        fingerprint=fingerprint(rule, (*labels, ("test", "true"))),
        state=State.FIRING,
        severity=Severity.CRITICAL,
        summary="example opens 612/s connections (limit 500/s)",
        value=612.0,
        threshold=500.0,
        peak=640.0,
        started=now - 10,
        fired=now - 10,
        resolved=None,
        reason="value above 500/s",
        receivers=None,
        runbook=None,
        format="rate",
    )
    over = dataclasses.replace(
        firing, state=State.RESOLVED, resolved=now, value=3.0, reason="value below 300/s for 10 s"
    )
    for alert in (firing, over):
        yield Notice(
            id=uuid.uuid4().hex,
            receiver=receiver,
            group=rule,
            reason="test",
            alerts=(alert,),
            created=now,
            host=socket.gethostname(),
            test=True,
        )
