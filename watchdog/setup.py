"""Everything that a daemon is told by files: read as a whole, so that one mistake anywhere changes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from watchdog.config import DEFAULT_RULES, Config, load_config
from watchdog.errors import ConfigError, Problem
from watchdog.notify.receiver import Receiver
from watchdog.notify.registry import build_receivers
from watchdog.resources import rules_folder
from watchdog.rules.load import load_rules, toml_files
from watchdog.rules.schema import Rule


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to read: None means the usual place."""

    config: str | None = None
    rules: str | None = None
    interval_ns: int | None = None  # overrides the file's


@dataclass(frozen=True, slots=True)
class Setup:
    """What was read: settings, live receivers by name, rules and where they come from, notes for their author."""

    config: Config
    interval_ns: int
    receivers: Mapping[str, Receiver]
    rules: tuple[Rule, ...]
    rules_from: str
    notes: tuple[Problem, ...]


def read_setup(sources: Sources) -> Setup:
    """Read settings, secrets and rules.

    Without `sources.rules`: the files of /etc/bpf-watchdog/rules.d where there are any, else the shipped rules.

    Raises:
        ConfigError: with every problem of every file; then nothing was opened that would have to be closed.
    """
    problems: list[Problem] = []
    config = load_config(sources.config)
    interval_ns = sources.interval_ns or config.sampling.interval_ns
    receivers: dict[str, Receiver] = {}
    try:
        receivers = build_receivers(config)
    except ConfigError as error:
        problems += error.problems
    folder, shipped = _rules_folder(sources.rules)
    try:
        loaded = load_rules([folder], receivers=config.receiver_names, interval_ns=interval_ns)
    except ConfigError as error:
        raise ConfigError(sorted([*problems, *error.problems])) from error
    if problems:
        raise ConfigError(problems)
    if not loaded.rules:
        raise ConfigError([Problem(str(folder), 1, "rule", "no rules here: nothing would be guarded")])
    origin = f"{folder}{' (shipped)' if shipped else ''}"
    return Setup(config, interval_ns, receivers, loaded.rules, origin, loaded.notes)


def _rules_folder(given: str | None) -> tuple[Path, bool]:
    if given is not None:
        if not os.path.lexists(given):
            raise ConfigError([Problem(given, 1, "rules", "no such file or folder")])
        return Path(given), False
    own = Path(DEFAULT_RULES)
    if own.is_dir() and toml_files(own):
        return own, False
    return rules_folder(), True


def rule_ids(rules: Sequence[Rule]) -> str:
    """Return the rules' ids for people, cut when there are many."""
    ids = [rule.id for rule in rules]
    most = 12
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")
