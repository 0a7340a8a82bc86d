"""E-mail: one message per notice, all of an alert's life in one thread.

The thread's first message is remembered until all of its group is over. A message that is sent again has the same
Message-ID, so that mail systems can know it for a copy.

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
from watchdog.receivers.transport.tls import tls_context_from_table
from watchdog.routing.notification import Notification

if TYPE_CHECKING:
    from watchdog.receivers.transport.smtp import SmtpServer

_PORTS = {"starttls": 587, "implicit": 465, "none": 25}
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*")
_LONGEST_SUBJECT = 200
_LONGEST_LINE = 2_000
_MOST_ALERTS = 100


class Email(Receiver):
    """Sends each notice as one message to all its recipients."""

    type: ClassVar[str] = "email"

    def __init__(
        self,
        name: str,
        server: SmtpServer,
        sender: str,
        recipients: tuple[str, ...],
        options: ReceiverOptions | None = None,
    ) -> None:
        """Send through `relay`."""
        super().__init__(name, options)
        self._server = server
        self._sender = sender
        self._recipients = recipients
        self._unfinished = UnfinishedNotifications()

    @classmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:
        """Read `host`, `port`, `tls`, `username` and `password` (or `password_file`, `password_env`), `from`, `to`."""
        from watchdog.receivers.transport.smtp import SmtpLogin, SmtpServer

        host = table.text("host")
        tls = table.text("tls", "starttls", choices=_PORTS)
        port = table.integer("port", _PORTS[tls], minimum=1, maximum=65_535)
        username, password = table.text("username", ""), table.secret("password", required=False)
        if (username == "") is not (password is None) and not table.document.problems:
            given = "username" if "username" in table else table.given_form("password")
            table.add_problem(given or "username", "give both username and password, or none")
        if password is not None and not (username + password.reveal()).isascii():
            table.add_problem("username", "must be ASCII, and the password too: SMTP logins know nothing else")
        if password is not None and tls == "none":
            table.add_problem("tls", "a password is never sent without TLS")
        sender, recipients = table.text("from"), table.texts("to")
        if not table.has_problem("from") and not _ADDRESS.fullmatch(sender):
            table.add_problem("from", "must be an address like watchdog@example.net, without a name")
        if not recipients and not table.has_problem("to"):
            table.add_problem("to", "must name at least one address")
        for index, recipient in enumerate(recipients):
            if not _ADDRESS.fullmatch(recipient):
                table.add_problem("to", "must be an address like oncall@example.net, without a name", index=index)
        login = None if password is None else SmtpLogin(username, password)
        server = SmtpServer(host, port, tls, tls_context_from_table(table), login)
        return cls(name, server, sender, recipients, options)

    def render(self, notification: Notification) -> bytes:
        """Return the message as it is sent."""
        first = self._first_of_thread(notification)
        headers = {
            "From": self._sender,
            "To": ", ".join(self._recipients),
            "Subject": sanitize.escape_unprintable(
                notification_text.notification_title(notification), _LONGEST_SUBJECT
            ),
            "Date": mime.format_date(notification.created),
            "Message-ID": self._message_id(notification.id),
            "Auto-Submitted": "auto-generated",
            "X-Notification-Id": notification.id,
        }
        if first is not None and first != notification.id:
            headers |= dict.fromkeys(("In-Reply-To", "References"), self._message_id(first))
        text = plaintext_body(notification, _MOST_ALERTS, lambda line: sanitize.escape_unprintable(line, _LONGEST_LINE))
        return mime.build_message(headers, text)

    def send(self, notification: Notification, deadline_seconds: float) -> None:
        """Hand it to the server, for all recipients that have not had it yet.

        One that is refused for good holds up no other; the notice counts as refused then.
        """
        delivery = self._unfinished.delivery_of(notification.id)
        if remaining := delivery.remaining(self._recipients):
            self._remember_thread(notification)
            message = self.render(notification)
            refused = self._server.send_message(self._sender, remaining, message, Deadline(deadline_seconds))
            delivery.record(remaining, refused)
        self._unfinished.finish(notification.id)
        if notification.status == "resolved":
            self._store_thread(notification, None)
        delivery.raise_if_refused(len(self._recipients), "recipients")

    def destination(self) -> str:
        """Name the server, not the recipients: there may be many."""
        return f"e-mail through {self._server.host}:{self._server.port}"

    def _message_id(self, notification: str) -> str:
        return f"<{notification}@{self._sender.rpartition('@')[2]}>"

    def _first_of_thread(self, notification: Notification) -> str | None:
        try:
            return self.state.get(_thread(notification))
        except StoreError:  # a thread is not worth a notice
            return None

    def _remember_thread(self, notification: Notification) -> None:
        if self._first_of_thread(notification) is None and notification.status == "firing":
            self._store_thread(notification, notification.id)

    def _store_thread(self, notification: Notification, first: str | None) -> None:
        try:
            self.state.put(_thread(notification), first)
        except StoreError:
            return


def _thread(notification: Notification) -> str:
    return f"thread of {notification.group_key}"
