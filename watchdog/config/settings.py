"""The settings file watchdog.toml, and the opening of TOML files."""

from __future__ import annotations

import enum
import os
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import tomli

from watchdog.clock import SECOND_NS
from watchdog.config import suggestions
from watchdog.config.bounded_file import UnusableFile, read_regular_file
from watchdog.config.document import Document, Table
from watchdog.config.durations import format_duration
from watchdog.config.generator_url import read_generator_url
from watchdog.config.labels import read_host, read_labels
from watchdog.config.location_files import NO_LOCATION_FILES, LocationFiles
from watchdog.config.map_sizes import DEFAULT_MAP_SIZES, MapSizes
from watchdog.config.network_prefixes import DEFAULT_NETWORK_PREFIXES, NetworkPrefixes
from watchdog.config.permissions import other_readers
from watchdog.config.trusted_files import data_owners, flaws_on_path
from watchdog.config.web_settings import WebSettings, read_web
from watchdog.errors import ConfigError, Problem
from watchdog.resources import plain_path

DEFAULT_SETTINGS_FILE: Final = "/etc/bpf-watchdog/watchdog.toml"
DEFAULT_RULES_FOLDER: Final = "/etc/bpf-watchdog/rules.d"
BUILT_IN_SETTINGS: Final = "(built-in defaults)"
SETTINGS_TABLES: Final = (
    "docs",
    "evidence",
    "generator_url",
    "heartbeat",
    "host",
    "inhibit",
    "labels",
    "log",
    "mute",
    "networks",
    "receiver",
    "route",
    "routing",
    "rules",
    "sampling",
    "web",
)
"""Tables and keys of a settings file; no rule file has one of them."""
MIN_INTERVAL: Final = "100ms"
MAX_INTERVAL: Final = "1h"
MAX_MAP_ENTRIES: Final = 4_000_000  # entries of one map, up to 1 GB
MAX_FILE_BYTES: Final = 1_000_000  # of a TOML file
_MAX_TABLES = {"receiver": 100, "route": 200, "mute": 200, "inhibit": 200}  # each receiver has a thread
DEFAULT_JITTER: Final = "10s"

_PLAIN_PARSER_MESSAGES = {"Cannot overwrite a value": "this key is given twice"}
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """Interval of the snapshots, and sizes of the BPF maps. The sizes apply at the start, not at a reload."""

    interval_ns: int = SECOND_NS
    map_sizes: MapSizes = DEFAULT_MAP_SIZES


@dataclass(frozen=True, slots=True)
class GroupTiming:
    """Timing of the notifications of one group."""

    group_wait_ns: int
    group_interval_ns: int
    repeat_interval_ns: int


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """Receivers of alerts without receivers of a rule or route, and timing of the notifications of a group.

    `receiver_down_after_ns`: a receiver that fails for this time is down: all others, and the host's log, are notified.
    `jitter_ns`: hosts spread their first notifications after a start or a reload over this time.
    """

    default: tuple[str, ...]
    group_wait_ns: int
    group_interval_ns: int
    repeat_interval_ns: int
    receiver_down_after_ns: int = 600 * SECOND_NS
    jitter_ns: int = 0

    @property
    def group_timing(self) -> GroupTiming:
        """Return the timing of groups without a timing of their own route."""
        return GroupTiming(self.group_wait_ns, self.group_interval_ns, self.repeat_interval_ns)


DEFAULT_GROUP_TIMING: Final = GroupTiming(0, 60 * SECOND_NS, 4 * 3600 * SECOND_NS)


@dataclass(frozen=True, slots=True)
class EscalationSettings:
    """Second receiver `to`, which gets the notifications of a receiver that has been failing for `after_ns`.

    `unacknowledged_ns`: it gets the alerts too that nobody has acknowledged for this time; None: it does not.
    """

    to: str
    after_ns: int
    unacknowledged_ns: int | None = None


@dataclass(frozen=True, slots=True)
class EvidenceSettings:
    """Contents of the evidence of alerts."""

    command_line: bool = True  # secrets in it are masked


class LogFormat(enum.StrEnum):
    """Format of the daemon's log."""

    TEXT = "text"  # event, then key=value
    JSON = "json"  # one object a line


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Log of the daemon."""

    format: LogFormat = LogFormat.TEXT


@dataclass(frozen=True, slots=True)
class DocsSettings:
    """Documentation that alerts point to; `runbook_base`: begin of the runbooks' addresses, None without one."""

    runbook_base: str | None = None


