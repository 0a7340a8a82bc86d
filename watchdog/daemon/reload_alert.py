"""The alert about a reload that was refused: until the files agree with the rules in force, people are notified.

It is an ordinary alert, except that no rule creates it. It is not saved: a daemon that starts has read its files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from watchdog import sanitize
from watchdog.alerts.alert import Alert, AlertState, Transition, TransitionKind, fingerprint
from watchdog.alerts.boottimes import Boottimes
from watchdog.clock import Now
from watchdog.errors import ConfigError, WatchdogError
from watchdog.rules.language.rule import Severity

RELOAD_REFUSED_RULE = "watchdog-reload-refused"
"""Rule id of the alert; no rule file has such a rule."""

RELOAD_ACCEPTED = "reload accepted"
RESTARTED: Final = "the daemon was restarted with files that are in force"
"""Reason of the end of an alert of a former daemon."""
_MAX_PROBLEM_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused reload: its first problem, as `file:line: key: message`, and the number of problems.

    `is_start`: the files were refused at the start, and the last good configuration is in force.
    """

    problem: str
    count: int = 1
    is_start: bool = False

    @classmethod
    def from_error(cls, error: WatchdogError, *, is_start: bool = False) -> Refusal:
        """Return the refusal of a configuration with `error`."""
        problems = error.problems if isinstance(error, ConfigError) else ()
        first = str(problems[0]) if problems else str(error)
        shown = sanitize.escape_unprintable(first, _MAX_PROBLEM_CHARACTERS)
        return cls(shown, max(1, len(problems)), is_start)

    def describe(self) -> str:
        """Return the refusal in one line."""
        if self.is_start:
            return f"files refused at the start, the last good configuration is in force: {self.first_problem()}"
        return f"reload refused, the former configuration stays in force: {self.first_problem()}"

    def first_problem(self) -> str:
        """Return the first problem, with the number of further ones."""
        return f"{self.problem} (and {self.count - 1} more)" if self.count > 1 else self.problem


class ReloadAlert:
    """The alert, and its transitions. `report` and `take_receivers` may be called between two ticks only."""

    def __init__(self, receivers: Collection[str]) -> None:
        """Take the names of all receivers: each is notified."""
        self._receivers = tuple(receivers)
        self.refusal: Refusal | None = None
        self._alert: Alert | None = None

    def take_receivers(self, receivers: Collection[str]) -> None:
        """Take the receivers of a new configuration."""
        self._receivers = tuple(receivers)
        if self._alert is not None:
            self._alert = replace(self._alert, receivers=self._receivers)

    def report(self, refusal: Refusal | None) -> None:
        """Record the outcome of the newest reload; None: it was accepted."""
        self.refusal = refusal

    def advance(self, now: Now) -> list[Transition]:
        """Return the transition of this tick, if there is one."""
        former = self._alert
        if self.refusal is None:
            if former is None:
                return []
            self._alert = None
            end = replace(former.resolved_at(now, RELOAD_ACCEPTED), value=0.0)
            return [Transition(TransitionKind.RESOLVED, end)]
        self._alert = self._firing_alert(self.refusal, now, former)
        return [] if former is not None else [Transition(TransitionKind.FIRING, self._alert)]

    def firing_alerts(self) -> Mapping[str, Alert]:
        """Return the firing alert by its fingerprint, none while the files are in force."""
        return {} if self._alert is None else {self._alert.fingerprint: self._alert}

    def _firing_alert(self, refusal: Refusal, now: Now, former: Alert | None) -> Alert:
        return Alert(
            rule=RELOAD_REFUSED_RULE,
            labels=(),
            fingerprint=fingerprint(RELOAD_REFUSED_RULE, ()),
            state=AlertState.FIRING,
            severity=Severity.CRITICAL,
            summary=refusal.describe(),
            value=float(refusal.count),
            threshold=0.0,
            peak=max(refusal.count, former.peak if former else 0.0),
            started=former.started if former else now.wall,
            fired=former.fired if former else now.wall,
            resolved=None,
            reason="the files have problems: see the log, or run bpf-watchdog check",
            receivers=self._receivers,
            runbook=None,
            boottimes=former.boottimes if former else Boottimes(now.boottime_ns, now.boottime_ns),
        )
