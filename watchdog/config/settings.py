"""The daemon's own file, watchdog.toml; and how any TOML file of ours is opened."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import tomli

from watchdog.clock import SECOND_NS
from watchdog.config import suggestions
from watchdog.config.document import Document, Table
from watchdog.config.durations import format_duration
from watchdog.config.map_sizes import USUAL as USUAL_CAPACITIES
from watchdog.config.map_sizes import Capacities
from watchdog.config.permissions import others_who_read
from watchdog.config.secrets import open_for_reading
from watchdog.errors import ConfigError, Problem

DEFAULT_CONFIG: Final = "/etc/bpf-watchdog/watchdog.toml"
DEFAULT_RULES: Final = "/etc/bpf-watchdog/rules.d"
BUILT_IN: Final = "(built-in defaults)"
SHORTEST_INTERVAL: Final = "100ms"
LONGEST_INTERVAL: Final = "1h"
MOST_ROWS: Final = 4_000_000  # of any map: 1 GB
DEFAULT_JITTER: Final = "10s"

_MOST_BYTES = 1_000_000
_PLAINER = {"Cannot overwrite a value": "this key is given twice"}
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How often a snapshot is taken, and how much the kernel keeps between two (as of the start, not of a reload)."""

    interval_ns: int = SECOND_NS
    capacities: Capacities = USUAL_CAPACITIES


@dataclass(frozen=True, slots=True)
class Waits:
    """How notices about one group are spaced."""

    group_wait_ns: int
    group_interval_ns: int
    repeat_interval_ns: int


@dataclass(frozen=True, slots=True)
class Routing:
    """To whom what no rule and no route says otherwise of goes, and how notices about one group are spaced.

    `delivery_dead_after_ns`: how long a receiver may fail before all others, and the host's own log, hear of it.
    `jitter_ns`: how far hosts spread what they tell of the first seconds after a start or a reload.
    """

    default: tuple[str, ...]
    group_wait_ns: int
    group_interval_ns: int
    repeat_interval_ns: int
    delivery_dead_after_ns: int = 600 * SECOND_NS
    jitter_ns: int = 0

    @property
    def waits(self) -> Waits:
        """Return the waits of groups that no route gives others."""
        return Waits(self.group_wait_ns, self.group_interval_ns, self.repeat_interval_ns)


USUAL_WAITS: Final = Waits(0, 60 * SECOND_NS, 4 * 3600 * SECOND_NS)


@dataclass(frozen=True, slots=True)
class Escalation:
    """To whom goes what a receiver could not be told, once it has been failing for `after_ns`."""

    to: str
    after_ns: int


@dataclass(frozen=True, slots=True)
class EvidenceSettings:
    """What alerts may tell of the processes that they are about."""

    command_line: bool = True  # masked all the same


@dataclass(frozen=True, slots=True)
class Config:
    """What watchdog.toml says.

    `receivers`: (name, type, table) in the file's order; each type reads the rest of its own table, as the heartbeat
    does. `escalations`: by the receiver that fails. `routes`: tables in the file's order, read by `routing/routes.py`.
    `file` is `BUILT_IN` where there is no file.
    """

    file: str
    sampling: Sampling
    routing: Routing
    receivers: tuple[tuple[str, str, Table], ...]
    heartbeat: Table | None = None
    evidence: EvidenceSettings = EvidenceSettings()
    escalations: Mapping[str, Escalation] = field(default_factory=dict)
    routes: tuple[Table, ...] = ()

    @property
    def receiver_names(self) -> tuple[str, ...]:
        """Return the names that rules may use."""
        return tuple(name for name, _, _ in self.receivers)


def open_document(file: str, *, secrets_needed: bool = True) -> Document:
    """Read and parse a TOML file.

    Raises:
        ConfigError: missing, not a regular file, writable by everyone, over 1 MB, not UTF-8, not TOML.
    """
    text, others = _read(file)
    try:
        data = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        reason = _PLAINER.get(error.msg, error.msg)
        problem = Problem(file, error.lineno, "file", f"not TOML: {reason} (column {error.colno})")
    except RecursionError:
        problem = Problem(file, 1, "file", "nested too deeply")
    except ValueError:  # an integer of more digits than Python converts
        problem = Problem(file, 1, "file", "holds a number that is too long")
    else:
        return Document(text, data, file, secrets_needed=secrets_needed, others=others)
    raise ConfigError([problem])


def _read(file: str) -> tuple[str, str | None]:
    # Its text, and who but its owner can get at it.
    try:
        stream = open_for_reading(file)
    except OSError as error:
        raise _unusable(file, f"cannot read: {error.strerror}") from None
    with stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _unusable(file, "not a regular file")
        if status.st_mode & stat.S_IWOTH:
            raise _unusable(file, f"everyone on this host can write it: chmod o-w {file}")
        content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise _unusable(file, f"over {_MOST_BYTES} bytes")
    try:
        return content.decode().removeprefix("\ufeff"), others_who_read(status)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _unusable(file, f"not UTF-8 text: byte 0x{content[error.start]:02x}", line) from None


def _unusable(file: str, message: str, line: int = 1) -> ConfigError:
    return ConfigError([Problem(file, line, "file", message)])


