"""Suppression: the cause that withholds the notifications of an alert while it fires.

Silences, acknowledgements, mute times and inhibition as in Alertmanager. Rules are evaluated all the same, and an alert
that a receiver knows as firing still gets its one resolved notification there.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from watchdog.errors import document_errors

if TYPE_CHECKING:  # this import loads numpy, which reading settings does not need
    from watchdog.alerts.alert import Alert


class SuppressionKind(enum.StrEnum):
    """Kind of a suppression; the values are stored and shown."""

    ACKNOWLEDGEMENT = "acknowledgement"
    SILENCE = "silence"
    MUTE = "mute time"
    INHIBITION = "inhibition"


@dataclass(frozen=True, slots=True)
class Suppression:
    """One cause. `name`: id of the silence or acknowledgement, name of the mute time, rule id of the source."""

    kind: SuppressionKind
    name: str

    def describe(self) -> str:
        """Return the cause in words: "silence 1f0a3c5e", "mute time night", "inhibition by port-scan"."""
        by = "by " if self.kind is SuppressionKind.INHIBITION else ""
        return f"{self.kind} {by}{self.name}"

    def to_json(self) -> list[str]:
        """Return a document for `json` and `from_json`."""
        return [self.kind.value, self.name]

    @classmethod
    @document_errors()
    def from_json(cls, document: Sequence[Any] | None) -> Self | None:
        """Return the suppression that `to_json` wrote, None without one.

        Raises:
            DocumentError: `document` does not have the form of `to_json`.
        """
        if document is None:
            return None
        kind, name = document
        return cls(SuppressionKind(kind), str(name))


class SuppressionLookup(Protocol):
    """The suppressions in force, as groups ask for them."""

    @property
    def is_active(self) -> bool:
        """Return whether any alert can be suppressed now."""
        ...

    def find(self, receiver: str, alert: Alert) -> Suppression | None:
        """Return the first cause that withholds notifications of `alert` to `receiver`, None without one."""
        ...

    def record_withheld(self, suppression: Suppression) -> None:
        """Count one notification that `suppression` withheld."""
        ...

    def announces_end(self, receiver: str, alert: Alert) -> bool:
        """Return whether `receiver` gets the resolved notification of `alert`."""
        ...


class NoSuppression:
    """Suppresses nothing."""

    is_active = False

    def find(self, _receiver: str, _alert: Alert) -> None:
        """Return None."""

    def record_withheld(self, _suppression: Suppression) -> None:
        """Count nothing."""

    def announces_end(self, _receiver: str, alert: Alert) -> bool:
        """Return whether the rule of `alert` has resolved notifications."""
        return alert.send_resolved
