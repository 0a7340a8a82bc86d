"""One message sent to a mail server: under a total deadline, over TLS unless configured otherwise.

smtplib starts its timeout again with each read and does not limit the length of replies. Here a deadline ends the whole
exchange, and the size of all replies is limited. Errors repeat only the codes of a reply: its text may be hostile.

Source: RFC 5321 (SMTP), RFC 3207 (STARTTLS), RFC 8314 (implicit TLS), RFC 3463 (enhanced codes).
"""

from __future__ import annotations

import io
import re
import smtplib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, DeliveryErrorReason, UncertainDeliveryError
from watchdog.receivers.transport.attempt_guard import AttemptGuard
from watchdog.receivers.transport.connect import connect_tcp
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.host_names import tls_name
from watchdog.receivers.transport.tls import certificate_error

MAX_REPLY_BYTES = 65_536

CONNECT_SECONDS = 30.0  # name, TCP and TLS
# Maximum waits for a reply, RFC 5321 §4.5.3.2; the deadline of the exchange can be shorter.
GREETING_SECONDS = 300.0
COMMAND_SECONDS = 300.0
FINAL_REPLY_SECONDS = 600.0

_ENHANCED_CODE = re.compile(rb"[245]\.\d{1,3}\.\d{1,3}(?= |$)")
_FULL_NAME = re.compile(r"[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")
# The parts of an exchange that a server can refuse, as errors name them.
_SENDER, _RECIPIENT, _MESSAGE = "the sender", "a recipient", "the message"


@dataclass(frozen=True, slots=True)
class SmtpLogin:
    """User name and password for the server."""

    username: str
    password: Secret


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """A mail server. `tls_mode`: "starttls", "implicit" or "none"; `tls_context` holds the trusted authorities."""

    host: str
    port: int
    tls_mode: str
    tls_context: ssl.SSLContext
    login: SmtpLogin | None = None

    def send_message(
        self, sender: str, recipients: Sequence[str], message: bytes, deadline: Deadline
    ) -> dict[str, DeliveryError]:
        """Send `message` to `recipients`; return an error for each recipient that the server refused.

        Raises:
            UncertainDeliveryError: all of the message was sent, and there was no reply.
            DeliveryError: no recipient gets the message.
        """
        with AttemptGuard(deadline) as guard:
            session = _SmtpSession(self, deadline, guard)
            try:
                try:
                    return session.transfer(sender, recipients, message)
                finally:
                    session.end()
            except smtplib.SMTPResponseException as error:
                raise self.error_for_reply(error.smtp_code, error.smtp_error, _refused_part(error)) from None
            except (smtplib.SMTPException, OSError, ValueError) as error:
                failure = self._delivery_error(error, guard, deadline)
                if session.was_sent and failure.retryable:
                    raise UncertainDeliveryError(failure.reason, str(failure), retryable=True) from None
                raise failure from None

    def error_for_reply(self, code: int, reply: bytes | str, refused_part: str) -> DeliveryError:
        """Return the error for a negative reply: 4xx is transient, 5xx is permanent (RFC 5321 §4.2.1)."""
        reply_bytes = reply if isinstance(reply, bytes) else reply.encode("utf-8", "replace")
        enhanced = _ENHANCED_CODE.match(reply_bytes)
        codes = f"{code} {enhanced[0].decode()}" if enhanced else str(code)
        text = f"{self.host} answered {codes} to {refused_part}"
        if not 200 <= code < 600:  # noqa: PLR2004 - RFC 5321 §4.2.1
            return DeliveryError(
                DeliveryErrorReason.CONNECT, f"{self.host}: invalid reply to {refused_part}", retryable=True
            )
        if code in (530, 534, 535, 538):  # RFC 4954 §6
            return DeliveryError(DeliveryErrorReason.AUTH, text, retryable=False)
        if code >= 500:  # noqa: PLR2004 - as above
            return DeliveryError(DeliveryErrorReason.CLIENT_ERROR, text, retryable=False)
        return DeliveryError(DeliveryErrorReason.SERVER_ERROR, text, retryable=True)

    def _delivery_error(self, error: Exception, guard: AttemptGuard, deadline: Deadline) -> DeliveryError:
        limit = str(error.__context__) if isinstance(error.__context__, _RepliesTooLong) else guard.exceeded_limit
        if limit is not None:
            return DeliveryError(DeliveryErrorReason.CONNECT, f"{self.host}: replies too long: {limit}", retryable=True)
        if guard.has_expired or deadline.remaining() <= 0 or isinstance(error, TimeoutError):
            return DeliveryError(
                DeliveryErrorReason.TIMEOUT, f"{self.host}: no complete answer in time", retryable=True
            )
        if isinstance(error, ssl.SSLCertVerificationError):
            return certificate_error(self.host, error)
        if isinstance(error, ssl.SSLError):
            return DeliveryError(DeliveryErrorReason.TLS, f"{self.host}: TLS failed", retryable=True)
        if isinstance(error, ValueError):  # smtplib decodes the challenges of a login
            return self.error_for_reply(-1, b"", "the login")
        if isinstance(error, smtplib.SMTPNotSupportedError) or type(error) is smtplib.SMTPException:
            return DeliveryError(
                DeliveryErrorReason.AUTH, f"{self.host} offers no supported login method", retryable=False
            )
        return DeliveryError(
            DeliveryErrorReason.CONNECT, f"{self.host}: connection broken before the answer", retryable=True
        )