def is_there(path: str) -> bool:
    """Tell whether there is such a file or folder.

    Raises:
        ConfigError: nobody may tell us, which is not to be taken for a no: other settings would come into force.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unusable(path, f"cannot read: {error.strerror}") from None
    return True


def open_settings(file: str | None = None) -> Document:
    """Open watchdog.toml at `file`, or at its default place, where it may be missing.

    Raises:
        ConfigError: as `open_document`.
    """
    if file is None and not is_there(DEFAULT_CONFIG):
        return Document("", {}, BUILT_IN)
    return open_document(file or DEFAULT_CONFIG)


def load_config(file: str | None = None) -> Config:
    """Read watchdog.toml, found as in `open_settings`.

    Raises:
        ConfigError: with every problem of the file, but those inside the receivers' tables.
    """
    document = open_settings(file)
    config = read_config(document)
    document.raise_problems()
    return config


def read_config(document: Document) -> Config:
    """Return what `document` says; problems are noted in it."""
    root = document.root
    sampling = root.table("sampling")
    interval_ns = sampling.duration("interval", "1s", minimum=SHORTEST_INTERVAL, maximum=LONGEST_INTERVAL)
    capacities = _read_capacities(sampling)
    sampling.finish()
    receivers = _read_receivers(root)
    # Where nobody but this host is told, there is nobody to spare.
    jitter = DEFAULT_JITTER if "receiver" in root else "0s"
    routing = _read_routing(root.table("routing"), tuple(name for name, _, _ in receivers), jitter)
    routes = root.tables("route")
    heartbeat = root.table("heartbeat") if "heartbeat" in root else None
    told = root.table("evidence")
    evidence = EvidenceSettings(command_line=told.flag("command_line", default=True))
    told.finish()
    root.finish()
    escalations = _read_escalations(receivers)
    return Config(
        document.file, Sampling(interval_ns, capacities), routing, receivers, heartbeat, evidence, escalations, routes
    )


def _read_capacities(table: Table) -> Capacities:
    usual = USUAL_CAPACITIES
    return Capacities(
        ledger=table.integer("ledger", usual.ledger, minimum=8, maximum=MOST_ROWS),
        responses=table.integer("responses", usual.responses, minimum=8, maximum=MOST_ROWS),
        processes=table.integer("processes", usual.processes, minimum=8, maximum=MOST_ROWS),
    )


def _read_receivers(root: Table) -> tuple[tuple[str, str, Table], ...]:
    tables = root.tables("receiver")
    if not tables and not root.failed("receiver"):
        tables = (Table(root.document, (), {"name": "console", "type": "console"}),)
    lines: dict[str, int] = {}
    receivers = []
    for table in tables:
        name = table.text("name")
        if not table.failed("name") and not _NAME.fullmatch(name):
            table.problem("name", f"{suggestions.quoted(name)}: use a to z, 0 to 9, _ and -, beginning with a letter")
        if name in lines and not table.failed("name"):
            table.problem("name", f"{suggestions.quoted(name)} is already the receiver of line {lines[name]}")
        lines.setdefault(name, table.line)
        receivers.append((name, table.text("type"), table))
    return tuple(receivers)


def _read_escalations(receivers: tuple[tuple[str, str, Table], ...]) -> dict[str, Escalation]:
    names = tuple(name for name, _, _ in receivers)
    escalations: dict[str, Escalation] = {}
    for name, _, table in receivers:
        to = table.text("escalate_to", "")
        after_ns = table.duration("escalate_after", "5m", maximum="1d")
        if not to:
            if "escalate_after" in table and not table.failed("escalate_to"):
                table.problem("escalate_after", "needs escalate_to: the receiver that is told instead")
        elif to == name:
            table.problem("escalate_to", "is the receiver itself: name another one")
        elif to not in names:
            table.problem("escalate_to", suggestions.unknown("receiver", to, names))
        elif name in (circle := _chain(to, escalations)):
            told = " -> ".join((name, *circle[: circle.index(name) + 1]))
            table.problem("escalate_to", f"goes round in a circle: {told}; the last one must name nobody")
        else:
            escalations[name] = Escalation(to, after_ns)
    return escalations


def _chain(name: str, escalations: Mapping[str, Escalation]) -> tuple[str, ...]:
    chain: tuple[str, ...] = (name,)
    while chain[-1] in escalations:
        chain = (*chain, escalations[chain[-1]].to)
    return chain


def _read_routing(table: Table, names: tuple[str, ...], jitter: str) -> Routing:
    default = table.texts("default", names)
    if not default and not table.failed("default"):
        table.problem("default", "must name at least one receiver: nobody would hear of anything")
    for index, name in enumerate(default):
        if name not in names:
            table.problem("default", suggestions.unknown("receiver", name, names), index=index)
        elif name in default[:index]:
            table.problem("default", f"{suggestions.quoted(name)} stands there twice", index=index)
    waits = read_waits(table, USUAL_WAITS)
    dead_after_ns = table.duration("delivery_dead_after", "10m", minimum="1m", maximum="1d")
    jitter_ns = table.duration("jitter", jitter, maximum="10m")
    table.finish()
    return Routing(
        default,
        waits.group_wait_ns,
        waits.group_interval_ns,
        waits.repeat_interval_ns,
        delivery_dead_after_ns=dead_after_ns,
        jitter_ns=jitter_ns,
    )


def read_waits(table: Table, usual: Waits) -> Waits:
    """Return the waits that `table` gives, and of `usual` what it does not."""
    return Waits(
        group_wait_ns=table.duration("group_wait", format_duration(usual.group_wait_ns), maximum="1h"),
        group_interval_ns=table.duration("group_interval", format_duration(usual.group_interval_ns), maximum="1d"),
        repeat_interval_ns=table.duration(
            "repeat_interval", format_duration(usual.repeat_interval_ns), minimum="1s", maximum="30d"
        ),
    )