@dataclass(frozen=True, slots=True)
class RulesSettings:
    """The shipped rules beside those of the user; `shipped`: None if the file does not set it."""

    shipped: bool | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of watchdog.toml that the daemon keeps.

    `file`: `BUILT_IN_SETTINGS` without a file. `receiver_names`: in the file's order. `escalations`: by the name of the
    receiver that fails. `host`: name of this host, None: as the system calls it. `labels`: of all alerts, by name.
    `generator_url`: a template, see `config/generator_url.py`, "" without one. `web`: None: no metrics are served.
    """

    file: str
    sampling: SamplingSettings
    routing: RoutingSettings
    receiver_names: tuple[str, ...]
    evidence: EvidenceSettings = EvidenceSettings()
    escalations: Mapping[str, EscalationSettings] = field(default_factory=dict)
    rules: RulesSettings = RulesSettings()
    host: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    generator_url: str = ""
    networks: NetworkPrefixes = DEFAULT_NETWORK_PREFIXES
    locations: LocationFiles = NO_LOCATION_FILES
    docs: DocsSettings = DocsSettings()
    web: WebSettings | None = None
    log: LogSettings = LogSettings()


@dataclass(frozen=True, slots=True)
class SettingsDocument:
    """watchdog.toml while it is loaded: its values, and the tables that other packages read.

    `receivers`: (name, type, table) in the file's order, read by `receivers/registry.py`. `heartbeat`: read by
    `daemon/heartbeat_url.py`. `routes`: in the file's order, read by `routing/routes.py`. `mutes`,
    `inhibitions`: read by `routing/suppression_rules.py`.
    """

    document: Document
    values: Settings
    receivers: tuple[tuple[str, str, Table], ...]
    heartbeat: Table | None
    routes: tuple[Table, ...]
    mutes: tuple[Table, ...] = ()
    inhibitions: tuple[Table, ...] = ()


def open_document(
    file: str, *, require_secrets: bool = True, is_in_service: bool = True, require_trust: bool = True
) -> Document:
    """Read and parse a TOML file; the first two options are those of `Document`.

    Without `require_trust`, a file that others can change is opened, and the reasons are in `Document.untrusted`.

    Raises:
        ConfigError: missing, not a regular file, over 1 MB, not UTF-8, not TOML, or others can change it.
    """
    text, others = _read(file)
    untrusted = [Problem(flaw.path, 1, "file", str(flaw)) for flaw in flaws_on_path(file, data_owners())]
    if untrusted and require_trust:
        raise ConfigError(untrusted)
    shown = plain_path(file)
    document = Document(
        text,
        _parse(text, shown),
        shown,
        require_secrets=require_secrets,
        is_in_service=is_in_service,
        other_readers=others,
    )
    document.untrusted = untrusted
    return document


def _parse(text: str, file: str) -> dict[str, object]:
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        reason = _PLAIN_PARSER_MESSAGES.get(error.msg, error.msg)
        problem = Problem(file, error.lineno, "file", f"not TOML: {reason} (column {error.colno})")
    except RecursionError:
        problem = Problem(file, 1, "file", "nested too deeply")
    except ValueError:  # an integer with more digits than Python converts
        problem = Problem(file, 1, "file", "contains a number that is too long")
    raise ConfigError([problem])


def _read(file: str) -> tuple[str, str | None]:
    """Return the text of `file`, and the other users with access to it."""
    try:
        content, status = read_regular_file(file, MAX_FILE_BYTES)
    except OSError as error:
        raise unreadable_file(file, error) from None
    except UnusableFile as error:
        raise _unusable(file, str(error)) from None
    try:
        return content.decode().removeprefix("\ufeff"), other_readers(status, file)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _unusable(file, f"is not UTF-8 text: byte 0x{content[error.start]:02x}", line) from None


def unreadable_file(path: str, error: OSError) -> ConfigError:
    """Return the ConfigError for a file or folder that cannot be read."""
    message, denied_path = f"cannot read: {error.strerror}", path if isinstance(error, PermissionError) else ""
    return ConfigError([Problem(path, 1, "file", message, denied_path)])


def _unusable(file: str, message: str, line: int = 1) -> ConfigError:
    return ConfigError([Problem(file, line, "file", message)])


def path_exists(path: str) -> bool:
    """Return whether a file or folder exists at `path`.

    Raises:
        ConfigError: access is denied. To assume that nothing exists would put other settings into force.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unreadable_file(path, error) from None
    return True


