"""One message handed to a mail server: under a total deadline, over TLS unless told otherwise.

The timeouts of smtplib count from one read to the next and its answers have no end, as those of any socket: here the
whole exchange is under a tripwire, and what a server says is bounded. Of its answers only codes are repeated: their
words can hold anything.

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
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers.transport.deadline import Deadline, DeadlineEnforcer, connect_tcp

MAX_REPLY_BYTES = 65_536

_ENHANCED = re.compile(rb"[245]\.\d{1,3}\.\d{1,3}(?= |$)")
_FULL_NAME = re.compile(r"[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")
_MAIL, _RECIPIENT, _CONTENT = "the sender", "a recipient", "the message"


@dataclass(frozen=True, slots=True)
class SmtpLogin:
    """Who we are to the server."""

    username: str
    password: Secret


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """A mail server. `tls`: "starttls", "implicit" or "none"; `context` says whom TLS trusts."""

    host: str
    port: int
    tls_mode: str
    tls_context: ssl.SSLContext
    login: SmtpLogin | None = None

    def send_message(
        self, sender: str, recipients: Sequence[str], message: bytes, deadline: Deadline
    ) -> dict[str, DeliveryError]:
        """Hand `message` over for `recipients`; return those that were refused, with the reason of each.

        Raises:
            DeliveryError: nobody gets it.
        """
        with DeadlineEnforcer(deadline) as tripwire:
            session = _SmtpSession(self, deadline, tripwire)
            try:
                try:
                    return session.transfer(sender, recipients, message)
                finally:
                    session.end()
            except smtplib.SMTPResponseException as error:
                raise self.error_for_reply(error.smtp_code, error.smtp_error, _at(error)) from None
            except (smtplib.SMTPException, OSError) as error:
                raise self._classify(error, timed_out=tripwire.has_expired or deadline.remaining() <= 0) from None

    def error_for_reply(self, code: int, said: bytes | str, what: str) -> DeliveryError:
        """Return the verdict on an answer that is no yes: 4xx may become one, 5xx never does (RFC 5321 §4.2.1)."""
        words = said if isinstance(said, bytes) else said.encode("utf-8", "replace")
        enhanced = _ENHANCED.match(words)
        told = f"{code} {enhanced[0].decode()}" if enhanced else str(code)
        text = f"{self.host} answered {told} to {what}"
        if not 200 <= code < 600:  # noqa: PLR2004 - RFC 5321 §4.2.1
            return DeliveryError(DeliveryErrorReason.CONNECT, f"{self.host}: broken answer to {what}", retryable=True)
        if code in (530, 534, 535, 538):  # RFC 4954 §6
            return DeliveryError(DeliveryErrorReason.AUTH, text, retryable=False)
        if code >= 500:  # noqa: PLR2004 - likewise
            return DeliveryError(DeliveryErrorReason.CLIENT_ERROR, text, retryable=False)
        return DeliveryError(DeliveryErrorReason.SERVER_ERROR, text, retryable=True)

    def _classify(self, error: Exception, *, timed_out: bool) -> DeliveryError:
        if timed_out or isinstance(error, TimeoutError):
            return DeliveryError(
                DeliveryErrorReason.TIMEOUT, f"{self.host}: no complete answer in time", retryable=True
            )
        if isinstance(error, ssl.SSLCertVerificationError):
            return DeliveryError(
                DeliveryErrorReason.TLS, f"{self.host}: certificate refused: {error.verify_message}", retryable=True
            )
        if isinstance(error, ssl.SSLError):
            return DeliveryError(DeliveryErrorReason.TLS, f"{self.host}: TLS failed", retryable=True)
        if isinstance(error, smtplib.SMTPNotSupportedError) or type(error) is smtplib.SMTPException:
            return DeliveryError(DeliveryErrorReason.AUTH, f"{self.host} offers no login that we know", retryable=False)
        return DeliveryError(
            DeliveryErrorReason.CONNECT, f"{self.host}: connection broken before the answer", retryable=True
        )


def _at(error: smtplib.SMTPResponseException) -> str:
    """Return what was refused where smtplib itself looks at the answer."""
    match error:
        case smtplib.SMTPAuthenticationError():
            return "our login"
        case smtplib.SMTPDataError():
            return _CONTENT
        case smtplib.SMTPHeloError():
            return "our greeting"
        case _:
            return "STARTTLS"


class _SmtpSession(smtplib.SMTP):
    """One connection."""

    def __init__(self, relay: SmtpServer, deadline: Deadline, tripwire: DeadlineEnforcer) -> None:
        self._relay = relay
        self._deadline = deadline
        self._tripwire = tripwire
        # A name given here keeps smtplib from asking the resolver for ours, which has no deadline.
        super().__init__(local_hostname="localhost")
        self._host = relay.host  # whose certificate it has to be

    def transfer(self, sender: str, recipients: Sequence[str], message: bytes) -> dict[str, DeliveryError]:
        relay = self._relay
        self._expect(self.connect(relay.host, relay.port), 220, "our connection")
        self.ehlo_or_helo_if_needed()
        if relay.tls_mode == "starttls":
            if not self.has_extn("starttls"):
                raise DeliveryError(DeliveryErrorReason.TLS, f"{relay.host} offers no STARTTLS", retryable=True)
            self._expect(self.starttls(context=relay.tls_context), 220, "STARTTLS")
            self.ehlo_or_helo_if_needed()
        if relay.login is not None:
            self.login(relay.login.username, relay.login.password.reveal())
        self._expect(self.mail(sender), 250, _MAIL)
        refused = {}
        for recipient in recipients:
            code, said = self.rcpt(recipient)
            if code not in (250, 251):
                refused[recipient] = relay.error_for_reply(code, said, _RECIPIENT)
        if len(refused) < len(recipients):
            self._expect(self.data(message), 250, _CONTENT)
        return refused

    def end(self) -> None:
        """Part from the server, without waiting for what it says to that."""
        try:
            if self.sock is not None:
                self.putcmd("quit")
        except (OSError, smtplib.SMTPException):
            pass  # what it has answered before counts
        self.close()

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = _SizeLimitedFile(self.sock.makefile("rb"))
        return super().getreply()

    def _get_socket(self, host: str, port: int, timeout: Any) -> socket.socket:  # noqa: ARG002 - smtplib's own way in
        made = connect_tcp(host, port, self._deadline)
        self._tripwire.watch_socket(made)
        self.local_hostname = _our_name(made)
        if self._relay.tls_mode == "implicit":
            return self._relay.tls_context.wrap_socket(made, server_hostname=host)
        return made

    def _expect(self, answer: tuple[int, bytes], code: int, what: str) -> None:
        if answer[0] != code:
            raise self._relay.error_for_reply(*answer, what)


class _SizeLimitedFile:
    """A file of a socket that ends where more comes than any answer needs."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._left = MAX_REPLY_BYTES

    def readline(self, size: int) -> bytes:
        line = self._file.readline(min(size, self._left))
        self._left -= len(line)
        # smtplib would take a line without end for a refusal; it is a connection of no use.
        return line if line.endswith(b"\n") else b""

    def close(self) -> None:
        self._file.close()


def _our_name(connection: socket.socket) -> str:
    """Return what to say in EHLO: this host's full name if it has one, else our address (RFC 5321 §4.1.4)."""
    name = socket.gethostname()
    if _FULL_NAME.fullmatch(name):
        return name
    address = str(connection.getsockname()[0]).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
