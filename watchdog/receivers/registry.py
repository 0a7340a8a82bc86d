"""All types of receivers; builds the receivers of a configuration."""

from __future__ import annotations

import importlib
from typing import Final

from watchdog.clock import SECOND_NS
from watchdog.config import suggestions
from watchdog.config.document import Table
from watchdog.config.settings import SettingsDocument
from watchdog.errors import ConfigError, Problem
from watchdog.receivers.base import (
    OpenReceiverState,
    Receiver,
    ReceiverOptions,
    ReceiverState,
    open_volatile_state,
)
from watchdog.state.rate_limit import parse_rate_limit

MAX_TIMEOUT: Final = "30m"  # below the hour that lies at most between two attempts

RECEIVER_TYPES: Final = {
    "alertmanager": "watchdog.receivers.alertmanager:Alertmanager",
    "apprise": "watchdog.receivers.apprise.apprise_receiver:Apprise",
    "command": "watchdog.receivers.command:Command",
    "console": "watchdog.receivers.console:Console",
    "email": "watchdog.receivers.email:Email",
    "journald": "watchdog.receivers.journald:Journald",
    "pagerduty": "watchdog.receivers.pagerduty:PagerDuty",
    "slack": "watchdog.receivers.slack.slack_receiver:Slack",
    "syslog": "watchdog.receivers.syslog.syslog_receiver:Syslog",
    "webhook": "watchdog.receivers.webhook:Webhook",
}
"""The module and class of each type of receiver.

A module is imported when a configuration first names its type: all modules, with the libraries that they import, would
take a fifth of the daemon's memory.
"""


def receiver_class(receiver_type: str) -> type[Receiver]:
    """Return the class of a type in `RECEIVER_TYPES`, importing its module."""
    module, _, name = RECEIVER_TYPES[receiver_type].partition(":")
    receiver_type_class: type[Receiver] = getattr(importlib.import_module(module), name)
    return receiver_type_class


def options_from_table(table: Table, chosen: type[Receiver], state: ReceiverState) -> ReceiverOptions:
    """Read the keys of every type; the defaults of `rate_limit`, `timeout` and `suppress` are those of `chosen`."""
    rate_limit = parse_rate_limit(table, chosen.default_rate_limit)
    timeout_ns = table.duration("timeout", chosen.default_timeout, minimum="1s", maximum=MAX_TIMEOUT)
    suppress = table.boolean("suppress", default=chosen.default_suppress)
    send_resolved = table.boolean("send_resolved", default=True)
    return ReceiverOptions(rate_limit, timeout_ns / SECOND_NS, state, suppress, send_resolved)


class _FileSource:
    """A `ReceiverSource` over the files that a `[[receiver]]` table names."""

    def __init__(self, name: str, chosen: type[Receiver], table: Table, state: ReceiverState) -> None:
        self._name = name
        self._chosen = chosen
        self._kept = table.kept()
        self._state = state

    def has_changed(self) -> bool:
        return self._kept.has_changed()

    def build(self) -> Receiver:
        table = self._kept.table()
        receiver = _build_receiver(self._name, self._chosen, table, self._state)
        if table.document.problems:
            receiver.close()
            table.document.raise_problems()
        return receiver


def _build_receiver(name: str, chosen: type[Receiver], table: Table, state: ReceiverState) -> Receiver:
    receiver = chosen.from_table(name, table, options_from_table(table, chosen, state))
    if table.read_files:
        receiver.source = _FileSource(name, chosen, table, state)
    return receiver


def build_receivers(
    settings: SettingsDocument, open_state: OpenReceiverState = open_volatile_state
) -> dict[str, Receiver]:
    """Return the receivers of `settings` by name, in the order of the file; their secrets are read now.

    `open_state` returns the state of a receiver; by default the state ends with the process.

    Raises:
        ConfigError: with every problem of every receiver.
    """
    receivers: dict[str, Receiver] = {}
    problems: list[Problem] = []
    for name, kind, table in settings.receivers:
        if kind in RECEIVER_TYPES:
            receivers[name] = _build_receiver(name, receiver_class(kind), table, open_state(name))
            table.reject_unknown_keys()
        else:
            table.add_problem("type", suggestions.unknown_name("type", kind, RECEIVER_TYPES))
        problems += table.document.problems
    if problems:
        raise ConfigError(sorted(set(problems)))
    return receivers
