"""Every transport against peers that send without end: bytes and CPU time of an attempt are limited beside its time."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import time
from pathlib import Path

import pytest

from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError
from watchdog.receivers.apprise.apprise_receiver import Apprise
from watchdog.receivers.email import Email
from watchdog.receivers.syslog.wires import TlsSettings, wire_from_address
from watchdog.receivers.transport.attempt_guard import MAX_RECEIVED_BYTES, AttemptGuard
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.http import Endpoint, HttpTransport
from watchdog.receivers.transport.http_response import MAX_BODY_BYTES, MAX_HEAD_BYTES
from watchdog.receivers.transport.proxy import Proxy
from watchdog.receivers.transport.smtp import SmtpLogin, SmtpServer

CERTIFICATE = Path(__file__).parent / "localhost.pem"
DEADLINE = 30.0  # no attempt of these tests may need it
BUFFERS = 12_582_912  # bytes that the kernels of both sides take at most, read or not
MAX_CPU_SECONDS = 4.0
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class Flood:
    """A peer that sends `begin` after the first bytes of its client, and then `endless` again and again."""

    def __init__(self, begin, endless, *, greets=False, context=None):
        self._begin, self._endless, self._greets, self._context = begin, endless, greets, context
        self.sent = 0

    def __call__(self, connection, stopped):
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True)
        if not self._greets:
            connection.recv(65_536)
        connection.sendall(self._begin)
        while not stopped.is_set():
            self.sent += connection.send(self._endless)


@pytest.fixture
def attempt():
    """Return a function that makes a call, checks its time and CPU time, and returns its error, None without one."""

    def call(function, *arguments, deadline=DEADLINE):
        began, cpu = time.monotonic(), time.thread_time()
        error = None
        try:
            function(*arguments)
        except DeliveryError as caught:
            error = caught
        assert time.thread_time() - cpu < MAX_CPU_SECONDS
        assert time.monotonic() - began < deadline
        return error

    return call


def post(server, scheme="http", transport=None):
    return Endpoint(Secret(f"{scheme}://localhost:{server.port}/in"), transport).post(b"{}", {}, DEADLINE)


def trusting_context():
    return ssl.create_default_context(cafile=CERTIFICATE)


def server_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


# ----------------------------------------------------------------------------------------------------------------- HTTP


@pytest.mark.parametrize(
    ("begin", "endless", "limit"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 4_000, "more than 100 interim responses"),
        (b"HTTP/1.1 103 X\r\n", b"Link: x\r\n" * 8_000, "more than 256 KiB before the body"),
        (HEAD + b"X: y\r\n", b" folded\r\n" * 8_000, "got more than 100 headers"),
        (HEAD + b"X: ", b"x" * 65_536, "got more than 65536 bytes when reading header line"),
        (HEAD, b"X: %b\r\n" % (b"x" * 60_000), "more than 256 KiB before the body"),
        (b"HTTP/1.1 ", b"2" * 65_536, "got more than 65536 bytes when reading status line"),
    ],
    ids=["interim", "fields of interim", "folded field", "long field", "long fields", "status line"],
)
def test_an_endless_head_ends_the_attempt_with_its_cause(raw_server, attempt, begin, endless, limit):
    flood = Flood(begin, endless)
    error = attempt(post, raw_server(flood))
    assert (error.reason, str(error)) == ("connect", f"localhost: answer too long: {limit}")
    assert flood.sent < MAX_HEAD_BYTES + BUFFERS


@pytest.mark.parametrize(
    ("begin", "endless"),
    [
        (CHUNKED, b"1;" + b"x" * 60_000 + b"\r\nx\r\n"),
        (CHUNKED + b"0\r\n", b"X: y\r\n" * 8_000),
        (CHUNKED + b"-1\r\n", b"x" * 65_536),
        (CHUNKED + b"-5\r\n", b"x" * 65_536),
        (CHUNKED + b"f" * 15 + b"\r\n", b"x" * 65_536),
        (CHUNKED, b"1\r\nx\r\n" * 8_000),
        (HEAD + b"Content-Length: " + b"9" * 4_000 + b"\r\n\r\n", b"x" * 65_536),
        (HEAD + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\0\x03", b"\0" * 65_536),
        (HEAD + b"".join(b"Set-Cookie: a=b; expires=%b\r\n" % (b" 1" * 30_000) for _ in range(4)) + b"\r\n", b"x"),
        (HEAD + b"Retry-After: %b\r\nDate: %b\r\n\r\n" % (b"1 " * 30_000, b"(" * 60_000), b"x"),
    ],
    ids=["extensions", "trailer", "all", "negative", "huge", "tiny", "length", "gzip", "cookies", "dates"],
)
def test_an_endless_body_does_not_undo_a_success(raw_server, attempt, begin, endless):
    flood = Flood(begin, endless)
    answers = []
    assert attempt(lambda: answers.append(post(raw_server(flood)))) is None
    assert (answers[0].status, len(answers[0].body) <= 65_536) == (200, True)
    assert flood.sent < MAX_BODY_BYTES + BUFFERS


REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Encoding: gzip\r\n\r\n"


@pytest.mark.parametrize("location", [b"http://127.0.0.1/", b"http://[::1/", b"//" + b"x" * 60_000, b"\xff\xfe:"])
def test_the_body_and_the_url_of_a_redirect_are_not_read(raw_server, attempt, location):
    flood = Flood(REDIRECT % location, gzip.compress(bytes(1_000_000)) * 50)
    answers = []
    assert attempt(lambda: answers.append(post(raw_server(flood)))) is None
    assert (answers[0].status, answers[0].body[:2], len(answers[0].body)) == (302, b"\x1f\x8b", 65_536)
    assert flood.sent < MAX_BODY_BYTES + BUFFERS


def test_an_endless_answer_of_a_proxy_ends_the_attempt_with_its_cause(raw_server, attempt):
    server = raw_server(Flood(b"HTTP/1.0 200 Connection established\r\n", b"X-More: x\r\n" * 8_000))
    transport = HttpTransport(trusting_context(), Proxy("127.0.0.1", server.port, {}))
    error = attempt(post, server, "https", transport)
    assert (error.reason, str(error)) == ("connect", "localhost: answer too long: got more than 100 headers")


# ------------------------------------------------------------------------------------------------------------------ TLS


def tickets_without_end(then):
    """Return a TLS server that sends session tickets, which no reader of a protocol sees."""
    context = server_context()
    context.num_tickets = 1_000_000

    def serve(connection, stopped):
        with context.wrap_socket(connection, server_side=True) as session:
            then(session, stopped)

    return serve


def wait(_session, stopped):
    stopped.wait()


def test_tls_records_without_data_end_an_http_attempt(raw_server, attempt):
    error = attempt(post, raw_server(tickets_without_end(wait)), "https", HttpTransport(trusting_context()))
    assert (error.reason, str(error)) == ("connect", "localhost: answer too long: more than 4 MiB received")


def test_tls_records_without_data_end_a_mail_attempt(raw_server, firing, attempt):
    server = SmtpServer("localhost", raw_server(tickets_without_end(wait)).port, "implicit", trusting_context())
    error = attempt(Email("mail", server, "a@example.net", ("b@example.net",)).send, firing, DEADLINE)
    assert (error.reason, str(error)) == ("connect", "localhost: replies too long: more than 4 MiB received")


def test_tls_records_without_data_end_a_syslog_attempt(raw_server, attempt):
    port = raw_server(tickets_without_end(wait)).port
    wire = wire_from_address(f"tls://localhost:{port}", tls_settings=TlsSettings(trusting_context()))
    error = attempt(wire.send_records, [b"x"], Deadline(DEADLINE))
    assert (error.reason, str(error)) == ("connect", f"tls://localhost:{port}: answer too long: more than 64 KiB")


# ----------------------------------------------------------------------------------------------------------------- SMTP

GREETING = b"220 mx.example\r\n"


@pytest.mark.parametrize(
    ("begin", "endless", "limit"),
    [
        (b"", b"220-more\r\n" * 8_000, "more than 64 KiB in all"),
        (b"220 ", b"x" * 65_536, "more than 8,192 bytes in a line"),
        (GREETING, b"250-SIZE\r\n" * 8_000, "more than 64 KiB in all"),
        (GREETING + b"250-", b"\0" * 65_536, "more than 8,192 bytes in a line"),
    ],
    ids=["greeting", "line of the greeting", "extensions", "line of an extension"],
)
def test_endless_replies_of_a_mail_server_end_the_attempt_with_their_cause(
    raw_server, firing, attempt, begin, endless, limit
):
    flood = Flood(begin, endless, greets=True)
    server = SmtpServer("localhost", raw_server(flood).port, "none", trusting_context())
    error = attempt(Email("mail", server, "a@example.net", ("b@example.net",)).send, firing, DEADLINE)
    assert (error.reason, str(error)) == ("connect", f"localhost: replies too long: {limit}")
    assert flood.sent < BUFFERS


@pytest.mark.parametrize("challenge", [b"!", b"YQ", b"\xff\xff=", b"YWJj" * 1_000, b""])
def test_a_login_with_strange_challenges_is_refused(raw_server, firing, attempt, challenge):
    def challenge_for_ever(connection, _stopped):
        connection.sendall(GREETING)
        connection.recv(65_536)
        connection.sendall(b"250-mx.example\r\n250 AUTH CRAM-MD5 LOGIN PLAIN\r\n")
        while connection.recv(65_536):
            connection.sendall(b"334 %b\r\n" % challenge)

    server = SmtpServer(
        "localhost", raw_server(challenge_for_ever).port, "none", trusting_context(), SmtpLogin("me", Secret("secret"))
    )
    error = attempt(Email("mail", server, "a@example.net", ("b@example.net",)).send, firing, DEADLINE)
    assert error.reason in ("auth", "connect")
    assert "secret" not in str(error)


# --------------------------------------------------------------------------------------------------------------- syslog


def test_an_endless_answer_of_a_syslog_server_ends_the_attempt_with_its_cause(raw_server, attempt):
    flood = Flood(b"", b"220 ready\r\n" * 8_000)
    port = raw_server(flood).port
    error = attempt(wire_from_address(f"tcp://localhost:{port}").send_records, [b"x"], Deadline(DEADLINE))
    assert (error.reason, str(error)) == ("connect", f"tcp://localhost:{port}: answer too long: more than 64 KiB")
    assert flood.sent < BUFFERS


# -------------------------------------------------------------------------------------------------------------- Apprise


@pytest.mark.parametrize("endless", [b"x" * 65_536, b"1\r\nx\r\n" * 8_000], ids=["memory", "CPU time"])
def test_an_endless_answer_of_a_service_ends_the_process_of_apprise(raw_server, firing, attempt, endless):
    server = raw_server(Flood(CHUNKED if endless.startswith(b"1") else HEAD + b"\r\n", endless))
    receiver = Apprise("all", (Secret(f"json://127.0.0.1:{server.port}/"),))
    # Its limit is one of CPU time, which passes slowly on a busy machine.
    error = attempt(receiver.send, firing, 5 * DEADLINE, deadline=5 * DEADLINE)
    assert (error.reason, error.retryable) == ("server_error", True)


# ------------------------------------------------------------------------------------------------------------ the guard


def test_the_guard_ends_an_attempt_by_the_bytes_that_nobody_counts(raw_server):
    with socket.socket() as connection, AttemptGuard(Deadline(DEADLINE)) as guard:
        connection.connect(("127.0.0.1", raw_server(Flood(b"", b"x" * 65_536, greets=True)).port))
        guard.watch_socket(connection)
        received = 0
        with contextlib.suppress(ConnectionResetError):  # bytes on their way when it is shut down
            while chunk := connection.recv(65_536):
                received += len(chunk)
        assert guard.exceeded_limit == "more than 4 MiB received"
        assert not guard.has_expired
    assert received >= MAX_RECEIVED_BYTES


def test_the_guard_ends_an_attempt_by_its_cpu_time():
    with AttemptGuard(Deadline(DEADLINE)) as guard:
        while not guard.was_shut_down:
            pass
        assert guard.exceeded_limit == "more than 2 s of CPU time needed"


def test_the_guard_leaves_an_attempt_alone_that_only_waits():
    with AttemptGuard(Deadline(0.4)) as guard:
        time.sleep(0.2)
        assert not guard.was_shut_down
        time.sleep(0.6)
        assert (guard.has_expired, guard.exceeded_limit) == (True, None)
