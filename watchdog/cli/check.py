"""`bpf-watchdog check`: all problems of rule files and settings, without starting anything."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from watchdog.alerts import wording
from watchdog.clock import SECOND_NS
from watchdog.config import suggestions
from watchdog.config.counts import format_count
from watchdog.config.document import Document
from watchdog.config.settings import (
    DEFAULT_RULES_FOLDER,
    DEFAULT_SETTINGS_FILE,
    SETTINGS_TABLES,
    SettingsDocument,
    open_document,
    path_exists,
    read_settings,
)
from watchdog.errors import ConfigError, Problem, UsageError
from watchdog.measure.catalogue import ON_DEMAND_METRICS, UNSENT_FAILURES
from watchdog.resources import shipped_rules_folder
from watchdog.routing.route_checks import check_routes
from watchdog.routing.routes import read_routes
from watchdog.rules.language.expression import metrics_of
from watchdog.rules.language.load import notes_on_skipped_files, read_rules, toml_files
from watchdog.rules.language.parse_rule import RuleEnvironment
from watchdog.rules.language.rule import Rule

_DESCRIPTION = """\
Check rule files and settings, and print every problem as `file:line: key: message`.

PATH is a file of any name, or a folder with *.toml files. Rule files and settings are recognized by their content.
Without PATH: /etc/bpf-watchdog/watchdog.toml and /etc/bpf-watchdog/rules.d, or the shipped rules if that has no files.

Needs no root, no network and no daemon. Use it as the validation hook of configuration management:
`validate: bpf-watchdog check %s`. Facts that only the monitored host knows (receivers of another file, secrets that
this user cannot read) are reported as notes. Exit code: 0 no problem, 1 problems, 2 no such path."""


@dataclass(slots=True)
class _CheckReport:
    """Problems, notes and counts of all checked files."""

    files: int = 0
    rules: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "check",
        help="check rule files and settings without starting anything",
        description=_DESCRIPTION,
    )
    parser.add_argument("paths", metavar="PATH", nargs="*", type=Path, help="a TOML file, or a folder of TOML files")
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="also check this watchdog.toml, and the receivers of rules against it",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the files, print the report, and return the exit code.

    Raises:
        UsageError: a path does not exist.
    """
    paths = [*([args.config] if args.config else []), *args.paths]
    if not args.paths:
        paths += _default_paths(with_settings=args.config is None)
    for path in paths:
        if not os.path.lexists(path):
            raise UsageError(f"no such file or folder: {path}")
    report = _check(paths)
    if args.json:
        print(json.dumps(_to_json(report), indent=2))
    else:
        _print(report)
    return 1 if report.problems else 0


def _default_paths(*, with_settings: bool) -> list[Path]:
    settings, rules = Path(DEFAULT_SETTINGS_FILE), Path(DEFAULT_RULES_FOLDER)
    paths = [settings] if with_settings and path_exists(str(settings)) else []
    has_rules = path_exists(str(rules)) and _contains_files(rules)
    return [*paths, rules if has_rules else shipped_rules_folder()]


def _contains_files(folder: Path) -> bool:
    try:
        return bool(toml_files(folder))
    except ConfigError:  # reported when the folder is opened
        return True


def _to_json(report: _CheckReport) -> dict[str, Any]:
    def rows(problems: Sequence[Problem]) -> list[dict[str, Any]]:
        return [{"file": one.file, "line": one.line, "key": one.key, "message": one.message} for one in problems]

    counts = {"files": report.files, "rules": report.rules}
    return {**counts, "problems": rows(report.problems), "notes": rows(report.notes)}


def _print(report: _CheckReport) -> None:
    notes = [Problem(note.file, note.line, note.key, f"note: {note.message}") for note in report.notes]
    for line in sorted(report.problems + notes):
        print(line)
    checked = f"{_format_count(report.files, 'file')}, {_format_count(report.rules, 'rule')}"
    found = f"{_format_count(len(report.problems), 'problem')}, {_format_count(len(report.notes), 'note')}"
    print(f"{checked}: {found}", file=sys.stderr)


def _format_count(number: int, noun: str) -> str:
    return format_count(number, noun) if number else f"no {noun}s"


