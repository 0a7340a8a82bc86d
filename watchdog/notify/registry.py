"""Every kind of receiver there is, and how those of a configuration are made."""

from __future__ import annotations

import importlib
from typing import Final

from watchdog.config import suggestions
from watchdog.config.settings import Config
from watchdog.errors import ConfigError, Problem
from watchdog.notify.receiver import Receiver
from watchdog.state.rate_limit import read_budget

# Type, which is the module's name too, and the class in it. Imported when a configuration asks for it: all of them
# together, with the libraries that they bring, would take a fifth of the daemon's memory.
RECEIVER_TYPES: Final = {
    "alertmanager": "Alertmanager",
    "apprise": "Apprise",
    "command": "Command",
    "console": "Console",
    "email": "Email",
    "journald": "Journald",
    "pagerduty": "PagerDuty",
    "slack": "Slack",
    "syslog": "Syslog",
    "webhook": "Webhook",
}


def receiver_class(kind: str) -> type[Receiver]:
    """Return the class of receivers of a type of `RECEIVER_TYPES`."""
    found: type[Receiver] = getattr(importlib.import_module(f"watchdog.notify.{kind}"), RECEIVER_TYPES[kind])
    return found


def build_receivers(config: Config) -> dict[str, Receiver]:
    """Return the receivers of `config` by name, in the file's order; their secrets are read now.

    Raises:
        ConfigError: with every problem of every receiver.
    """
    receivers: dict[str, Receiver] = {}
    problems: list[Problem] = []
    for name, kind, table in config.receivers:
        if kind in RECEIVER_TYPES:
            receivers[name] = receiver_class(kind).from_table(name, table)
            receivers[name].budget = read_budget(table, receivers[name].usual_budget)
            table.finish()
        else:
            table.problem("type", suggestions.unknown("type", kind, RECEIVER_TYPES))
        problems += table.document.problems
    if problems:
        raise ConfigError(sorted(set(problems)))
    return receivers
