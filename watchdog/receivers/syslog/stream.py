"""Syslog over a connection: TCP (RFC 6587) and, above it, TLS (RFC 5425).

A connection that stays open says nothing of what became of the records written to it: the first write after the peer
has gone succeeds. So each notice has its own connection, and its end is the acknowledgement. From a peer that does not
close, the word of its kernel that all has arrived must do: a record that its process then never reads is lost
unnoticed.
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
from watchdog.receivers.transport.deadline import Deadline, connect_tcp
from watchdog.receivers.transport.tls import has_fingerprint

FRAMINGS = ("octet-counting", "lf")

_CLOSING_SECONDS = 1.0  # how long to wait for a peer to close before asking the kernel
_ASK_AGAIN_SECONDS = 0.05
_PIECE_BYTES = 16_384
_BROKEN = (errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """TLS: its context, and the SHA-256 digests of the only certificates to take, if there are any."""

    tls_context: ssl.SSLContext
    fingerprints: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamWire:
    """Delivered when the peer has closed after us, having read to our end."""

    host: str
    port: int
    framing: str = "octet-counting"  # RFC 6587 §3.4.1; "lf" is its §3.4.2, for servers that know no better
    tls_settings: TlsSettings | None = None

    max_record_bytes = 8_000  # rsyslog and syslog-ng take 8 KiB by default, less some room for what they add

    def send_records(self, records: Sequence[bytes], deadline: Deadline) -> None:
        """Send the records on a connection of their own, close our half of it and wait for the peer's."""
        with connect_tcp(self.host, self.port, deadline) as connection:
            try:
                session = (
                    None
                    if self.tls_settings is None
                    else _TlsSession(self.tls_settings, self.host, connection, deadline)
                )
                frames = self._frames(records)
                connection.settimeout(max(0.001, deadline.remaining()))
                connection.sendall(frames if session is None else session.encrypt_and_close(frames))
                connection.shutdown(socket.SHUT_WR)
                heard = _until_closed(connection, Deadline(min(_CLOSING_SECONDS, deadline.remaining())))
                if session is not None:
                    session.raise_on_alert(heard)
                _wait_for_kernel(connection, deadline)
            except TimeoutError:
                raise DeliveryError(
                    DeliveryErrorReason.TIMEOUT, f"{self}: the server does not take it in time", retryable=True
                ) from None
            except ssl.SSLCertVerificationError as error:
                raise DeliveryError(
                    DeliveryErrorReason.TLS, f"{self}: certificate refused: {error.verify_message}", retryable=True
                ) from None
            except ssl.SSLError as error:
                raise DeliveryError(
                    DeliveryErrorReason.TLS, f"{self}: TLS failed: {_alert(error)}", retryable=True
                ) from None
            except OSError as error:
                raise DeliveryError(
                    DeliveryErrorReason.CONNECT, f"{self}: {self._breach(error)}", retryable=True
                ) from None

    def __str__(self) -> str:
        """Return the address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tcp' if self.tls_settings is None else 'tls'}://{host}:{self.port}"

    def _breach(self, error: OSError) -> str:
        if error.errno not in _BROKEN:
            return error.strerror or "connection broken"
        refused = "" if self.tls_settings is None else ", as servers do that refuse our certificate"
        return f"the server closed before it had all{refused}"

    def _frames(self, records: Sequence[bytes]) -> bytes:
        if self.framing == "lf":
            return b"".join(record + b"\n" for record in records)  # no record has a line break: all are sanitised
        return b"".join(b"%d %b" % (len(record), record) for record in records)


class _TlsSession:
    """TLS over memory: what is sent and read goes through the same calls as without it, under the same deadline."""

    def __init__(self, tls_settings: TlsSettings, host: str, connection: socket.socket, deadline: Deadline) -> None:
        """Shake hands; raises `ssl.SSLError` or `OSError`, also where the certificate is not the one expected."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls_settings.tls_context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._exchange(connection, deadline)
            except ssl.SSLError:
                self._say_why(connection)
                raise
        certificate = self._tls.getpeercert(binary_form=True)
        if tls_settings.fingerprints and not (certificate and has_fingerprint(certificate, tls_settings.fingerprints)):
            raise ssl.SSLError(0, "the certificate has another fingerprint")

    def encrypt_and_close(self, octets: bytes) -> bytes:
        """Return what to send for `octets` and the end of the session after them (close_notify)."""
        self._tls.write(octets)  # memory takes all of it
        with contextlib.suppress(ssl.SSLWantReadError):  # the peer's own end is yet to come
            self._tls.unwrap()
        return self._outgoing.read()

    def raise_on_alert(self, heard: bytes) -> None:
        """Read what the peer said until it closed: raise if it was an alert.

        So TLS 1.3 refuses our certificate, after we have sent all (RFC 8446 §4.4.2.4), and some servers then close in
        good order. `unwrap` would not tell. That a peer just closes, with no end of its own, is common; that it has
        read is said by its kernel.
        """
        self._incoming.write(heard)
        try:
            while self._tls.read(_PIECE_BYTES):
                pass  # what a peer says is not part of the protocol
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            return

    def _exchange(self, connection: socket.socket, deadline: Deadline) -> None:
        connection.settimeout(max(0.001, deadline.remaining()))
        if self._outgoing.pending:
            connection.sendall(self._outgoing.read())
        connection.settimeout(max(0.001, deadline.remaining()))
        piece = connection.recv(_PIECE_BYTES)
        if not piece:
            raise ssl.SSLError(0, "the server closed during the handshake")
        self._incoming.write(piece)

    def _say_why(self, connection: socket.socket) -> None:
        """Send the alert that tells the server's log why we go."""
        try:
            connection.sendall(self._outgoing.read())
        except OSError:
            return


def _until_closed(connection: socket.socket, patience: Deadline) -> bytes:
    """Return what the peer says until it closes, or until patience ends."""
    heard = b""
    while remaining := patience.remaining():
        connection.settimeout(remaining)
        try:
            piece = connection.recv(_PIECE_BYTES)
        except TimeoutError:
            break
        if not piece:
            break
        heard = (heard + piece)[-_PIECE_BYTES:]
    return heard


def _wait_for_kernel(connection: socket.socket, deadline: Deadline) -> None:
    """Wait until the peer's kernel has all, our end included; also where the peer has closed.

    A peer that closes at once, before it was sent anything, looks like one that has read: only then comes its reset.
    """
    while _unacknowledged_bytes(connection):
        if not deadline.remaining():
            raise TimeoutError
        select.select([], [], [], min(_ASK_AGAIN_SECONDS, deadline.remaining()))
        if number := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, "reset by the server")


def _unacknowledged_bytes(connection: socket.socket) -> int:
    """Return how much of what was sent, the end included, the peer's kernel has not acknowledged: SIOCOUTQ, tcp(7)."""
    answer = array.array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, answer)
    return answer[0]


def _alert(error: ssl.SSLError) -> str:
    reason: str | None = getattr(error, "reason", None)  # those of our own have none
    return (reason or error.strerror or "broken").lower().replace("_", " ")