def open_settings(file: str | None = None) -> Document:
    """Open watchdog.toml at `file`, or at its default path, where it may be missing.

    Raises:
        ConfigError: as `open_document`.
    """
    if file is None and not path_exists(DEFAULT_SETTINGS_FILE):
        return Document("", {}, BUILT_IN_SETTINGS)
    return open_document(file or DEFAULT_SETTINGS_FILE)


def load_settings(file: str | None = None) -> SettingsDocument:
    """Read watchdog.toml, found as in `open_settings`.

    Raises:
        ConfigError: with every problem of the file, except those inside the tables of `SettingsDocument`.
    """
    document = open_settings(file)
    settings = read_settings(document)
    document.raise_problems()
    return settings


def read_settings(document: Document) -> SettingsDocument:
    """Return the settings in `document`; problems are added to it."""
    root = document.root
    sampling = root.table("sampling")
    interval_ns = sampling.duration("interval", "1s", minimum=MIN_INTERVAL, maximum=MAX_INTERVAL)
    map_sizes = _read_map_sizes(sampling)
    sampling.reject_unknown_keys()
    receivers = _read_receivers(root)
    names = tuple(name for name, _, _ in receivers)
    # Jitter protects receivers that many hosts share; the console is not shared.
    jitter = DEFAULT_JITTER if "receiver" in root else "0s"
    routing = _read_routing(root.table("routing"), names, jitter)
    routes, mutes, inhibitions = (_bounded(root, key) for key in ("route", "mute", "inhibit"))
    heartbeat = root.table("heartbeat")  # read in any case, so that a misspelled key is compared with it
    evidence = _read_evidence(root.table("evidence"))
    networks, locations = _read_networks(root.table("networks"))
    docs = _read_docs(root.table("docs"))
    web = read_web(root.table("web"))
    log = _read_log(root.table("log"))
    host, labels = read_host(root), read_labels(root.table("labels"))
    generator_url = read_generator_url(root, dict(labels))
    if isinstance(root.data.get("rules"), list):  # [[rules]]
        root.add_problem("rules", 'unknown key "rules": did you mean "rule"?')
    rules = _read_rules_settings(root.table("rules"))
    if "rule" in root:
        root.add_problem("rule", "this is a rule file: give it by --rules, or move it to the folder of the rules")
    root.reject_unknown_keys()
    values = Settings(
        document.file,
        SamplingSettings(interval_ns, map_sizes),
        routing,
        names,
        evidence,
        _read_escalations(receivers),
        rules,
        host=host,
        labels=labels,
        generator_url=generator_url,
        networks=networks,
        locations=locations,
        docs=docs,
        web=web,
        log=log,
    )
    given_heartbeat = heartbeat if "heartbeat" in root else None
    return SettingsDocument(document, values, receivers, given_heartbeat, routes, mutes, inhibitions)


def _read_log(table: Table) -> LogSettings:
    text = table.text("format", LogFormat.TEXT.value, choices=[one.value for one in LogFormat])
    table.reject_unknown_keys()
    return LogSettings(LogFormat(text))


def _bounded(root: Table, key: str) -> tuple[Table, ...]:
    tables, limit = root.tables(key), _MAX_TABLES[key]
    if len(tables) > limit:
        root.add_problem(key, f"at most {limit} are possible, not {len(tables):,}")
    return tables[:limit]


def _read_evidence(table: Table) -> EvidenceSettings:
    evidence = EvidenceSettings(command_line=table.boolean("command_line", default=True))
    table.reject_unknown_keys()
    return evidence


def _read_docs(table: Table) -> DocsSettings:
    base = table.text("runbook_base", "")
    if base and not table.has_problem("runbook_base") and not is_web_address(base):
        table.add_problem("runbook_base", f"must be an http or https address, not {suggestions.quote_value(base)}")
    table.reject_unknown_keys()
    return DocsSettings(base or None)


