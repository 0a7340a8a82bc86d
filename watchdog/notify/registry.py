"""Every kind of receiver there is, and how those of a configuration are made."""

from __future__ import annotations

from watchdog import spelling
from watchdog.config import Config
from watchdog.errors import ConfigError, Problem
from watchdog.notify.budget import read_budget
from watchdog.notify.console import Console
from watchdog.notify.receiver import Receiver
from watchdog.notify.slack import Slack
from watchdog.notify.syslog import Syslog
from watchdog.notify.webhook import Webhook

RECEIVER_TYPES: dict[str, type[Receiver]] = {kind.type: kind for kind in (Console, Slack, Syslog, Webhook)}


def build_receivers(config: Config) -> dict[str, Receiver]:
    """Return the receivers of `config` by name, in the file's order; their secrets are read now.

    Raises:
        ConfigError: with every problem of every receiver.
    """
    receivers: dict[str, Receiver] = {}
    problems: list[Problem] = []
    for name, kind, table in config.receivers:
        if kind in RECEIVER_TYPES:
            receivers[name] = RECEIVER_TYPES[kind].from_table(name, table)
            receivers[name].budget = read_budget(table, RECEIVER_TYPES[kind].usual_budget)
            table.finish()
        else:
            table.problem("type", spelling.unknown("type", kind, RECEIVER_TYPES))
        problems += table.document.problems
    if problems:
        raise ConfigError(sorted(set(problems)))
    return receivers
