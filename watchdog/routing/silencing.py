"""Silences: a person withholds the notifications of matching alerts for a while; an acknowledgement, those of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from watchdog.alerts.alert import Alert
from watchdog.config.document import Document
from watchdog.errors import UsageError, document_errors
from watchdog.measure.catalogue import Dimension
from watchdog.routing.alert_matching import matches_alert
from watchdog.routing.suppression import Suppression, SuppressionKind
from watchdog.rules.language.conditions import read_where
from watchdog.rules.language.rule import Condition

_FORM: Final = "a matcher is NAME=PATTERN, or NAME!=PATTERN to exclude values"


@dataclass(frozen=True, slots=True)
class AcknowledgedFiring:
    """One firing of one alert: its fingerprint, and the wall-clock seconds at which it fired."""

    fingerprint: str
    fired: float


@dataclass(frozen=True, slots=True)
class Silence:
    """One silence, or one acknowledgement: then `acknowledged` is set.

    `where`: every condition must match. `created`: wall-clock seconds. `ends_ns`: CLOCK_BOOTTIME of this boot, None
    without an end. `permanent_reason`: the reason for more than `MAX_SILENCE`, "" without one. `withheld`: number of
    notifications that it withheld.
    """

    id: str
    where: tuple[Condition, ...]
    author: str
    comment: str
    created: float
    ends_ns: int | None = None
    permanent_reason: str = ""
    acknowledged: AcknowledgedFiring | None = None
    withheld: int = 0

    @property
    def suppression(self) -> Suppression:
        """Return the silence as the cause of a suppression."""
        kind = SuppressionKind.SILENCE if self.acknowledged is None else SuppressionKind.ACKNOWLEDGEMENT
        return Suppression(kind, self.id)

    def matches(self, alert: Alert) -> bool:
        """Return whether `alert` is silenced; a resolved one counts as it did while it fired."""
        if self.acknowledged is not None:
            return self.acknowledged == AcknowledgedFiring(alert.fingerprint, alert.fired)
        return matches_alert(self.where, alert)

    def has_ended(self, firing: Mapping[str, Alert], now_ns: int) -> bool:
        """Return whether its time is over, or its alert no longer in `firing` (by fingerprint)."""
        if self.acknowledged is not None:
            alert = firing.get(self.acknowledged.fingerprint)
            return alert is None or not self.matches(alert)
        return self.ends_ns is not None and self.ends_ns <= now_ns

    def to_json(self) -> dict[str, Any]:
        """Return a document for `json` and `from_json`, without `ends_ns` and `withheld`."""
        acknowledged = self.acknowledged
        return {
            "id": self.id,
            "where": [[one.dimension, one.any_of, one.none_of] for one in self.where],
            "author": self.author,
            "comment": self.comment,
            "created": self.created,
            "permanent_reason": self.permanent_reason,
            "acknowledged": None if acknowledged is None else [acknowledged.fingerprint, acknowledged.fired],
        }

    @classmethod
    @document_errors()
    def from_json(cls, document: Mapping[str, Any], ends_ns: int | None, withheld: int) -> Self:
        """Return the silence that `to_json` wrote.

        Raises:
            DocumentError: `document` does not have the form of `to_json`.
        """
        acknowledged = document["acknowledged"]
        return cls(
            id=str(document["id"]),
            where=tuple(Condition(name, tuple(any_of), tuple(none_of)) for name, any_of, none_of in document["where"]),
            author=str(document["author"]),
            comment=str(document["comment"]),
            created=float(document["created"]),
            ends_ns=ends_ns,
            permanent_reason=str(document["permanent_reason"]),
            acknowledged=None if acknowledged is None else AcknowledgedFiring(*acknowledged),
            withheld=withheld,
        )


def parse_matchers(matchers: Iterable[str], dimensions: Mapping[str, Dimension]) -> tuple[Condition, ...]:
    """Return the conditions of `matchers`: "process=nginx*", "severity=critical", "remote!=10.0.0.0/8".

    Several values of one name are alternatives. Patterns are those of a rule's `where`, on `dimensions`.

    Raises:
        UsageError: a matcher is malformed, its name is unknown, or no value can match it.
    """
    patterns: dict[str, list[str]] = {}
    for matcher in matchers:
        name, equals, pattern = matcher.partition("=")
        exclusion = "!" if name.endswith("!") else ""
        name = name.removesuffix("!").strip()
        if not equals or not name:
            raise UsageError(f'"{matcher}" is not a matcher', remedy=_FORM)
        patterns.setdefault(name, []).append(exclusion + pattern)
    if not patterns:
        raise UsageError("no matcher is given", remedy=_FORM)
    return _read_conditions(patterns, dimensions)


def _read_conditions(
    patterns: Mapping[str, Sequence[str]], dimensions: Mapping[str, Dimension]
) -> tuple[Condition, ...]:
    document = Document("", {"where": {name: list(values) for name, values in patterns.items()}}, "silence")
    where = read_where(document.root, dimensions)
    if document.problems:
        problem = document.problems[0]
        raise UsageError(f"{problem.key.removeprefix('where.')}: {problem.message}")
    return where
