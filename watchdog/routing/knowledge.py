"""Knowledge of receivers: the state of each alert in the notifications that they took or that are pending for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from watchdog.alerts.alert import Alert
from watchdog.rules.language.rule import Severity


@dataclass(frozen=True, slots=True)
class KnownAlert:
    """The newest state of one alert at one receiver. `fired`: wall clock; `severity`: None if it is resolved."""

    fired: float
    severity: Severity | None


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The knowledge of some `receivers`.

    `alerts`: by receiver and fingerprint. `unresolved`: receiver and alert of everything sent as firing for which no
    resolved notification is pending.
    """

    receivers: frozenset[str]
    alerts: Mapping[tuple[str, str], KnownAlert]
    unresolved: Sequence[tuple[str, Alert]]
