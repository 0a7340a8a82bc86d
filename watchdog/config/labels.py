"""Labels of the user's own, as Prometheus' `external_labels` and the `labels` of its rules."""

from __future__ import annotations

import re
from typing import Final

from watchdog.config.document import Table
from watchdog.config.suggestions import quote_value

RESERVED: Final = frozenset(
    (
        *("alertname", "severity", "rule", "instance", "instances", "receiver", "test"),
        # The dimensions of rules, which are labels of alerts.
        *("process", "exe", "pid", "user", "unit", "container", "netns", "direction", "family", "local", "local_port"),
        *("remote", "remote_net", "remote_country", "remote_asn", "remote_port", "state", "failure"),
    )
)
"""Labels that alerts have by themselves."""

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}", re.ASCII)
_MAX_LABELS = 32
_MAX_VALUE_LENGTH = 256
_MAX_HOST_LENGTH = 253  # of a domain name, RFC 1035


def read_labels(table: Table) -> tuple[tuple[str, str], ...]:
    """Return the labels in `table`, by name; problems are noted in it."""
    labels = []
    for name in table:
        value = table.text(name)
        if not _NAME.fullmatch(name) or name.startswith("__"):
            table.add_problem(name, "use letters, digits and _, at most 64 characters, beginning with a letter or _")
        elif name == "host":
            table.add_problem(name, 'set the name of this host by the key host = "…" at the top of watchdog.toml')
        elif name in RESERVED:
            table.add_problem(name, f"alerts have a label {quote_value(name)} of their own: use another name")
        elif not table.has_problem(name) and not _is_line(value, _MAX_VALUE_LENGTH):
            table.add_problem(name, f"must be one line of at most {_MAX_VALUE_LENGTH} visible characters")
        labels.append((name, value))
    if len(labels) > _MAX_LABELS:
        table.add_problem(labels[_MAX_LABELS][0], f"at most {_MAX_LABELS} labels are possible")
    return tuple(sorted(labels))


def read_host(root: Table) -> str | None:
    """Return the name that the file gives this host, None without one."""
    host = root.text("host", "")
    if "host" in root and not (host and _is_line(host, _MAX_HOST_LENGTH)):
        root.add_problem("host", f"must be one line of at most {_MAX_HOST_LENGTH} visible characters")
    return host or None


def _is_line(text: str, max_length: int) -> bool:
    return len(text) <= max_length and text.isprintable() and text == text.strip()
