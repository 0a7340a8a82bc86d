"""Every kind of receiver there is, and how those of a configuration are made."""

from __future__ import annotations

from watchdog import spelling
from watchdog.config import Config
from watchdog.errors import ConfigError, Problem
from watchdog.notify.alertmanager import Alertmanager
from watchdog.notify.apprise import Apprise
from watchdog.notify.command import Command
from watchdog.notify.console import Console
from watchdog.notify.email import Email
from watchdog.notify.journald import Journald
from watchdog.notify.pagerduty import PagerDuty
from watchdog.notify.receiver import Receiver
from watchdog.notify.slack import Slack
from watchdog.notify.syslog import Syslog
from watchdog.notify.webhook import Webhook

_KINDS: tuple[type[Receiver], ...] = (
    Alertmanager,
    Apprise,
    Command,
    Console,
    Email,
    Journald,
    PagerDuty,
    Slack,
    Syslog,
    Webhook,
)
RECEIVER_TYPES = {kind.type: kind for kind in _KINDS}


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
            table.finish()
        else:
            table.problem("type", spelling.unknown("type", kind, RECEIVER_TYPES))
        problems += table.document.problems
    if problems:
        raise ConfigError(sorted(set(problems)))
    return receivers
