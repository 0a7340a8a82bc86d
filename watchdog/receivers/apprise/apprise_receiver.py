"""Apprise, for services without a receiver of their own: one call of notify() per notification, in a child process.

Apprise can sleep, block and import at any time, so the daemon does not load it: a child process imports it, makes one
call and is killed at the deadline.
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

EXIT_NOTIFY_FAILED, EXIT_UNKNOWN_URL = 3, 4  # exit codes of the child, besides 0

_CHILD = (sys.executable, "-I", "-B", "-m", "watchdog.receivers.apprise.child")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S.*")
_MAX_TITLE = 250
_MAX_LINE = 480
_MAX_ALERTS = 20


class Apprise(Receiver):
    """Sends notifications through Apprise to its URLs."""

    type: ClassVar[str] = "apprise"

    def __init__(self, name: str, urls: tuple[Secret, ...], options: ReceiverOptions | None = None) -> None:
        """Send to `urls`, in the form of Apprise."""
        super().__init__(name, options)
        self._urls = urls

    @classmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:
        """Read the secret `urls`: one URL per line; empty lines and lines that begin with # are skipped."""
        if importlib.util.find_spec("apprise") is None:
            table.add_problem("type", "Apprise is not installed: pip install 'bpf-watchdog[apprise]'")
        secret = table.secret("urls")
        lines = [] if secret is None else [line.strip() for line in secret.reveal().splitlines()]
        urls = []
        key = table.given_form("urls") or "urls"
        for number, line in enumerate(lines, 1):
            if _URL.fullmatch(line):
                urls.append(Secret(line))
            elif line and not line.startswith("#"):
                table.add_problem(key, f"line {number} is not an Apprise URL")
        if secret is not None and not urls:
            table.add_problem(key, "contains no URL")
        return cls(name, tuple(urls), options)

    def render(self, notification: Notification) -> bytes:
        """Return title, body and type as JSON; each service has its own layout for them."""
        return json.dumps(_message(notification), ensure_ascii=False, separators=(",", ":")).encode()

    def send(self, notification: Notification, deadline_seconds: float) -> None:
        """Send; Apprise reports only whether all of its services accepted the notification.

        Raises:
            DeliveryError: not all services accepted it, or the child process failed.
        """
        call = json.dumps({"urls": [url.reveal() for url in self._urls], **_message(notification)})
        code = run_process(_CHILD, call.encode("utf-8", "surrogatepass"), {}, Deadline(deadline_seconds)).exit_code
        if code == EXIT_NOTIFY_FAILED:
            raise DeliveryError(
                DeliveryErrorReason.SERVER_ERROR, "Apprise could not notify all services", retryable=True
            )
        if code == EXIT_UNKNOWN_URL:
            raise DeliveryError(
                DeliveryErrorReason.CLIENT_ERROR, "Apprise does not support all configured URLs", retryable=False
            )
        if code != 0:
            # The output of the child is not shown: it can contain URLs.
            text = f"the Apprise process ended with code {code}: check that the daemon's account can read its files"
            raise DeliveryError(DeliveryErrorReason.COMMAND, text, retryable=True)

    def destination(self) -> str:
        """Return the schemes of the URLs; the rest of a URL can be secret."""
        schemes = [url.reveal().partition(":")[0].lower() for url in self._urls]
        return f"Apprise {', '.join(dict.fromkeys(schemes))}"


def _message(notification: Notification) -> dict[str, str]:
    return {
        "title": sanitize.for_apprise(notification_text.notification_title(notification), _MAX_TITLE),
        "body": plaintext_body(notification, _MAX_ALERTS, lambda line: sanitize.for_apprise(line, _MAX_LINE)),
        "type": "success"
        if notification.status == "resolved"
        else APPRISE_TYPES[notification_text.worst_first(notification.alerts)[0].severity],
    }
