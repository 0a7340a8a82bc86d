"""The identity of alerts beyond rule and labels: name of the host, labels of the user's own, key of the incident."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from watchdog.alerts.alert import Alert, AlertIdentity
from watchdog.config.generator_url import fill_generator_url
from watchdog.rules.language.rule import Labels, Rule


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """Facts of this host that its alerts carry.

    `labels`: of the settings; those of a rule win over them. `machine_id`: machine-id(5), so that two clones with one
    host name differ, "" if there is none. `runbooks`: addresses by rule id, of the alerts that no rule file makes.
    """

    host: str
    machine_id: str
    labels: Labels
    rule_labels: Mapping[str, Labels]
    generator_url: str = ""  # a template, see config/generator_url.py
    runbooks: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        host: str,
        machine_id: str,
        labels: Labels,
        rules: Iterable[Rule],
        generator_url: str = "",
        runbooks: Mapping[str, str] | None = None,
    ) -> HostIdentity:
        """Return the identity of `host` with the labels of the settings and of `rules`."""
        rule_labels = {rule.id: rule.labels for rule in rules if rule.labels}
        return cls(host, machine_id, labels, rule_labels, generator_url, runbooks or {})

    def mark(self, alert: Alert) -> Alert:
        """Return `alert` with this identity."""
        labels = tuple(sorted({**dict(self.labels), **dict(self.rule_labels.get(alert.rule, ()))}.items()))
        parts = (self.machine_id, self.host, alert.fingerprint)
        digest = hashlib.sha256(b"\xff".join(part.encode("utf-8", "surrogateescape") for part in parts))
        url = self._generator_url(alert, labels) if self.generator_url else ""
        identity = AlertIdentity(self.host, labels, digest.hexdigest(), url)
        return replace(alert, identity=identity, runbook=alert.runbook or self.runbooks.get(alert.rule))

    def _generator_url(self, alert: Alert, labels: Labels) -> str:
        own = {
            "rule": alert.rule,
            "severity": alert.severity.label,
            "host": self.host,
            "fingerprint": alert.fingerprint,
        }
        return fill_generator_url(self.generator_url, {**dict(labels), **dict(alert.labels), **own})
