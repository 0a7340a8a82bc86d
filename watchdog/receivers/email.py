"""E-mail receiver: one message per notification, all messages of a group in one thread until the group is resolved.

The receiver state holds the first message of the thread until then. A message that is sent again has the same
Message-ID, so that mail systems can recognise the copy.

Source: RFC 5322 (messages, §3.6.4 threads), RFC 3834 (Auto-Submitted).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Self

from watchdog import sanitize
from watchdog.config.document import Table
from watchdog.errors import StoreError
from watchdog.receivers.base import Receiver, ReceiverOptions
from watchdog.receivers.partial_delivery import UnfinishedNotifications
from watchdog.receivers.render import notification_text
from watchdog.receivers.render.plaintext import plaintext_body
from watchdog.receivers.transport import mime
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.host_names import host_problem
from watchdog.receivers.transport.tls import tls_context_from_table
from watchdog.routing.notification import Notification

if TYPE_CHECKING:
    from watchdog.receivers.transport.smtp import SmtpServer

_PORTS = {"starttls": 587, "implicit": 465, "none": 25}
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*")
_MAX_SUBJECT_LENGTH = 200
_MAX_LINE_LENGTH = 2_000
_MAX_ALERTS = 100


class Email(Receiver):
    """Sends each notification as one message to all recipients."""

    type: ClassVar[str] = "email"
    default_timeout: ClassVar[str] = "15m"  # RFC 5321 §4.5.3.2: 5 min for the greeting and 10 min after the message

    def __init__(
        self,
        name: str,
        server: SmtpServer,
        sender: str,
        recipients: tuple[str, ...],
        options: ReceiverOptions | None = None,
    ) -> None:
        """Send through `server`."""
        super().__init__(name, options)
        self._server = server
        self._sender = sender
        self._recipients = recipients
        self._unfinished = UnfinishedNotifications(self.state)

    @classmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:
        """Read `host`, `port`, `tls`, `username` and `password` (or `password_file`, `password_env`), `from`, `to`."""
        from watchdog.receivers.transport.smtp import SmtpLogin, SmtpServer

        host = table.text("host")
        if not table.has_problem("host") and (problem := host_problem(host, takes_port=True)):
            table.add_problem("host", problem)
        tls = table.text("tls", "starttls", choices=_PORTS)
        port = table.integer("port", _PORTS[tls], minimum=1, maximum=65_535)
        username, password = table.text("username", ""), table.secret("password", required=False)
        has_password = password is not None or table.is_unavailable("password")
        if (username == "") is has_password and not table.document.problems:
            given = "username" if "username" in table else table.given_form("password")
            table.add_problem(given or "username", "give both username and password, or neither")
        if password is not None and not (username + password.reveal()).isascii():
            table.add_problem("username", "username and password must be ASCII: SMTP logins allow nothing else")
        if password is not None and tls == "none":
            table.add_problem("tls", 'a password needs TLS: set tls to "starttls" or "implicit"')
        sender, recipients = table.text("from"), table.texts("to")
        if not table.has_problem("from") and not _ADDRESS.fullmatch(sender):
            table.add_problem("from", "must be an address such as watchdog@example.net, without a display name")
        if not recipients and not table.has_problem("to"):
            table.add_problem("to", "must contain at least one address")
        for index, recipient in enumerate(recipients):
            if not _ADDRESS.fullmatch(recipient):
                table.add_problem(
                    "to", "must be an address such as oncall@example.net, without a display name", index=index
                )
        login = None if password is None else SmtpLogin(username, password)
        server = SmtpServer(host, port, tls, tls_context_from_table(table), login)
        return cls(name, server, sender, recipients, options)

    def render(self, notification: Notification) -> bytes:
        """Return the message as sent."""
        first = self._first_of_thread(notification)
        headers = {
            "From": self._sender,
            "To": ", ".join(self._recipients),
            "Subject": sanitize.escape_unprintable(
                notification_text.notification_title(notification), _MAX_SUBJECT_LENGTH
            ),
            "Date": mime.format_date(notification.created),
            "Message-ID": self._message_id(notification.id),
            "Auto-Submitted": "auto-generated",
            "X-Notification-Id": notification.id,
        }
        if first is not None and first != notification.id:
            headers |= dict.fromkeys(("In-Reply-To", "References"), self._message_id(first))
        text = plaintext_body(
            notification, _MAX_ALERTS, lambda line: sanitize.escape_unprintable(line, _MAX_LINE_LENGTH)
        )
        return mime.build_message(headers, text)

    def send(self, notification: Notification, deadline_seconds: float) -> None:
        """Send the message to all recipients that have no final result yet; a refused one delays no other.

        Raises:
            PartialDeliveryError: some recipients got the message, and others not.
            DeliveryError: none did.
        """
        delivery = self._unfinished.delivery_of(notification.id)
        deferred = None
        if remaining := delivery.remaining(self._recipients):
            self._start_thread(notification)
            message = self.render(notification)
            refused = self._server.send_message(self._sender, remaining, message, Deadline(deadline_seconds))
            deferred = delivery.record(remaining, refused)
        if deferred is None:
            self._unfinished.finish(notification.id)
            if notification.status == "resolved":
                self._store_thread(notification, None)
        else:
            self._unfinished.save(notification.id)
        delivery.raise_if_incomplete(len(self._recipients), "recipients", deferred)

    def destination(self) -> str:
        """Return the server, without the recipients: there may be many."""
        return f"e-mail through {self._server.host}:{self._server.port}"

    def _message_id(self, notification: str) -> str:
        return f"<{notification}@{self._sender.rpartition('@')[2]}>"

    def _first_of_thread(self, notification: Notification) -> str | None:
        try:
            return self.state.get(_thread_key(notification))
        except StoreError:  # better a message outside its thread than none
            return None

    def _start_thread(self, notification: Notification) -> None:
        if self._first_of_thread(notification) is None and notification.status == "firing":
            self._store_thread(notification, notification.id)

    def _store_thread(self, notification: Notification, first: str | None) -> None:
        try:
            self.state.put(_thread_key(notification), first)
        except StoreError:
            return


def _thread_key(notification: Notification) -> str:
    return f"thread of {notification.group_key}"
