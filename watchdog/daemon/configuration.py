"""The configuration: everything read from files, read as a whole, so that one mistake anywhere changes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from watchdog.clock import SystemClock
from watchdog.config.document import Table
from watchdog.config.durations import parse_duration
from watchdog.config.line_numbers import KeyPath
from watchdog.config.location_files import NO_LOCATION_FILES
from watchdog.config.permissions import access_remedy
from watchdog.config.settings import (
    DEFAULT_RULES_FOLDER,
    MIN_INTERVAL,
    Settings,
    SettingsDocument,
    open_settings,
    path_exists,
    read_settings,
)
from watchdog.daemon.heartbeat import HeartbeatTarget
from watchdog.errors import ConfigError, Problem
from watchdog.measure.locations import report_location_files
from watchdog.receivers.base import OpenReceiverState, Receiver, open_volatile_state
from watchdog.receivers.registry import build_receivers
from watchdog.resources import shipped_rules_folder
from watchdog.routing.inhibition import check_inhibits
from watchdog.routing.route_checks import check_routes
from watchdog.routing.routes import Route, read_routes
from watchdog.routing.suppression_rules import SuppressionRules, read_suppression_rules
from watchdog.rules.language.exceptions import notes_on_ended_exceptions
from watchdog.rules.language.load import RuleSet, load_layered_rules, load_rules, only_self_watch, toml_files
from watchdog.rules.language.location_rules import check_locations
from watchdog.rules.language.rule import Rule
from watchdog.rules.language.rule_source import RuleOrigin, RuleSource, count_shipped, origin_text


@dataclass(frozen=True, slots=True)
class ConfigurationSources:
    """The files to read; None means the default place."""

    settings_file: str | None = None
    rules_path: str | None = None
    interval_ns: int | None = None  # overrides that of the settings


@dataclass(frozen=True, slots=True)
class ConfigurationTexts:
    """The files as they were read.

    `settings`: the parsed settings. `secrets`: the keys of the secrets that stand in them. `rules`: the text of each
    rule file by its name; None: the shipped rules.
    """

    settings: Mapping[str, object] = field(repr=False)
    secrets: tuple[KeyPath, ...]
    rules: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Configuration:
    """What was read: settings, live receivers by name, rules and where they come from, notes for their author.

    `rules_origin`: file or folder of the rules. `sources`: of the rules, by id. `texts`: None once they are saved.
    `settings_digests`: of each key of the settings file, by name, as `changed_settings` compares them; never shown,
    because settings can have secrets.
    """

    settings: Settings
    interval_ns: int
    receivers: Mapping[str, Receiver]
    rules: tuple[Rule, ...]
    rules_origin: str
    notes: tuple[Problem, ...]
    heartbeat: HeartbeatTarget | None = None
    routes: tuple[Route, ...] = ()
    suppression: SuppressionRules = field(default_factory=SuppressionRules)
    sources: Mapping[str, RuleSource] = field(default_factory=dict)
    texts: ConfigurationTexts | None = None
    settings_digests: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def shipped_rules(self) -> int:
        """The number of shipped rules in force."""
        return count_shipped((rule.id for rule in self.rules), self.sources)

    @property
    def rules_origin_text(self) -> str:
        """The origin of the rules for people, with the number of the shipped ones."""
        return origin_text(self.rules_origin, len(self.rules), self.shipped_rules)


def read_configuration(
    sources: ConfigurationSources, open_state: OpenReceiverState = open_volatile_state
) -> Configuration:
    """Read settings, secrets and rules.

    Without `sources.rules_path`: the files of /etc/bpf-watchdog/rules.d where there are any, else the shipped rules.
    Beside the files of the user, shipped rules stay in force as in `load_layered_rules`.

    Raises:
        ConfigError: with every problem of every file; then nothing was opened that would have to be closed.
    """
    problems: list[Problem] = []
    document, receivers, heartbeat = _read_settings_file(sources.settings_file, open_state, problems)
    settings = None if document is None else document.values
    # Without the file's interval, no window of a rule is too short.
    known_ns = settings.sampling.interval_ns if settings else parse_duration(MIN_INTERVAL)
    interval_ns = known_ns if sources.interval_ns is None else sources.interval_ns
    loaded, origin, is_shipped = _read_rules(sources.rules_path, settings, interval_ns, problems)
    routes: tuple[Route, ...] = ()
    suppression = SuppressionRules()
    if document is not None:
        routes = read_routes(document, None if loaded is None else loaded.rules)
        suppression = read_suppression_rules(document, None if loaded is None else loaded.rules)
        problems += set(document.document.problems)
    if problems or settings is None or loaded is None or document is None:
        raise ConfigError(sorted(map(_add_remedy, problems)))
    loaded = with_runbooks(loaded, settings)
    ended = notes_on_ended_exceptions(loaded.rules, SystemClock().wall())
    notes = (*document.document.notes, *check_routes(routes, loaded.rules, settings.labels), *loaded.notes, *ended)
    return Configuration(
        settings,
        interval_ns,
        receivers,
        loaded.rules,
        origin,
        notes,
        heartbeat,
        routes,
        suppression,
        sources=loaded.sources,
        texts=ConfigurationTexts(
            document.document.root.data,
            tuple(document.document.inline_secrets),
            None if is_shipped else loaded.texts,
        ),
        settings_digests={key: _digest(value) for key, value in document.document.root.data.items()},
    )


def _read_rules(
    path: str | None, settings: Settings | None, interval_ns: int, problems: list[Problem]
) -> tuple[RuleSet | None, str, bool]:
    """Return the rules, None after a problem; their origin, and whether they are the shipped ones alone."""
    origin, is_shipped = "", False
    try:
        folder, is_shipped = rules_folder(path)
        origin = rules_origin(folder, is_shipped=is_shipped)
        loaded = load_rules_in_force(
            folder,
            receivers=settings.receiver_names if settings else None,
            interval_ns=interval_ns,
            shipped=settings.rules.shipped if settings else None,
            is_shipped=is_shipped,
        )
    except ConfigError as error:
        problems += error.problems
        return None, origin, is_shipped
    if not loaded.rules:
        problems.append(Problem(str(folder), 1, "rule", "no rules found: no alert could ever fire"))
    problems += check_inhibits(loaded.rules, loaded.disabled)
    problems += check_locations(loaded.rules, NO_LOCATION_FILES if settings is None else settings.locations)
    return loaded, origin, is_shipped


def _digest(value: object) -> bytes:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).digest()


def _read_settings_file(
    file: str | None, open_state: OpenReceiverState, problems: list[Problem]
) -> tuple[SettingsDocument | None, dict[str, Receiver], HeartbeatTarget | None]:
    # None when the file cannot be read at all; then `problems` has the reason. Others are in the document.
    try:
        document = open_settings(file)
    except ConfigError as error:
        problems += error.problems
        return None, {}, None
    settings = read_settings(document)
    report_location_files(settings)
    receivers: dict[str, Receiver] = {}
    with contextlib.suppress(ConfigError):  # its problems are in the document
        receivers = build_receivers(settings, open_state)
    heartbeat = _heartbeat(settings.heartbeat)
    return settings, receivers, heartbeat


def _heartbeat(table: Table | None) -> HeartbeatTarget | None:
    if table is None:
        return None
    from watchdog.daemon.heartbeat_url import HeartbeatUrl

    return HeartbeatUrl.from_table(table)


def rules_folder(given: str | None) -> tuple[Path, bool]:
    """Return the file or folder of the rules, `given` or the default one, and whether it has the shipped rules.

    Raises:
        ConfigError: `given` does not exist, or the folder cannot be read.
    """
    if given is not None:
        if not path_exists(given):
            raise ConfigError([Problem(given, 1, "rules", "no such file or folder")])
        return Path(given), Path(given) == Path(shipped_rules_folder())
    own = Path(DEFAULT_RULES_FOLDER)
    if path_exists(DEFAULT_RULES_FOLDER) and toml_files(own):
        return own, False
    return shipped_rules_folder(), True


def rules_origin(folder: Path, *, is_shipped: bool) -> str:
    """Return the path of the rules for people, that of the shipped ones without links."""
    return os.path.realpath(folder) if is_shipped else str(folder)


def load_rules_in_force(
    folder: Path, *, receivers: Collection[str] | None, interval_ns: int, shipped: bool | None, is_shipped: bool
) -> RuleSet:
    """Load the rules that the daemon uses; arguments as of `load_layered_rules` and the results of `rules_folder`.

    Raises:
        ConfigError: with every problem of every file.
    """
    if not is_shipped:
        return load_layered_rules(folder, receivers=receivers, interval_ns=interval_ns, shipped=shipped)
    loaded = load_rules([folder], receivers=receivers, interval_ns=interval_ns)
    return only_self_watch(loaded) if shipped is False else loaded


def with_runbooks(loaded: RuleSet, settings: Settings) -> RuleSet:
    """Return the rules with a runbook for each shipped one that has none, below the configured address."""
    base = settings.docs.runbook_base
    if base is None:
        return loaded
    rules, sources = [], dict(loaded.sources)
    for rule in loaded.rules:
        source = sources.get(rule.id)
        if rule.runbook is None and source is not None and source.origin is not RuleOrigin.OWN:
            sources[rule.id] = source.with_value("runbook", base + rule.id, f"docs.runbook_base of {settings.file}")
            rules.append(replace(rule, runbook=base + rule.id))
        else:
            rules.append(rule)
    return replace(loaded, rules=tuple(rules), sources=sources)


def _add_remedy(problem: Problem) -> Problem:
    if not problem.denied_path:
        return problem
    # At the start root may have read the file, which the account cannot.
    return replace(problem, message=f"{problem.message}: {access_remedy(problem.denied_path)}")


def changed_restart_keys(started: Settings, settings: Settings) -> list[str]:
    """Return the keys that differ from those of the start and that a reload leaves as they are."""
    parts = (
        ("sampling", started.sampling.map_sizes, settings.sampling.map_sizes),
        ("networks", started.networks, settings.networks),
        ("networks", started.locations, settings.locations),
    )
    changed = [
        f"{table}.{one.name}"
        for table, before, now in parts
        for one in fields(before)
        if getattr(before, one.name) != getattr(now, one.name)
    ]
    return [*changed, *(["web"] if started.web != settings.web else [])]


def changed_settings(former: Configuration, new: Configuration) -> list[str]:
    """Return the tables and keys of the settings file that differ, sorted; the order of the keys in them does not."""
    before, after = former.settings_digests, new.settings_digests
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def format_rule_ids(rules: Sequence[Rule]) -> str:
    """Return the ids of the rules as a text; only the first four of many."""
    ids = [rule.id for rule in rules]
    max_ids = 4
    return ", ".join(ids[:max_ids]) + (f" and {len(ids) - max_ids} more" if len(ids) > max_ids else "")
