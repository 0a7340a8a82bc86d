"""Apprise, for services without a receiver of their own: one call of notify() per service, in a child process.

Apprise can sleep, block and import at any time, so the daemon does not load it: a child process imports it, makes the
calls of one notification and is killed at the deadline.
"""

from __future__ import annotations

import enum
import importlib.util
import json
import re
import signal
import sys
from typing import ClassVar, Self

from watchdog import sanitize
from watchdog.config.document import Table
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers.base import Receiver, ReceiverOptions
from watchdog.receivers.partial_delivery import UnfinishedNotifications
from watchdog.receivers.render import notification_text
from watchdog.receivers.render.plaintext import plaintext_body
from watchdog.receivers.render.severity import APPRISE_TYPES
from watchdog.receivers.transport.child_process import ProcessResult, run_process
from watchdog.receivers.transport.deadline import Deadline
from watchdog.routing.notification import Notification

# Begins the last line that the child prints, after the output of services.
RESULT_PREFIX = "results of bpf-watchdog: "
MAX_CPU_SECONDS = 5  # of the child process, from the end of its imports


class ServiceResult(enum.StrEnum):
    """The result of one URL; its values pass between the processes."""

    ACCEPTED = "accepted"
    FAILED = "failed"
    UNKNOWN = "unknown"


_ERRORS = {
    ServiceResult.FAILED: DeliveryError(
        DeliveryErrorReason.SERVER_ERROR, "Apprise could not notify the service", retryable=True
    ),
    ServiceResult.UNKNOWN: DeliveryError(
        DeliveryErrorReason.CLIENT_ERROR, "Apprise does not support the URL", retryable=False
    ),
}
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
        self._unfinished = UnfinishedNotifications(self.state)

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
        """Send to the services that have no final result yet.

        Raises:
            PartialDeliveryError: some services accepted the notification.
            DeliveryError: none did, or the child process failed.
        """
        delivery = self._unfinished.delivery_of(notification.id)
        texts = [url.reveal() for url in self._urls]
        deferred = None
        if remaining := delivery.remaining(texts):
            call = json.dumps({"urls": remaining, **_message(notification)}).encode("utf-8", "surrogatepass")
            results = _results(run_process(_CHILD, call, {}, Deadline(deadline_seconds)), len(remaining))
            errors = {url: _ERRORS[result] for url, result in zip(remaining, results, strict=True) if result in _ERRORS}
            deferred = delivery.record(remaining, errors)
        if deferred is None:
            self._unfinished.finish(notification.id)
        else:
            self._unfinished.save(notification.id)
        delivery.raise_if_incomplete(len(texts), "services", deferred)

    def destination(self) -> str:
        """Return the schemes of the URLs; the rest of a URL can be secret."""
        schemes = [url.reveal().partition(":")[0].lower() for url in self._urls]
        return f"Apprise {', '.join(dict.fromkeys(schemes))}"


def _results(ended: ProcessResult, count: int) -> list[ServiceResult]:
    """Return the results that the child printed.

    Raises:
        DeliveryError: it printed none. Its output is not shown: it can contain URLs.
    """
    lines = ended.output.decode("utf-8", "replace").splitlines()
    last = next((line for line in reversed(lines) if line.startswith(RESULT_PREFIX)), "")
    try:
        results = [ServiceResult(text) for text in json.loads(last.removeprefix(RESULT_PREFIX))]
    except (TypeError, ValueError):
        results = []
    if ended.exit_code == 0 and len(results) == count:
        return results
    if ended.exit_code == -signal.SIGXCPU:
        text = f"the Apprise process needed more than {MAX_CPU_SECONDS} s of CPU time: a service may answer without end"
        raise DeliveryError(DeliveryErrorReason.SERVER_ERROR, text, retryable=True)
    text = f"the Apprise process ended with code {ended.exit_code}: check that the daemon's account can read its files"
    raise DeliveryError(DeliveryErrorReason.COMMAND, text, retryable=True)


def _message(notification: Notification) -> dict[str, str]:
    return {
        "title": sanitize.for_apprise(notification_text.notification_title(notification), _MAX_TITLE),
        "body": plaintext_body(notification, _MAX_ALERTS, lambda line: sanitize.for_apprise(line, _MAX_LINE)),
        "type": "success"
        if notification.status == "resolved"
        else APPRISE_TYPES[notification_text.worst_first(notification.alerts)[0].severity],
    }
