"""Apprise, for whatever has no receiver of its own: one notify call per notice, in a process of its own.

Apprise sleeps, waits and imports as it likes, so it is not let into the daemon: a child imports it, makes the one call
and is killed when time is up.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from typing import ClassVar, Self

from watchdog import sanitize
from watchdog.config.document import Table
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers.base import Receiver, ReceiverOptions
from watchdog.receivers.render import notification_text
from watchdog.receivers.render.plaintext import plaintext_body
from watchdog.receivers.render.severity import APPRISE_TYPES
from watchdog.receivers.transport.child_process import run_process
from watchdog.receivers.transport.deadline import Deadline
from watchdog.routing.notification import Notification

EXIT_NOTIFY_FAILED, EXIT_UNKNOWN_URL = 3, 4  # how the child ends, 0 aside

_CHILD = (sys.executable, "-I", "-B", "-m", "watchdog.receivers.apprise.child")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S.*")
_LONGEST_TITLE = 250
_LONGEST_LINE = 480
_MOST_ALERTS = 20


class Apprise(Receiver):
    """Has Apprise notify its URLs."""

    type: ClassVar[str] = "apprise"

    def __init__(self, name: str, urls: tuple[Secret, ...], options: ReceiverOptions | None = None) -> None:
        """Notify `urls`."""
        super().__init__(name, options)
        self._urls = urls

    @classmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:
        """Read `urls` (or `urls_file`, `urls_env`): one URL a line, but for empty lines and those that begin with #."""
        if importlib.util.find_spec("apprise") is None:
            table.add_problem("type", "Apprise is not installed: pip install 'bpf-watchdog[apprise]'")
        secret = table.secret("urls")
        lines = [] if secret is None else [line.strip() for line in secret.reveal().splitlines()]
        urls = []
        given = table.given_form("urls") or "urls"
        for number, line in enumerate(lines, 1):
            if _URL.fullmatch(line):
                urls.append(Secret(line))
            elif line and not line.startswith("#"):
                table.add_problem(given, f"line {number} of it is not a URL of Apprise's")
        if secret is not None and not urls:
            table.add_problem(given, "holds no URL")
        return cls(name, tuple(urls), options)

    def render(self, notification: Notification) -> bytes:
        """Return title, text and kind as JSON: what is made of them is each service's matter."""
        return json.dumps(_message(notification), ensure_ascii=False, separators=(",", ":")).encode()

    def send(self, notification: Notification, deadline_seconds: float) -> None:
        """Notify; Apprise says no more than whether all of its services have it."""
        order = json.dumps({"urls": [url.reveal() for url in self._urls], **_message(notification)})
        code = run_process(_CHILD, order.encode("utf-8", "surrogatepass"), {}, Deadline(deadline_seconds)).exit_code
        if code == EXIT_NOTIFY_FAILED:
            raise DeliveryError(
                DeliveryErrorReason.SERVER_ERROR, "Apprise could not notify all of its services", retryable=True
            )
        if code == EXIT_UNKNOWN_URL:
            raise DeliveryError(
                DeliveryErrorReason.CLIENT_ERROR, "Apprise does not know all of its URLs", retryable=False
            )
        if code != 0:
            # What it wrote can hold URLs.
            said = f"Apprise's process ended with code {code}: can the daemon's account read what is installed?"
            raise DeliveryError(DeliveryErrorReason.COMMAND, said, retryable=True)

    def destination(self) -> str:
        """Name the services' schemes; all the rest of a URL can be secret."""
        schemes = [url.reveal().partition(":")[0].lower() for url in self._urls]
        return f"Apprise {', '.join(dict.fromkeys(schemes))}"


def _message(notification: Notification) -> dict[str, str]:
    over = notification.status == "resolved"
    return {
        "title": sanitize.for_apprise(notification_text.notification_title(notification), _LONGEST_TITLE),
        "body": plaintext_body(notification, _MOST_ALERTS, lambda line: sanitize.for_apprise(line, _LONGEST_LINE)),
        "type": "success" if over else APPRISE_TYPES[notification_text.worst_first(notification.alerts)[0].severity],
    }