def _refused_part(error: smtplib.SMTPResponseException) -> str:
    """Return the refused part of the exchange for a reply that smtplib itself checks."""
    match error:
        case smtplib.SMTPAuthenticationError():
            return "the login"
        case smtplib.SMTPDataError():
            return _MESSAGE
        case smtplib.SMTPHeloError():
            return "EHLO"
        case _:
            return "STARTTLS"


class _SmtpSession(smtplib.SMTP):
    """One connection to a mail server."""

    def __init__(self, server: SmtpServer, deadline: Deadline, guard: AttemptGuard) -> None:
        self._server = server
        self._deadline = deadline
        self._guard = guard
        self._stage_seconds = GREETING_SECONDS
        self.was_sent = False
        # Without a name smtplib asks the resolver for the host's own name, without a deadline.
        super().__init__(local_hostname="localhost")
        self._host = tls_name(server.host)  # smtplib checks the certificate against this name

    def transfer(self, sender: str, recipients: Sequence[str], message: bytes) -> dict[str, DeliveryError]:
        server = self._server
        self._expect(self.connect(server.host, server.port), 220, "the connection")
        self._stage_seconds = COMMAND_SECONDS
        self.ehlo_or_helo_if_needed()
        if server.tls_mode == "starttls":
            if not self.has_extn("starttls"):
                raise DeliveryError(DeliveryErrorReason.TLS, f"{server.host} offers no STARTTLS", retryable=True)
            self._expect(self.starttls(context=server.tls_context), 220, "STARTTLS")
            self.ehlo_or_helo_if_needed()
        if server.login is not None:
            self.login(server.login.username, server.login.password.reveal())
        self._expect(self.mail(sender), 250, _SENDER)
        refused = {}
        for recipient in recipients:
            code, reply = self.rcpt(recipient)
            if code not in (250, 251):
                refused[recipient] = server.error_for_reply(code, reply, _RECIPIENT)
        if len(refused) < len(recipients):
            self._expect(self.data(message), 250, _MESSAGE)
        return refused

    def end(self) -> None:
        """Send QUIT and close the connection, without waiting for the reply."""
        try:
            if self.sock is not None:
                self.putcmd("quit")
        except (OSError, smtplib.SMTPException):
            pass  # the replies before QUIT decide
        self.close()

    def send(self, s: Any) -> None:
        super().send(s)
        if isinstance(s, bytes):  # the whole message with its final dot; commands are texts
            self.was_sent = True
            self._stage_seconds = FINAL_REPLY_SECONDS

    def getreply(self) -> tuple[int, bytes]:
        if self.sock is not None:
            self.sock.settimeout(min(self._stage_seconds, self._deadline.socket_timeout()))
        if self.file is None and self.sock is not None:
            self.file = _SizeLimitedFile(self.sock.makefile("rb"))
        return super().getreply()

    def _get_socket(self, host: str, port: int, timeout: Any) -> socket.socket:  # noqa: ARG002 - overrides smtplib
        tcp = connect_tcp(host, port, Deadline(min(CONNECT_SECONDS, self._deadline.remaining())))
        try:
            self._guard.watch_socket(tcp)
            self.local_hostname = _ehlo_name(tcp)
            if self._server.tls_mode == "implicit":
                return self._server.tls_context.wrap_socket(tcp, server_hostname=tls_name(host))
        except BaseException:
            tcp.close()
            raise
        return tcp

    def _expect(self, reply: tuple[int, bytes], code: int, refused_part: str) -> None:
        if reply[0] != code:
            raise self._server.error_for_reply(*reply, refused_part)


class _RepliesTooLong(OSError):
    """The replies of a server exceed a limit, which the text names."""


class _SizeLimitedFile:
    """The file of a socket, which fails after `MAX_REPLY_BYTES`: all replies of an exchange need less."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._bytes_left = MAX_REPLY_BYTES

    def readline(self, size: int) -> bytes:
        line = self._file.readline(min(size, self._bytes_left))
        self._bytes_left -= len(line)
        # smtplib would treat a cut-off line as a refusal. An empty line means a closed connection.
        if line.endswith(b"\n"):
            return line
        if len(line) == size:
            raise _RepliesTooLong(f"more than {size - 1:,} bytes in a line")
        if self._bytes_left == 0:
            raise _RepliesTooLong("more than 64 KiB in all")
        return b""

    def close(self) -> None:
        self._file.close()


def _ehlo_name(connection: socket.socket) -> str:
    """Return the argument of EHLO: this host's full name, or its address if it has none (RFC 5321 §4.1.4)."""
    name = socket.gethostname()
    if _FULL_NAME.fullmatch(name):
        return name
    address = str(connection.getsockname()[0]).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
