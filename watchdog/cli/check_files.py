"""The files that `check` judges together, and their problems: the files given, or the set that the daemon will read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from watchdog.alerts import wording
from watchdog.cli.check_hosts import RULES_FOLDER_NAME, SETTINGS_FILE_NAME, host_folder, paths_by_host
from watchdog.cli.kernel_notes import kernel_notes
from watchdog.clock import SECOND_NS, SystemClock
from watchdog.config import suggestions
from watchdog.config.document import Document
from watchdog.config.permissions import access_remedy
from watchdog.config.settings import (
    BUILT_IN_SETTINGS,
    DEFAULT_RULES_FOLDER,
    DEFAULT_SETTINGS_FILE,
    SETTINGS_TABLES,
    SettingsDocument,
    open_document,
    path_exists,
    read_settings,
)
from watchdog.config.trusted_files import data_owners, flaws_on_path, sudo_caller
from watchdog.errors import ConfigError, Problem
from watchdog.kernel import privileges
from watchdog.resources import shipped_rules_folder
from watchdog.routing.inhibition import check_inhibits
from watchdog.routing.route_checks import check_routes
from watchdog.routing.routes import Route, read_routes
from watchdog.routing.suppression_rules import read_suppression_rules
from watchdog.rules.language.changed_baselines import notes_on_changed_baselines
from watchdog.rules.language.exceptions import notes_on_ended_exceptions
from watchdog.rules.language.load import (
    disabled_rules,
    notes_on_skipped_files,
    read_rules,
    toml_files,
    with_shipped_rules,
)
from watchdog.rules.language.location_rules import check_locations
from watchdog.rules.language.named_lists import NamedLists
from watchdog.rules.language.narrower_rules import check_narrower_rules
from watchdog.rules.language.parse_rule import RuleEnvironment
from watchdog.rules.language.rule import Labels, Rule


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """The files to check, and the way to judge them.

    `paths`: files and folders. `settings_file`, `rules_folder`: of the daemon; with `rules_folder`, the files of
    `paths` are candidates, each in place of the file of its name, or of `candidate_name`, in this folder. `here`: judge
    as the daemon's account on this host.
    """

    paths: Sequence[Path] = ()
    settings_file: Path | None = None
    rules_folder: Path | None = None
    candidate_name: str | None = None
    here: bool = False


@dataclass(slots=True)
class CheckReport:
    """Problems, notes and counts of all checked files."""

    files: int = 0
    rules: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)


def check_files(request: CheckRequest) -> CheckReport:
    """Return the problems and notes of all files; those of each host are judged as a set of their own.

    Raises:
        NotPermitted: `here`, and this process cannot become the daemon's account.
    """
    if request.here or request.rules_folder or request.candidate_name:  # of one daemon
        return _Check(request).run()
    checks = [_Check(replace(request, paths=paths)) for paths in paths_by_host(request.paths)]
    reports = [one.run() for one in checks]
    return CheckReport(
        files=len(set().union(*(one.seen for one in checks))),
        rules=sum(report.rules for report in reports),
        problems=sorted({problem for report in reports for problem in report.problems}),
        notes=sorted({note for report in reports for note in report.notes}),
    )


class _Check:
    """The check of one set of files. `seen`: paths of all files that it opened, or tried to."""

    def __init__(self, request: CheckRequest) -> None:
        self._request = request
        self._report = CheckReport()
        self._documents: dict[str, Document] = {}
        self.seen: set[str] = set()

    def run(self) -> CheckReport:
        request, report = self._request, self._report
        candidates = [path for path in request.paths if not _is_folder(path)]
        for path in candidates:  # before root is given up: the temporary copy of a hook may be root's alone
            self._open(str(path))
        if request.here:
            become_daemon_account()
        folder, is_implied = self._rules_folder(candidates)
        rule_files = self._rule_files(folder, candidates, is_implied=is_implied)
        settings_files = self._settings_files(folder, candidates)
        files = dict.fromkeys((*settings_files, *rule_files))
        opened = [document for file in files if (document := self._documents.get(file)) is not None]
        rules = self._judge(opened, folder)
        if folder is not None and not report.problems:
            report.notes += notes_on_changed_baselines(self._former_rules(folder, candidates), rules)
        if not rules and not report.problems and (request.here or request.rules_folder):
            place = folder or request.paths[0]
            report.problems.append(Problem(str(place), 1, "rule", "no rules found: no alert could ever fire"))
        report.files, report.rules = len(self.seen), len(rules)
        if request.here:
            report.problems = [_with_remedy(problem) for problem in report.problems]
        report.problems.sort()
        report.notes = sorted(set(report.notes))
        return report

    def _open(self, file: str, *, is_implied: bool = False) -> None:
        """Open a file once. `is_implied`: the user did not name it, and may be unable to read it."""
        if file in self.seen:
            return
        self.seen.add(file)
        here = self._request.here
        try:
            document = open_document(file, require_secrets=here, is_in_service=not here, require_trust=False)
        except ConfigError as error:
            if is_implied and not here and all(problem.denied_path for problem in error.problems):
                self._report.notes += [replace(one, message=f"not checked: {one.message}") for one in error.problems]
                self.seen.discard(file)
            else:
                self._report.problems += error.problems
        else:
            self._documents[file] = document
            self._report_untrusted(document)

    def _report_untrusted(self, document: Document) -> None:
        """Report files that others can change: as problems to root, who judges its own files, else as notes."""
        request, report = self._request, self._report
        is_candidate = request.rules_folder is not None or request.candidate_name is not None
        if is_candidate and document.file in map(str, request.paths):
            return  # the daemon will read a copy of it
        found = report.problems if request.here or os.geteuid() == 0 else report.notes
        found += [problem for problem in document.untrusted if problem not in found]
        caller = sudo_caller() - {0}
        for flaw in flaws_on_path(document.file, data_owners() - caller) if caller else ():
            if Problem(flaw.path, 1, "file", str(flaw)) not in document.untrusted:
                note = f"the service would refuse it, unlike a daemon that you start by sudo: {flaw}"
                report.notes.append(Problem(flaw.path, 1, "file", note))

    def _rules_folder(self, candidates: Sequence[Path]) -> tuple[Path | None, bool]:
        """Return the folder whose files are judged with the candidates, and whether the user did not name it."""
        request = self._request
        if request.rules_folder is not None:
            return request.rules_folder, False
        if not request.paths:
            return _default_rules_folder(), False
        if request.candidate_name is not None:
            return Path(DEFAULT_RULES_FOLDER), True
        hosts = (host_folder(path) for path in candidates)
        return next((host / RULES_FOLDER_NAME for host in hosts if host is not None), None), True

    def _rule_files(self, folder: Path | None, candidates: Sequence[Path], *, is_implied: bool) -> list[str]:
        """Return the files of `folder`, with candidates in the place of those of their name; without it, all given."""
        given = [file for path in self._request.paths for file in self._files_of(path)]
        if folder is None:
            return given
        settings = {str(path) for path in candidates if self._is_settings(str(path))}
        by_name = {_name(file): file for file in self._files_of(folder, is_implied=is_implied)}
        for file in given:
            by_name[self._request.candidate_name or _name(file)] = file
        files = [by_name[name] for name in sorted(by_name, key=os.fsencode)]
        for file in files:
            self._open(file, is_implied=is_implied)
        return [file for file in files if file not in settings]

    def _files_of(self, path: Path, *, is_implied: bool = False) -> list[str]:
        try:
            files = toml_files(path)
        except ConfigError as error:
            self._report.problems += error.problems
            return []
        if _is_folder(path):
            notes = notes_on_skipped_files(path)
            if self._request.candidate_name is not None:  # its temporary copy can be in the folder itself
                notes = [note for note in notes if note.file not in map(str, self._request.paths)]
            self._report.notes += notes
            if not files and not is_implied and path in self._request.paths:
                self._report.problems.append(Problem(str(path), 1, "file", "no *.toml files here: nothing to check"))
        if path in self._request.paths:
            for file in files:
                self._open(file)
        return files

    def _former_rules(self, folder: Path, candidates: Sequence[Path]) -> list[Rule]:
        """Return the rules of the files of `folder` that `candidates` will replace, as far as they can be read."""
        former: list[Rule] = []
        for path in candidates:
            place = folder / (self._request.candidate_name or _name(str(path)))
            if self._is_settings(str(path)) or not path_exists(str(place)) or place == path:
                continue
            with contextlib.suppress(ConfigError):
                document = open_document(str(place), require_secrets=False, is_in_service=False, require_trust=False)
                former += read_rules(document, RuleEnvironment(None, SECOND_NS, {}))
        return former

    def _is_settings(self, file: str) -> bool:
        document = self._documents.get(file)
        return document is not None and _contains_settings(document) and not _contains_rules(document)

    def _settings_files(self, folder: Path | None, candidates: Sequence[Path]) -> list[str]:
        """Return the settings that the daemon will read: a candidate, the file given, or the one beside the rules."""
        request = self._request
        given = [str(path) for path in candidates if self._is_settings(str(path))]
        if given and (folder is not None or request.settings_file is None):
            return given
        file, is_implied = request.settings_file, False
        if file is None:
            file, is_implied = self._implied_settings(folder), bool(request.paths)
        if file is None:
            return []
        self._open(str(file), is_implied=is_implied)
        return [str(file)]

    def _implied_settings(self, folder: Path | None) -> Path | None:
        folders = [folder, *self._request.paths] if folder else self._request.paths
        for host in map(host_folder, folders):
            if host is not None and os.path.lexists(host / SETTINGS_FILE_NAME):
                return host / SETTINGS_FILE_NAME
        standard = Path(DEFAULT_SETTINGS_FILE)
        is_daemons = self._request.here or not self._request.paths
        return standard if is_daemons and path_exists(str(standard)) else None

    def _judge(self, documents: Sequence[Document], folder: Path | None) -> tuple[Rule, ...]:
        """Add the problems and notes of all documents to the report; return their rules.

        `folder`: of the rules that the daemon will read, None if it is unknown.
        """
        report = self._report
        settings = [one for one in documents if _contains_settings(one) and not _contains_rules(one)]
        parsed = [_check_settings(document) for document in settings]
        if not parsed and self._request.here:  # the daemon would start without a file
            parsed = [read_settings(Document("", {}, BUILT_IN_SETTINGS))]
        locations = [one.values.locations for one in parsed]
        receivers = [name for one in parsed for name in one.values.receiver_names] if parsed else None
        interval_ns = max((one.values.sampling.interval_ns for one in parsed), default=SECOND_NS)
        lists = _read_lists(documents, is_complete=folder is not None)
        environment = RuleEnvironment(receivers, interval_ns, {}, lists=lists)
        rules_of = {id(one): read_rules(one, environment) for one in documents if _contains_rules(one)}
        all_rules = tuple(rule for rules in rules_of.values() for rule in rules)
        routes = [_read_routes(one, all_rules or None) for one in parsed]
        report.problems += [problem for files in locations for problem in check_locations(all_rules, files)]
        for document in documents:
            if _contains_rules(document):
                rules = rules_of[id(document)]
                report.notes += kernel_notes(rules)
                report.notes += notes_on_ended_exceptions(rules, SystemClock().wall())
                if not document.problems:
                    report.problems += _summary_problems(rules)
            elif document not in settings:
                _report_unknown_content(document)
            report.problems += document.problems
            report.notes += document.notes
        circles, unknown = check_narrower_rules(all_rules, environment.overrides, interval_ns)
        report.problems += circles
        report.notes += unknown
        in_force = all_rules
        if folder is not None and folder != shipped_rules_folder() and not report.problems:
            shipped = next((one.values.rules.shipped for one in parsed), None)
            try:
                in_force = with_shipped_rules(all_rules, environment, shipped=shipped)
            except ConfigError as error:
                report.problems += error.problems
        self._check_inhibits(in_force, environment, is_complete=folder is not None)
        for found, labels in routes:
            report.notes += check_routes(found, in_force or None, labels)
        return all_rules or in_force

    def _check_inhibits(self, rules: Sequence[Rule], environment: RuleEnvironment, *, is_complete: bool) -> None:
        if self._report.problems or not any(rule.inhibits for rule in rules):
            return
        missing = check_inhibits(rules, disabled_rules(rules, environment))
        if is_complete:
            self._report.problems += missing
        else:  # the rule can be in another file
            self._report.notes += [replace(one, message=f"not checked: {one.message}") for one in missing]


def become_daemon_account() -> None:
    """Change from root to the daemon's account: its access to files counts.

    Raises:
        NotPermitted: this process is neither root's nor the account's, or the account does not exist.
    """
    privileges.require_daemon_account()
    if os.geteuid() == 0:
        privileges.keep_only_capabilities(())


def _with_remedy(problem: Problem) -> Problem:
    if not problem.denied_path:
        return problem
    return replace(problem, message=f"{problem.message}: {access_remedy(problem.denied_path)}")


def _read_lists(documents: Sequence[Document], *, is_complete: bool) -> NamedLists:
    lists = NamedLists(is_complete=is_complete)
    for document in filter(_contains_rules, documents):
        lists.read(document)
    return lists


def _read_routes(settings: SettingsDocument, rules: Sequence[Rule] | None) -> tuple[tuple[Route, ...], Labels]:
    read_suppression_rules(settings, rules)  # for its problems
    return read_routes(settings, rules), settings.values.labels


def _default_rules_folder() -> Path:
    rules = Path(DEFAULT_RULES_FOLDER)
    return rules if path_exists(str(rules)) and _contains_files(rules) else shipped_rules_folder()


def _contains_files(folder: Path) -> bool:
    try:
        return bool(toml_files(folder))
    except ConfigError:  # reported when the folder is opened
        return True


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path's raises without permission


def _name(file: str) -> str:
    return os.path.basename(file)  # noqa: PTH119 - of a text


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


def _contains_rules(document: Document) -> bool:
    return any(key in document.root for key in ("rule", "override", "lists"))


def _contains_settings(document: Document) -> bool:
    return any(key in document.root for key in SETTINGS_TABLES)


def _check_settings(document: Document) -> SettingsDocument:
    settings = read_settings(document)
    if "networks" in document.root:
        from watchdog.measure.locations import report_location_files  # with numpy, which most checks do not need

        report_location_files(settings)
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
        document.root.add_problem(
            key, suggestions.unknown_name("key", key, ("rule", "override", "lists", *SETTINGS_TABLES))
        )