def is_web_address(url: str) -> bool:
    """Return whether `url` is an http or https address that can be shown as it is."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and url.isprintable() and " " not in url


def _read_networks(table: Table) -> tuple[NetworkPrefixes, LocationFiles]:
    defaults = DEFAULT_NETWORK_PREFIXES
    prefixes = NetworkPrefixes(
        table.integer("ipv4_prefix", defaults.ipv4_prefix, minimum=8, maximum=32),
        table.integer("ipv6_prefix", defaults.ipv6_prefix, minimum=16, maximum=128),
    )
    files = LocationFiles(_read_path(table, "country_file"), _read_path(table, "asn_file"))
    table.reject_unknown_keys()
    return prefixes, files


def _read_path(table: Table, key: str) -> str | None:
    path = table.text(key, "")
    if path and not path.startswith("/"):
        table.add_problem(key, "must be an absolute path")
    return path or None


def _read_rules_settings(table: Table) -> RulesSettings:
    shipped = table.boolean("shipped", default=False)
    table.reject_unknown_keys()
    return RulesSettings(shipped if "shipped" in table else None)


def _read_map_sizes(table: Table) -> MapSizes:
    defaults = DEFAULT_MAP_SIZES
    return MapSizes(
        ledger=table.integer("ledger", defaults.ledger, minimum=8, maximum=MAX_MAP_ENTRIES),
        responses=table.integer("responses", defaults.responses, minimum=8, maximum=MAX_MAP_ENTRIES),
        processes=table.integer("processes", defaults.processes, minimum=8, maximum=MAX_MAP_ENTRIES),
    )


def _read_receivers(root: Table) -> tuple[tuple[str, str, Table], ...]:
    tables = _bounded(root, "receiver")
    if not tables and not root.has_problem("receiver"):
        tables = (Table(root.document, (), {"name": "console", "type": "console"}),)
    lines: dict[str, int] = {}
    receivers = []
    for table in tables:
        name = table.text("name")
        if not table.has_problem("name") and not _NAME.fullmatch(name):
            table.add_problem(
                "name", f"{suggestions.quote_value(name)}: use a to z, 0 to 9, _ and -, beginning with a letter"
            )
        if name in lines and not table.has_problem("name"):
            table.add_problem("name", f"{suggestions.quote_value(name)} is already the receiver of line {lines[name]}")
        lines.setdefault(name, table.line)
        receivers.append((name, table.text("type"), table))
    return tuple(receivers)


def _read_escalations(receivers: tuple[tuple[str, str, Table], ...]) -> dict[str, EscalationSettings]:
    names = tuple(name for name, _, _ in receivers)
    escalations: dict[str, EscalationSettings] = {}
    for name, _, table in receivers:
        to = table.text("escalate_to", "")
        after_ns = table.duration("escalate_after", "5m", maximum="1d")
        wait_ns = table.duration("escalate_unacknowledged", "15m", minimum="1s", maximum="7d")
        unacknowledged_ns = wait_ns if "escalate_unacknowledged" in table else None
        if not to:
            for key in ("escalate_after", "escalate_unacknowledged"):
                if key in table and not table.has_problem("escalate_to"):
                    table.add_problem(key, "needs escalate_to, the second receiver")
        elif to == name:
            table.add_problem("escalate_to", "must name another receiver")
        elif to not in names:
            table.add_problem("escalate_to", suggestions.unknown_name("receiver", to, names))
        elif name in (chain := _escalation_chain(to, escalations)):
            loop = " -> ".join((name, *chain[: chain.index(name) + 1]))
            table.add_problem("escalate_to", f"escalation loop: {loop}")
        else:
            escalations[name] = EscalationSettings(to, after_ns, unacknowledged_ns)
    return escalations


def _escalation_chain(name: str, escalations: Mapping[str, EscalationSettings]) -> tuple[str, ...]:
    chain: tuple[str, ...] = (name,)
    while chain[-1] in escalations:
        chain = (*chain, escalations[chain[-1]].to)
    return chain


def _read_routing(table: Table, names: tuple[str, ...], jitter: str) -> RoutingSettings:
    default = table.names("default", names, kind="receiver", known=names)
    if not default and not table.has_problem("default"):
        table.add_problem("default", "must name at least one receiver: no notification would be sent")
    timing = read_group_timing(table, DEFAULT_GROUP_TIMING)
    receiver_down_after_ns = table.duration("receiver_down_after", "10m", minimum="1m", maximum="1d")
    jitter_ns = table.duration("jitter", jitter, maximum="10m")
    table.reject_unknown_keys()
    return RoutingSettings(
        default,
        timing.group_wait_ns,
        timing.group_interval_ns,
        timing.repeat_interval_ns,
        receiver_down_after_ns=receiver_down_after_ns,
        jitter_ns=jitter_ns,
    )


def read_group_timing(table: Table, defaults: GroupTiming) -> GroupTiming:
    """Return the group timing in `table`; missing keys have the values of `defaults`."""
    return GroupTiming(
        group_wait_ns=table.duration("group_wait", format_duration(defaults.group_wait_ns), maximum="1h"),
        group_interval_ns=table.duration("group_interval", format_duration(defaults.group_interval_ns), maximum="1d"),
        repeat_interval_ns=table.duration(
            "repeat_interval", format_duration(defaults.repeat_interval_ns), minimum="1s", maximum="30d"
        ),
    )
