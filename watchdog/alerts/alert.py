"""Alerts and their transitions: the values that rules, lifecycle, routing, state and delivery share."""

from __future__ import annotations

import enum
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from watchdog.alerts.boottimes import Boottimes, wall_time
from watchdog.alerts.evidence import Evidence, number_to_json
from watchdog.clock import Now
from watchdog.errors import document_errors
from watchdog.rules.language.formats import format_exact
from watchdog.rules.language.rule import Labels, Severity
from watchdog.rules.language.template import Limit


class AlertState(enum.StrEnum):
    """State of an instance of a rule."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class TransitionKind(enum.StrEnum):
    """Kind of a change of an alert that may need a notification."""

    FIRING = "firing"
    SEVERITY_RAISED = "severity raised"  # warning to critical
    SEVERITY_LOWERED = "severity lowered"  # critical back to warning, still firing
    RESOLVED = "resolved"


def fingerprint(rule: str, labels: Labels) -> str:
    """Return the identity of an alert: 16 hex digits over the rule's id and the labels in any order.

    0xff separates the parts: UTF-8 never contains it, so {a="bc"} and {ab="c"} differ.
    """
    digest = hashlib.sha256(rule.encode())
    for name, value in sorted(labels):
        digest.update(b"\xff" + name.encode() + b"\xff" + value.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class AlertIdentity:
    """Name of the host, labels of the user's own and key of the incident, see `identity.py`.

    Empty in an alert that a former version saved: then the notification has the host.
    """

    host: str = ""
    labels: Labels = ()
    incident_key: str = ""
    generator_url: str = ""  # address of a dashboard that shows the alert

    def to_json(self) -> dict[str, Any]:
        """Return a document for `json` and `from_json`."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> Self:
        """Return the identity that `to_json` wrote; None: an empty one."""
        if document is None:
            return cls()
        labels = tuple((name, value) for name, value in document["labels"])
        return cls(document["host"], labels, document["incident_key"], document.get("generator_url", ""))


_NUMBERS = ("value", "threshold", "peak")


@dataclass(frozen=True, slots=True)
class Alert:
    """One firing or resolved instance, with everything that a notification needs.

    `started`, `fired`, `resolved`: wall-clock seconds as noted at the time: when the condition became true, when `for`
    had passed, when `keep_firing_for` had passed after it became false. `boottimes`: the same by CLOCK_BOOTTIME, None
    in files of version 0.1.0; `shown_at` makes times for display of them. `duration_seconds`: from `started` to
    `resolved` by CLOCK_BOOTTIME, None if unknown. `value`: the newest one; `peak`: the worst since `fired`.
    """

    rule: str
    labels: Labels
    fingerprint: str
    state: AlertState
    severity: Severity
    summary: str
    value: float
    threshold: float
    peak: float
    started: float
    fired: float
    resolved: float | None
    reason: str  # reason of the state, in words: "value above 100 for 10 s"; "process gone"
    receivers: tuple[str, ...] | None
    runbook: str | None
    format: str = "count"  # format of value, threshold and peak: a key of `formats.FORMATS`
    duration_seconds: float | None = None
    evidence: Evidence | None = None
    threshold_text: str = ""  # the threshold as the rule has it; "" in files of version 0.1.0
    identity: AlertIdentity = AlertIdentity()
    boottimes: Boottimes | None = None
    send_resolved: bool = True  # whether receivers get its resolved notification

    @property
    def limit(self) -> Limit:
        """Return the threshold for display."""
        return Limit(self.threshold, self.format, self.threshold_text or format_exact(self.format, self.threshold))

    @property
    def all_labels(self) -> Labels:
        """Return the labels of the rule's `by`, then those of the user's own."""
        return self.labels + self.identity.labels

    @property
    def weight(self) -> float:
        """Return the distance of the value from the threshold, as a multiple of it: where lists begin.

        That of a share is weighed by the amount in its evidence: ten failures of ten are less than 6,000 of 10,000.
        """
        distance = abs(self.value - self.threshold)
        weight = distance / abs(self.threshold) if self.threshold else distance
        if self.format == "percent" and self.evidence is not None and self.evidence.amount is not None:
            weight *= self.evidence.amount
        return 0.0 if math.isnan(weight) else weight

    def to_json(self) -> dict[str, Any]:
        """Return a document for `json` and `from_json`; bytes that are not UTF-8 stay surrogate-escaped."""
        document = {name: getattr(self, name) for name in self.__slots__}
        document |= {name: number_to_json(document[name]) for name in _NUMBERS}
        document["evidence"] = None if self.evidence is None else self.evidence.to_json()
        document["identity"] = self.identity.to_json()
        document["boottimes"] = None if self.boottimes is None else self.boottimes.to_json()
        return document

    def resolved_at(self, now: Now, reason: str) -> Self:
        """Return the alert with its end at `now`."""
        boottimes = None if self.boottimes is None else replace(self.boottimes, resolved_ns=now.boottime_ns)
        duration = self.duration_seconds if boottimes is None else boottimes.duration_seconds
        return replace(
            self,
            state=AlertState.RESOLVED,
            resolved=now.wall,
            reason=reason,
            boottimes=boottimes,
            duration_seconds=duration,
        )

    def shifted(self, boottime_shift_ns: int) -> Self:
        """Return the alert of a former boot with its CLOCK_BOOTTIME of this one."""
        if self.boottimes is None or not boottime_shift_ns:
            return self
        return replace(self, boottimes=self.boottimes.shifted(boottime_shift_ns))

    def shown_at(self, present: Now | None) -> Self:
        """Return the alert with the wall-clock times that it has by the wall clock at `present`.

        Without `boottimes` or `present` the noted times are put in order: no end is before its start.
        """
        times = self.boottimes
        if times is None or present is None:
            fired = max(self.started, self.fired)
            return replace(self, fired=fired, resolved=None if self.resolved is None else max(fired, self.resolved))
        started = wall_time(times.started_ns, self.started, present)
        fired = max(started, wall_time(times.fired_ns, self.fired, present))
        resolved = self.resolved
        if resolved is not None and times.resolved_ns is not None:
            resolved = max(fired, wall_time(times.resolved_ns, resolved, present))
        return replace(self, started=started, fired=fired, resolved=resolved)

    @classmethod
    def from_json_text(cls, text: str) -> Self:
        """Return the alert in the JSON text `text`.

        Raises:
            DocumentError: not JSON, or as `from_json`.
        """
        with document_errors():
            return cls.from_json(json.loads(text))

    @classmethod
    @document_errors()
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the alert that `to_json` wrote.

        Raises:
            DocumentError: `document` does not have the form of `to_json`.
        """
        receivers = document["receivers"]
        return cls(
            **{
                **document,
                "labels": tuple((name, value) for name, value in document["labels"]),
                "state": AlertState(document["state"]),
                "severity": Severity(document["severity"]),
                "receivers": None if receivers is None else tuple(receivers),
                **{name: float(document[name]) for name in _NUMBERS},
                "evidence": Evidence.from_json(document.get("evidence")),
                "identity": AlertIdentity.from_json(document.get("identity")),
                "boottimes": Boottimes.from_json(document.get("boottimes")),
            }
        )


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of an alert, with the alert after it."""

    kind: TransitionKind
    alert: Alert
