"""`bpf-watchdog check`: everything that is wrong with rule files and settings, without running anything."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from watchdog.alerts import wording
from watchdog.clock import SECOND_NS
from watchdog.config import suggestions
from watchdog.config.document import Document
from watchdog.config.settings import (
    DEFAULT_RULES_FOLDER,
    DEFAULT_SETTINGS_FILE,
    SettingsDocument,
    open_document,
    path_exists,
    read_settings,
)
from watchdog.errors import ConfigError, Problem, UsageError
from watchdog.measure.catalogue import ON_DEMAND_METRICS
from watchdog.resources import shipped_rules_folder
from watchdog.routing.route_checks import check_routes
from watchdog.routing.routes import read_routes
from watchdog.rules.language.expression import metrics_of
from watchdog.rules.language.load import read_rules, toml_files
from watchdog.rules.language.parse_rule import RuleEnvironment
from watchdog.rules.language.rule import Rule

_SETTINGS = ("evidence", "heartbeat", "receiver", "route", "routing", "sampling")
_DESCRIPTION = """\
Check rule files and settings, and print every problem as `file:line: key: message`.

PATH is a file under any name, or a folder whose *.toml files are checked; rules and settings are told apart by what is
in them. Without PATH: /etc/bpf-watchdog/watchdog.toml and /etc/bpf-watchdog/rules.d, or the shipped rules where there
are none.

Needs no root, no network and no daemon, so that it fits the validation hooks of configuration management:
`validate: bpf-watchdog check %s`. What can only be known on the guarded host (receivers that stand in another file,
secrets that this user cannot read) is a note. Exit code: 0 no problem, 1 problems, 2 no such path."""


@dataclass(slots=True)
class _CheckReport:
    """What came out of the files."""

    files: int = 0
    rules: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "check",
        help="check rule files and settings, without running anything",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", metavar="PATH", nargs="*", type=Path, help="a TOML file, or a folder of them")
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="also check this watchdog.toml, and the rules' receivers against it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, print, and return the exit code.

    Raises:
        UsageError: there is no such path.
    """
    paths = [*([args.config] if args.config else []), *args.paths]
    if not args.paths:
        paths += _usual_paths(with_config=args.config is None)
    for path in paths:
        if not os.path.lexists(path):
            raise UsageError(f"no such file or folder: {path}")
    findings = _check(paths)
    if args.json:
        print(json.dumps(asdict(findings), indent=2))
    else:
        _print(findings)
    return 1 if findings.problems else 0


def _usual_paths(*, with_config: bool) -> list[Path]:
    config, rules = Path(DEFAULT_SETTINGS_FILE), Path(DEFAULT_RULES_FOLDER)
    own = path_exists(str(rules)) and _holds_files(rules)
    return [*([config] if with_config and path_exists(str(config)) else []), rules if own else shipped_rules_folder()]


def _holds_files(folder: Path) -> bool:
    try:
        return bool(toml_files(folder))
    except ConfigError:  # to be told when it is opened
        return True


def _print(findings: _CheckReport) -> None:
    notes = [Problem(note.file, note.line, note.key, f"note: {note.message}") for note in findings.notes]
    for line in sorted(findings.problems + notes):
        print(line)
    counts = f"{_counted(findings.files, 'file')}, {_counted(findings.rules, 'rule')}"
    found = f"{_counted(len(findings.problems), 'problem')}, {_counted(len(findings.notes), 'note')}"
    print(f"{counts}: {found}", file=sys.stderr)


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _check(paths: Sequence[Path]) -> _CheckReport:
    findings = _CheckReport()
    documents = _open_all(paths, findings)
    settings = [document for document in documents if not _holds_rules(document) and _holds_settings(document)]
    configs = [_check_settings(document) for document in settings]
    routes = [read_routes(config) for config in configs]
    receivers = [name for config in configs for name in config.values.receiver_names] if configs else None
    interval_ns = max((config.values.sampling.interval_ns for config in configs), default=SECOND_NS)
    around = RuleEnvironment(receivers, interval_ns, {})
    all_rules: list[Rule] = []
    for document in documents:
        if _holds_rules(document):
            rules = read_rules(document, around)
            all_rules += rules
            findings.notes += _doubts(rules)
            if not document.problems:
                findings.problems += _rehearsed(rules)
        elif document not in settings:
            _tell_neither(document)
        findings.problems += document.problems
        findings.notes += document.notes
    findings.rules = len(all_rules)
    for each in routes:
        findings.notes += check_routes(each, all_rules or None)
    findings.problems.sort()
    findings.notes.sort()
    return findings


def _doubts(rules: Sequence[Rule]) -> list[Problem]:
    # On the host that it guards, a rule can be right and still have nothing to read.
    readers = [rule for rule in rules if ON_DEMAND_METRICS.intersection(metrics_of(rule.metric))]
    if not readers:
        return []
    from watchdog.kernel.btf import message_probes_warning

    doubts = message_probes_warning()
    return [Problem(rule.file, rule.line, "metric", doubts) for rule in readers if doubts]


def _rehearsed(rules: Sequence[Rule]) -> list[Problem]:
    # What parses can be written too; should that ever not be so, nobody is to find out at night.
    problems = []
    for rule in rules:
        try:
            wording.check_summary(rule)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the rule's author must know
            message = f"cannot be written: {type(error).__name__}: {error}"
            problems.append(Problem(rule.file, rule.line, "rule.summary", message))
    return problems


def _open_all(paths: Sequence[Path], findings: _CheckReport) -> list[Document]:
    files: dict[str, None] = {}  # in order, each once
    for path in paths:
        try:
            found = toml_files(path)
            files.update(dict.fromkeys(found))
            if not found:
                findings.problems.append(Problem(str(path), 1, "file", "no *.toml files here: nothing to check"))
        except ConfigError as error:
            findings.problems += error.problems
    documents = []
    for file in files:
        try:
            documents.append(open_document(file, require_secrets=False))
        except ConfigError as error:
            findings.problems += error.problems
    findings.files = len(files)
    return documents


def _holds_rules(document: Document) -> bool:
    return "rule" in document.root


def _holds_settings(document: Document) -> bool:
    return any(key in document.root for key in _SETTINGS)


def _check_settings(document: Document) -> SettingsDocument:
    settings = read_settings(document)
    if "receiver" in document.root:
        # Late, because receivers bring requests with them, and most checks are of rules.
        from watchdog.receivers.registry import build_receivers

        try:
            build_receivers(settings)
        except ConfigError as error:
            document.problems = sorted({*document.problems, *error.problems})
    if settings.heartbeat is not None:
        from watchdog.daemon.heartbeat_url import HeartbeatUrl

        HeartbeatUrl.from_table(settings.heartbeat)
    return settings


def _tell_neither(document: Document) -> None:
    keys = list(document.root)
    if not keys:
        document.root.add_note("file", "holds neither rules nor settings")
    for key in keys:
        document.root.add_problem(key, suggestions.unknown_name("key", key, ("rule", *_SETTINGS)))
