"""What an alert is: the vocabulary between rules, lifecycle, store and delivery."""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from watchdog.rules.schema import Labels, Severity


class State(enum.StrEnum):
    """Where an instance of a rule is in its life."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Kind(enum.StrEnum):
    """What happened to an alert that people may have to hear of."""

    FIRING = "firing"
    ESCALATED = "escalated"  # warning to critical
    DEESCALATED = "deescalated"  # critical back to warning, still firing
    RESOLVED = "resolved"


def fingerprint(rule: str, labels: Labels) -> str:
    """Return the identity of an alert: 16 hex digits over rule id and labels, order of labels not mattering.

    Parts are kept apart by 0xff, which no UTF-8 text holds, so that {a="bc"} and {ab="c"} differ.
    """
    digest = hashlib.sha256(rule.encode())
    for name, value in sorted(labels):
        digest.update(b"\xff" + name.encode() + b"\xff" + value.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


_NUMBERS = ("value", "threshold", "peak")


def number_to_json(value: float) -> float | str:
    """Return a form of `value` that JSON has: it knows no infinities, which a share of nothing is; float() reads it."""
    return value if math.isfinite(value) else str(value)


@dataclass(frozen=True, slots=True)
class Alert:
    """One firing or resolved instance, complete enough to tell people without asking anyone else.

    `started`, `fired`, `resolved`: wall-clock seconds, for display: when the condition became true, when `for` was
    over, when `keep` was over after it had cleared. `value` is the newest one, `peak` the worst since `fired`.
    """

    rule: str
    labels: Labels
    fingerprint: str
    state: State
    severity: Severity
    summary: str
    value: float
    threshold: float
    peak: float
    started: float
    fired: float
    resolved: float | None
    reason: str  # why it is in this state, in words: "value above 100 for 10 s"; "process gone"
    receivers: tuple[str, ...] | None
    runbook: str | None
    format: str = "count"  # how value, threshold and peak read best: one of `rules.formats.FORMATS`

    def to_json(self) -> dict[str, Any]:
        """Return what `json` can write and `from_json` reads; bytes that are no UTF-8 stay surrogate-escaped."""
        document = {name: getattr(self, name) for name in self.__slots__}
        return document | {name: number_to_json(document[name]) for name in _NUMBERS}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the alert that `to_json` wrote."""
        receivers = document["receivers"]
        return cls(
            **{
                **document,
                "labels": tuple((name, value) for name, value in document["labels"]),
                "state": State(document["state"]),
                "severity": Severity(document["severity"]),
                "receivers": None if receivers is None else tuple(receivers),
                **{name: float(document[name]) for name in _NUMBERS},
            }
        )


@dataclass(frozen=True, slots=True)
class Transition:
    """An alert that changed."""

    kind: Kind
    alert: Alert
