"""Rules as alerting rules of Prometheus, for the evaluation over many hosts: groups by rule file, as YAML.

Source: prometheus.io/docs, "Alerting rules", "Template reference".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from watchdog import sanitize
from watchdog.alerts import wording
from watchdog.config.durations import format_duration
from watchdog.errors import Problem
from watchdog.rules.language.rule import Rule, Severity
from watchdog.rules.language.template import TemplateField
from watchdog.web import promql
from watchdog.web.rule_promql import RuleQuery
from watchdog.web.rule_series import InexpressibleRule

_INDENT = " " * 10
_NUMBERS = {
    "count": "{{ $value | humanize }}",
    "rate": "{{ $value | humanize }}/s",
    "bytes": "{{ $value | humanize }}B",
    "bytes/s": "{{ $value | humanize }}B/s",
    "seconds": "{{ $value | humanizeDuration }}",
    "percent": "{{ $value | humanizePercentage }}",
    "ago": "{{ $value | humanizeDuration }} ago",
}


@dataclass(frozen=True, slots=True)
class AlertingRule:
    """One severity of one rule. `notes`: differences from the rule. The rest is as in Prometheus, "" is left out."""

    alert: str
    expr: str
    for_time: str
    keep_firing_for: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the rule as Prometheus reads it."""
        times = {"for": self.for_time, "keep_firing_for": self.keep_firing_for}
        given = {key: value for key, value in times.items() if value}
        return {"alert": self.alert, "expr": self.expr, **given, "labels": self.labels, "annotations": self.annotations}


@dataclass(frozen=True, slots=True)
class ExportedRules:
    """Groups of alerting rules by name, and the rules that PromQL cannot express, each with the reason as problem."""

    groups: Mapping[str, Sequence[AlertingRule]]
    refused: Mapping[str, Problem] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return everything as one object."""
        groups = [
            {"name": name, "rules": [rule.to_json() for rule in rules]} for name, rules in self.groups.items() if rules
        ]
        notes = {f"{one.alert}/{one.labels['severity']}": one.notes for rules in self.groups.values() for one in rules}
        refused = [
            {"rule": name, "file": one.file, "line": one.line, "reason": one.message}
            for name, one in self.refused.items()
        ]
        return {"groups": groups, "notes": {name: list(texts) for name, texts in notes.items()}, "refused": refused}


def export_rules(rules: Sequence[Rule], scrape_ns: int) -> ExportedRules:
    """Translate `rules` for a server that scrapes the hosts each `scrape_ns`."""
    queries: dict[str, RuleQuery] = {}
    refused: dict[str, Problem] = {}
    for rule in rules:
        try:
            query = RuleQuery(rule, scrape_ns)
            for severity in rule.thresholds.fire:
                query.condition(severity)
        except InexpressibleRule as error:
            refused[rule.id] = Problem(rule.file, rule.line, rule.id, str(error))
        else:
            queries[rule.id] = query
    names = _group_names([rule.file for rule in rules])
    groups: dict[str, list[AlertingRule]] = {name: [] for name in names.values()}
    for query in queries.values():
        groups[names[query.rule.file]].extend(_alerting_rules(query, queries))
    return ExportedRules(groups, refused)


def _group_names(files: Sequence[str]) -> dict[str, str]:
    """Return the name of the group of each file: Prometheus refuses one that is given twice."""
    names, seen = {}, Counter[str]()
    for file in dict.fromkeys(files):
        name = "bpf-watchdog " + sanitize.escape_unprintable(PurePath(file).stem)
        seen[name] += 1
        names[file] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return names


def _alerting_rules(query: RuleQuery, queries: Mapping[str, RuleQuery]) -> Iterator[AlertingRule]:
    rule = query.rule
    narrower = [queries[name].rule for name in rule.unless_firing if name in queries]
    absent = [name for name in rule.unless_firing if name not in queries]
    notes = [f"fires also beside alerts of {name}, which is not exported" for name in absent]
    for severity in sorted(rule.thresholds.fire):
        expression = query.condition(severity, narrower)
        summary = _Annotation(rule, severity)
        yield AlertingRule(
            rule.id,
            expression,
            promql.duration(rule.for_ns) if rule.for_ns else "",
            promql.duration(rule.keep_firing_for_ns) if rule.keep_firing_for_ns else "",
            {"severity": severity.label, **{name: _literal(value) for name, value in rule.labels}},
            {"summary": summary.text} | ({"runbook_url": _literal(rule.runbook)} if rule.runbook else {}),
            (*query.notes, *notes, *summary.notes),
        )


class _Annotation:
    """The summary of a rule as template of Prometheus. `notes`: fields that Prometheus does not know."""

    def __init__(self, rule: Rule, severity: Severity) -> None:
        self._rule = rule
        self._severity = severity
        self.notes: list[str] = []
        self.text = "".join(
            _literal(part) if isinstance(part, str) else self._field(part) for part in rule.summary.parts
        )

    def _field(self, part: TemplateField) -> str:
        rule = self._rule
        if part.name in rule.by:
            return f'{{{{ or $labels.{part.name} "-" }}}}'
        match part.name:
            case "value" | "peak":
                if part.name == "peak":
                    self.notes.append("summary: {peak} is the present value")
                return _NUMBERS[part.format]
            case "threshold":
                return _literal(wording.limit_of(rule, self._severity, None).written(part.format))
            case "host":
                return "{{ $labels.instance }}"
            case "severity":
                return self._severity.label
            case "rule":
                return rule.id
            case "since":
                self.notes.append("summary: {since} is not known to Prometheus")
                return "-"
        return format_duration(rule.window_ns if part.name == "window" else rule.for_ns)


def _literal(text: str) -> str:
    """Return `text` for a template of Go, in which it stands for itself."""
    return text.replace("{", '{{"{"}}')


def to_yaml(exported: ExportedRules, origin: str) -> Iterator[str]:
    """Yield the lines of a rule file of Prometheus. `origin`: of the file, for its first lines."""
    yield from (_comment(line) for line in origin.splitlines())
    groups = {name: rules for name, rules in exported.groups.items() if rules}
    yield "groups:" if groups else "groups: []"
    for name, rules in groups.items():
        yield f"  - name: {_text(name)}"
        yield "    rules:"
        for rule in rules:
            yield from _rule_lines(rule)
    if exported.refused:
        yield _comment("Not exported:")
    for name, problem in exported.refused.items():
        yield _comment(f"  {name}: {problem.message}")


def _rule_lines(rule: AlertingRule) -> Iterator[str]:
    yield from (f"      {_comment(note)}" for note in rule.notes)
    yield f"      - alert: {_text(rule.alert)}"
    yield "        expr: |-"
    yield from (f"{_INDENT}{line}" for line in rule.expr.splitlines())
    if rule.for_time:
        yield f"        for: {rule.for_time}"
    if rule.keep_firing_for:
        yield f"        keep_firing_for: {rule.keep_firing_for}"
    for key, values in (("labels", rule.labels), ("annotations", rule.annotations)):
        yield f"        {key}:"
        yield from (f"{_INDENT}{name}: {_text(value)}" for name, value in values.items())


def _comment(text: str) -> str:
    return f"# {sanitize.escape_unprintable(text)}".rstrip()


def _text(text: str) -> str:
    """Return a text as double-quoted scalar: printable text in JSON is YAML too."""
    return json.dumps(sanitize.for_log(text), ensure_ascii=False)
