"""Syslog over a connection: TCP (RFC 6587) and TLS (RFC 5425).

On a connection that stays open there is no sign that records arrived: the first write after the peer has closed still
succeeds. So each notification has its own connection, and the close of the peer is the acknowledgement. If the peer
does not close, the acknowledgement of its kernel is used; a record that its process then never reads is lost
undetected.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import select
import socket
import ssl
import termios
from collections.abc import Sequence
from dataclasses import dataclass

from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers.transport.attempt_guard import AttemptGuard
from watchdog.receivers.transport.connect import connect_tcp
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.host_names import tls_name
from watchdog.receivers.transport.tls import certificate_error, has_fingerprint

FRAMINGS = ("octet-counting", "lf")

MAX_RECORD_BYTES = 8_000  # default of rsyslog and syslog-ng: 8 KiB, less some room for the fields that they add

_MAX_CLOSE_WAIT_SECONDS = 1.0  # wait for the peer to close; after that, ask the kernel
_POLL_INTERVAL_SECONDS = 0.05
_CHUNK_BYTES = 16_384
_MAX_ANSWER_BYTES = 65_536  # the protocol defines no data from the server; TLS has alerts and session tickets
_CLOSED_BY_PEER = (errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """TLS context, and the SHA-256 digests of the accepted certificates; without digests, the context alone decides."""

    tls_context: ssl.SSLContext
    fingerprints: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamWire:
    """TCP or TLS: records are delivered once the peer has read to the end and closed."""

    host: str
    port: int
    framing: str = "octet-counting"  # RFC 6587 §3.4.1; "lf" is §3.4.2, for servers without octet counting
    tls_settings: TlsSettings | None = None

    max_record_bytes = MAX_RECORD_BYTES

    def send_records(self, records: Sequence[bytes], deadline: Deadline) -> None:
        """Send the records on a new connection, close the sending half and wait until the peer closes.

        Raises:
            DeliveryError: the peer refused the connection or the certificate, or did not take all records in time.
        """
        with connect_tcp(self.host, self.port, deadline) as connection, AttemptGuard(deadline) as guard:
            try:
                guard.watch_socket(connection)
                self._exchange(connection, records, deadline)
            except OSError as error:  # also ssl.SSLError and TimeoutError
                raise self._delivery_error(TimeoutError() if guard.has_expired else error, guard) from None

    def __str__(self) -> str:
        """Return the address."""
        return f"{'tcp' if self.tls_settings is None else 'tls'}://{bracket_ipv6(self.host)}:{self.port}"

    def _exchange(self, connection: socket.socket, records: Sequence[bytes], deadline: Deadline) -> None:
        session = None
        if self.tls_settings is not None:
            session = _TlsSession(self.tls_settings, self.host, connection, deadline)
        frames = self._frames(records)
        connection.settimeout(deadline.socket_timeout())
        connection.sendall(frames if session is None else session.encrypt_and_close(frames))
        connection.shutdown(socket.SHUT_WR)
        received = _read_until_closed(connection, Deadline(min(_MAX_CLOSE_WAIT_SECONDS, deadline.remaining())))
        if session is not None:
            session.raise_on_alert(received)
        _wait_for_kernel(connection, deadline)

    def _delivery_error(self, error: OSError, guard: AttemptGuard) -> DeliveryError:
        limit = str(error) if isinstance(error, _AnswerTooLong) else guard.exceeded_limit
        if limit is not None:
            return DeliveryError(DeliveryErrorReason.CONNECT, f"{self}: answer too long: {limit}", retryable=True)
        match error:
            case TimeoutError():
                return DeliveryError(
                    DeliveryErrorReason.TIMEOUT, f"{self}: the server did not take all records in time", retryable=True
                )
            case ssl.SSLCertVerificationError():
                return certificate_error(str(self), error)
            case ssl.SSLError():
                text = f"{self}: TLS failed: {_tls_cause(error)}"
                return DeliveryError(DeliveryErrorReason.TLS, text, retryable=True)
            case _:
                return DeliveryError(DeliveryErrorReason.CONNECT, f"{self}: {self._break_cause(error)}", retryable=True)

    def _break_cause(self, error: OSError) -> str:
        if error.errno not in _CLOSED_BY_PEER:
            return error.strerror or "connection broken"
        hint = "" if self.tls_settings is None else ": it may refuse the client certificate"
        return f"the server closed before it had read all records{hint}"

    def _frames(self, records: Sequence[bytes]) -> bytes:
        if self.framing == "lf":
            # Records are sanitised: none contains a line break.
            return b"".join(record + b"\n" for record in records)
        return b"".join(b"%d %b" % (len(record), record) for record in records)


class _TlsSession:
    """TLS over memory buffers: the socket is written and read by the same calls as without TLS, under one deadline."""

    def __init__(self, tls_settings: TlsSettings, host: str, connection: socket.socket, deadline: Deadline) -> None:
        """Do the handshake and check the certificate.

        Raises:
            ssl.SSLError: the handshake failed, or the certificate is not an accepted one.
            OSError: the connection broke or timed out.
        """
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls_settings.tls_context.wrap_bio(self._incoming, self._outgoing, server_hostname=tls_name(host))
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._exchange(connection, deadline)
            except ssl.SSLError:
                self._send_alert(connection)
                raise
        certificate = self._tls.getpeercert(binary_form=True)
        if tls_settings.fingerprints and not (certificate and has_fingerprint(certificate, tls_settings.fingerprints)):
            raise ssl.SSLError(0, "the fingerprint of the certificate is not configured")

    def encrypt_and_close(self, octets: bytes) -> bytes:
        """Return the encrypted `octets`, followed by close_notify."""
        self._tls.write(octets)  # the memory buffer takes all of it
        with contextlib.suppress(ssl.SSLWantReadError):  # the peer has not sent its close_notify yet
            self._tls.unwrap()
        return self._outgoing.read()

    def raise_on_alert(self, received: bytes) -> None:
        """Decrypt the bytes that the peer sent until it closed; raise if they contain an alert.

        A TLS 1.3 server refuses a client certificate by an alert after all records are sent (RFC 8446 §4.4.2.4), and
        some servers then close normally; `unwrap` does not report it. A close without close_notify is common and no
        error: the peer's kernel confirms the records.

        Raises:
            ssl.SSLError: the peer sent an alert.
        """
        self._incoming.write(received)
        try:
            while self._tls.read(_CHUNK_BYTES):
                pass  # the protocol defines no data from the server
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            return

    def _exchange(self, connection: socket.socket, deadline: Deadline) -> None:
        connection.settimeout(deadline.socket_timeout())
        if self._outgoing.pending:
            connection.sendall(self._outgoing.read())
        connection.settimeout(deadline.socket_timeout())
        chunk = connection.recv(_CHUNK_BYTES)
        if not chunk:
            raise ssl.SSLError(0, "the server closed during the handshake")
        self._incoming.write(chunk)

    def _send_alert(self, connection: socket.socket) -> None:
        """Send the alert with the cause of the failure, for the server's log."""
        with contextlib.suppress(OSError):
            connection.sendall(self._outgoing.read())