def _check(paths: Sequence[Path]) -> _CheckReport:
    report = _CheckReport()
    documents = _open_all(paths, report)
    settings = [document for document in documents if not _contains_rules(document) and _contains_settings(document)]
    parsed = [_check_settings(document) for document in settings]
    routes = [read_routes(one) for one in parsed]
    receivers = [name for one in parsed for name in one.values.receiver_names] if parsed else None
    interval_ns = max((one.values.sampling.interval_ns for one in parsed), default=SECOND_NS)
    environment = RuleEnvironment(receivers, interval_ns, {})
    all_rules: list[Rule] = []
    for document in documents:
        if _contains_rules(document):
            rules = read_rules(document, environment)
            all_rules += rules
            report.notes += _kernel_notes(rules)
            if not document.problems:
                report.problems += _summary_problems(rules)
        elif document not in settings:
            _report_unknown_content(document)
        report.problems += document.problems
        report.notes += document.notes
    report.rules = len(all_rules)
    for each in routes:
        report.notes += check_routes(each, all_rules or None)
    report.problems.sort()
    report.notes.sort()
    return report


def _kernel_notes(rules: Sequence[Rule]) -> list[Problem]:
    # A rule can be correct although the kernel of this host does not provide its metric.
    return [*_on_demand_notes(rules), *_connect_error_notes(rules)]


def _on_demand_notes(rules: Sequence[Rule]) -> list[Problem]:
    readers = [rule for rule in rules if ON_DEMAND_METRICS.intersection(metrics_of(rule.metric))]
    if not readers:
        return []
    from watchdog.kernel.btf import message_probes_warning

    warning = message_probes_warning()
    return [Problem(rule.file, rule.line, "metric", warning) for rule in readers if warning]


def _connect_error_notes(rules: Sequence[Rule]) -> list[Problem]:
    readers = [rule for rule in rules if _names_unsent_failures(rule)]
    if not readers:
        return []
    from watchdog.kernel.fexit_support import connect_errors_warning

    warning = connect_errors_warning()
    return [Problem(rule.file, rule.line, "where.failure", warning) for rule in readers if warning]


def _names_unsent_failures(rule: Rule) -> bool:
    patterns = [pattern for one in rule.where if one.dimension == "failure" for pattern in one.any_of]
    return any(fnmatch.filter(UNSENT_FAILURES, pattern) for pattern in patterns)


def _summary_problems(rules: Sequence[Rule]) -> list[Problem]:
    # A summary that parses should also format. If it does not, `check` finds it before an alert does.
    problems = []
    for rule in rules:
        try:
            wording.check_summary(rule)
        except Exception as error:  # noqa: BLE001 - every error is reported to the rule's author
            message = f"cannot be formatted: {type(error).__name__}: {error}"
            problems.append(Problem(rule.file, rule.line, "rule.summary", message))
    return problems


def _open_all(paths: Sequence[Path], report: _CheckReport) -> list[Document]:
    files: dict[str, None] = {}  # in order, without duplicates
    for path in paths:
        try:
            found = toml_files(path)
            files.update(dict.fromkeys(found))
            report.notes += notes_on_skipped_files(path)
            if not found:
                report.problems.append(Problem(str(path), 1, "file", "no *.toml files here: nothing to check"))
        except ConfigError as error:
            report.problems += error.problems
    documents = []
    for file in files:
        try:
            documents.append(open_document(file, require_secrets=False))
        except ConfigError as error:
            report.problems += error.problems
    report.files = len(files)
    return documents


def _contains_rules(document: Document) -> bool:
    return "rule" in document.root or "override" in document.root


def _contains_settings(document: Document) -> bool:
    return any(key in document.root for key in SETTINGS_TABLES)


def _check_settings(document: Document) -> SettingsDocument:
    settings = read_settings(document)
    if "receiver" in document.root:
        # Imported late: receivers import requests, and most checks are of rule files.
        from watchdog.receivers.registry import build_receivers

        try:
            build_receivers(settings)
        except ConfigError as error:
            document.problems = sorted({*document.problems, *error.problems})
    if settings.heartbeat is not None:
        from watchdog.daemon.heartbeat_url import HeartbeatUrl

        HeartbeatUrl.from_table(settings.heartbeat)
    return settings


def _report_unknown_content(document: Document) -> None:
    keys = list(document.root)
    if not keys:
        document.root.add_note("file", "contains neither rules nor settings")
    for key in keys:
        document.root.add_problem(key, suggestions.unknown_name("key", key, ("rule", "override", *SETTINGS_TABLES)))