def bracket_ipv6(host: str) -> str:
    """Return `host` as in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


class _AnswerTooLong(OSError):
    """The server sent more than a syslog server does; the text names the limit."""


def _read_until_closed(connection: socket.socket, deadline: Deadline) -> bytes:
    """Return the bytes that the peer sends until it closes or the deadline passes.

    Raises:
        _AnswerTooLong: there are too many.
    """
    received = b""
    while remaining := deadline.remaining():
        connection.settimeout(remaining)
        try:
            chunk = connection.recv(_CHUNK_BYTES)
        except TimeoutError:
            break
        if not chunk:
            break
        received += chunk
        if len(received) > _MAX_ANSWER_BYTES:
            raise _AnswerTooLong(f"more than {_MAX_ANSWER_BYTES >> 10} KiB")
    return received


def _wait_for_kernel(connection: socket.socket, deadline: Deadline) -> None:
    """Wait until the peer's kernel has acknowledged all bytes and the FIN, also if the peer has closed already.

    A peer that closes at once, before any record arrives, looks like a peer that has read everything; its reset comes
    only afterwards.

    Raises:
        OSError: the peer reset the connection.
        TimeoutError: the deadline passed.
    """
    while _unacknowledged_bytes(connection):
        if not deadline.remaining():
            raise TimeoutError
        select.select([], [], [], min(_POLL_INTERVAL_SECONDS, deadline.remaining()))
        if error_number := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error_number, "reset by the server")


def _unacknowledged_bytes(connection: socket.socket) -> int:
    """Return the bytes that the peer's kernel has not acknowledged, the FIN included: SIOCOUTQ, tcp(7)."""
    count = array.array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, count)
    return count[0]


def _tls_cause(error: ssl.SSLError) -> str:
    reason: str | None = getattr(error, "reason", None)  # errors raised in this module have none
    return (reason or error.strerror or "broken").lower().replace("_", " ")
