"""E-mail to a real server over TLS, and to misbehaving servers."""

from __future__ import annotations

import asyncio
import email
import email.policy
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, AuthResult

from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError
from watchdog.receivers.email import Email
from watchdog.receivers.transport.smtp import SmtpLogin, SmtpServer

CERTIFICATE = Path(__file__).parent / "localhost.pem"
DEADLINE = 10.0
SENDER, ONCALL, BOSS = "watchdog@example.net", "oncall@example.net", "boss@example.net"


class Mailbox:
    """The accepted messages of a server, and its replies: `answers` by recipient, `to_data` for each message."""

    def __init__(self):
        self.accepted_messages = []
        self.answers = {}
        self.to_data = "250 taken"

    async def handle_RCPT(self, server, session, envelope, address, options):
        answer = self.answers.get(address, "250 ok")
        if answer.startswith("2"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server, session, envelope):
        if self.to_data.startswith("2"):
            self.accepted_messages.append(
                (session.ssl is not None, envelope.mail_from, envelope.rcpt_tos, envelope.content)
            )
        return self.to_data

    def messages(self):
        return [
            email.message_from_bytes(content, policy=email.policy.default) for *_, content in self.accepted_messages
        ]


class Server(threading.Thread):
    """A mail server on a free port of 127.0.0.1."""

    def __init__(self, mailbox, context, *, implicit=False, **options):
        super().__init__()
        self._context = context if implicit else None
        self._options = options if implicit else {"tls_context": context, **options}
        self._mailbox = mailbox
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.port = None

    def start(self):
        super().start()
        assert self._ready.wait(60)

    def run(self):
        asyncio.set_event_loop(self._loop)  # required by the library of the server
        server = self._loop.run_until_complete(
            self._loop.create_server(self._session, "127.0.0.1", 0, ssl=self._context)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        others = asyncio.all_tasks(self._loop)
        for task in others:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*others, return_exceptions=True))
        self._loop.close()

    def stop(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self.join()

    def _session(self):
        return SMTP(self._mailbox, hostname="localhost", loop=self._loop, **self._options)


def only_us(server, session, envelope, mechanism, data):
    right = (data.login, data.password) == (b"watchdog", b"secret-password")
    return AuthResult(success=right, handled=False, message=None if right else "535 5.7.8 no secret-password for you")


@pytest.fixture
def mailbox():
    return Mailbox()


@pytest.fixture
def mail_server(mailbox):
    """Return a function that starts a mail server."""
    running = []

    def start(**options):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        running.append(Server(mailbox, context, **options))
        running[-1].start()
        return running[-1].port

    yield start
    for server in running:
        server.stop()


def receiver_of(port, *recipients, tls="starttls", login=None, trusts=CERTIFICATE):
    context = ssl.create_default_context(cafile=trusts)
    return Email("mail", SmtpServer("localhost", port, tls, context, login), SENDER, recipients or (ONCALL,))


def failure_of(receiver, notification, deadline=DEADLINE):
    """Return the error of a delivery that must fail; check that it shows no secret."""
    with pytest.raises(DeliveryError) as caught:
        receiver.send(notification, deadline)
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    return caught.value


# ------------------------------------------------------------------------------------------------- a correct server


def test_firing_and_resolved_arrive_over_tls_in_one_thread(mail_server, mailbox, firing, resolved):
    port = mail_server(require_starttls=True, authenticator=only_us, auth_required=True)
    receiver = receiver_of(port, ONCALL, BOSS, login=SmtpLogin("watchdog", Secret("secret-password")))
    receiver.send(firing, DEADLINE)
    receiver.send(resolved, DEADLINE)
    assert [message[:3] for message in mailbox.accepted_messages] == [(True, SENDER, [ONCALL, BOSS])] * 2
    first, second = mailbox.messages()
    assert first["Subject"] == "[FIRING] critical: crawler opens 612/s connections (limit 500/s) on web-1"
    assert second["Subject"] == "[RESOLVED] critical: crawler opens 612/s connections (limit 500/s) on web-1"
    assert first["Message-ID"] == f"<{firing.id}@example.net>"
    assert (first["In-Reply-To"], second["In-Reply-To"], second["References"]) == (None, *[first["Message-ID"]] * 2)
    assert "why: value above 500/s for 10 s" in first.get_content()


def test_implicit_tls_works(mail_server, mailbox, firing):
    receiver_of(mail_server(implicit=True), tls="implicit").send(firing, DEADLINE)
    assert len(mailbox.accepted_messages) == 1


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_the_final_dot_of_a_name_is_not_part_of_the_certificate(mail_server, mailbox, firing, tls, monkeypatch):
    look_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **options: look_up("127.0.0.1", *more, **options))
    port = mail_server(implicit=True) if tls == "implicit" else mail_server()
    receiver = receiver_of(port, ONCALL, tls=tls)
    receiver._server = replace(receiver._server, host="localhost.")
    receiver.send(firing, DEADLINE)
    assert len(mailbox.accepted_messages) == 1


def test_a_server_without_tls_is_used_only_with_tls_none(mail_server, mailbox, firing):
    receiver_of(mail_server(), tls="none").send(firing, DEADLINE)
    assert [message[0] for message in mailbox.accepted_messages] == [False]


def test_the_sent_message_is_the_rendered_one(mail_server, mailbox, firing):
    receiver = receiver_of(mail_server())
    receiver.send(firing, DEADLINE)
    [(*_, content)] = mailbox.accepted_messages
    assert content == receiver.render(firing)


def test_a_line_of_one_dot_does_not_end_the_message(mail_server, mailbox, firing):
    [alert] = firing.alerts
    receiver_of(mail_server()).send(replace(firing, alerts=(replace(alert, reason="\r\n.\r\nRSET"),)), DEADLINE)
    [message] = mailbox.messages()
    assert r"why: \x0d\x0a.\x0d\x0aRSET" in message.get_content()


# ----------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("answer", "reason", "text", "retryable"),
    [
        ("451 4.3.0 queue full of secret", "server_error", "answered 451 4.3.0 to the message", True),
        ("554 no secret here", "client_error", "answered 554 to the message", False),
        ("552 5.3.4 too big", "client_error", "answered 552 5.3.4 to the message", False),
    ],
)
def test_the_first_digit_of_a_reply_is_the_result(mail_server, mailbox, firing, answer, reason, text, retryable):
    mailbox.to_data = answer
    failure = failure_of(receiver_of(mail_server()), firing)
    assert (failure.reason, str(failure), failure.retryable) == (reason, f"localhost {text}", retryable)


def test_only_a_deferred_recipient_is_retried(mail_server, mailbox, firing):
    receiver = receiver_of(mail_server(), ONCALL, BOSS)
    mailbox.answers[BOSS] = "450 4.2.0 greylisted"
    failure = failure_of(receiver, firing)
    assert (str(failure), failure.retryable) == (
        "1 of 2 recipients not reached: localhost answered 450 4.2.0 to a recipient",
        True,
    )
    mailbox.answers.clear()
    receiver.send(firing, DEADLINE)
    assert [message[2] for message in mailbox.accepted_messages] == [[ONCALL], [BOSS]]
    assert mailbox.accepted_messages[0][3] == mailbox.accepted_messages[1][3]


def test_a_refused_recipient_delays_no_other_and_is_reported(mail_server, mailbox, firing):
    receiver = receiver_of(mail_server(), ONCALL, BOSS)
    mailbox.answers = {ONCALL: "550 5.1.1 nobody called secret", BOSS: "450 4.2.0 greylisted"}
    assert failure_of(receiver, firing).retryable
    mailbox.answers[BOSS] = "250 ok"
    failure = failure_of(receiver, firing)
    assert str(failure) == "1 of 2 recipients refused: localhost answered 550 5.1.1 to a recipient"
    assert (failure.reason, failure.retryable) == ("client_error", False)
    assert [message[2] for message in mailbox.accepted_messages] == [[BOSS]]


def test_a_wrong_password_is_final_and_not_shown(mail_server, firing):
    port = mail_server(require_starttls=True, authenticator=only_us, auth_required=True)
    failure = failure_of(receiver_of(port, login=SmtpLogin("watchdog", Secret("wrong-secret"))), firing)
    assert (failure.reason, failure.retryable) == ("auth", False)
    assert str(failure) == "localhost answered 535 5.7.8 to the login"


def test_a_server_without_logins_is_reported(mail_server, firing):
    port = mail_server(auth_exclude_mechanism=["LOGIN", "PLAIN"])
    failure = failure_of(receiver_of(port, login=SmtpLogin("watchdog", Secret("secret"))), firing)
    assert (failure.reason, str(failure)) == ("auth", "localhost offers no supported login method")


# ---------------------------------------------------------------------------------------------------- trust


def test_nothing_is_sent_to_a_server_that_offers_no_tls(raw_server, firing):
    received = []
    server = raw_server(speaking(received, b"250 localhost"))
    failure = failure_of(receiver_of(server.port), firing)
    assert (failure.reason, str(failure), failure.retryable) == ("tls", "localhost offers no STARTTLS", True)
    server.stop()  # it has read all data
    assert [line.split()[0] for line in received] == [b"ehlo", b"quit"]


def test_nothing_is_sent_to_a_server_with_an_untrusted_certificate(mail_server, mailbox, firing):
    for tls, options in (("starttls", {}), ("implicit", {"implicit": True})):
        failure = failure_of(receiver_of(mail_server(**options), tls=tls, trusts=None), firing)
        assert (failure.reason, failure.retryable) == ("tls", True)
        assert "certificate refused" in str(failure)
    assert mailbox.accepted_messages == []


def test_data_before_tls_is_ignored_after_it(raw_server, firing):
    received = []
    behave = speaking(
        received, b"250-localhost\r\n250 STARTTLS", starttls=b"220 go\r\n250-localhost\r\n250 AUTH PLAIN\r\n"
    )
    failure = failure_of(receiver_of(raw_server(behave).port), firing)
    assert failure.reason in ("tls", "connect")


# ------------------------------------------------------------------------------------------- misbehaving servers


def speaking(received, ehlo, starttls=b"220 go\r\n"):
    def behave(connection, stopped):
        connection.sendall(b"220 localhost\r\n")
        for line in connection.makefile("rb"):
            received.append(line)
            verb = line[:4].lower()
            connection.sendall(ehlo + b"\r\n" if verb == b"ehlo" else starttls if verb == b"star" else b"250 ok\r\n")

    return behave


def silent(connection, stopped):
    stopped.wait()


def dripping(connection, stopped):
    while not stopped.wait(0.05):
        connection.sendall(b"220-")


def endless_line(connection, stopped):
    while not stopped.is_set():
        connection.sendall(b"220 " + b"x" * 65_536)


def endless_answer(connection, stopped):
    while not stopped.is_set():
        connection.sendall(b"220-more\r\n" * 8_192)


def resetting(connection, stopped):
    connection.sendall(b"220 localhost\r\n")


def babbling(connection, stopped):
    connection.sendall(b"\xff\xfe\x00 secret\r\n")
    stopped.wait()


def busy(connection, stopped):
    connection.sendall(b"421 4.3.2 secret maintenance\r\n")
    stopped.wait()


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (silent, "timeout"),
        (dripping, "timeout"),
        (endless_line, "connect"),
        (endless_answer, "connect"),
        (resetting, "connect"),
        (babbling, "connect"),
        (busy, "server_error"),
    ],
)
def test_misbehaving_servers_end_at_the_deadline(raw_server, firing, behave, reason):
    port = raw_server(behave).port
    began = time.monotonic()
    failure = failure_of(receiver_of(port), firing, 1.0)
    assert time.monotonic() - began < 4
    assert (failure.reason, failure.retryable) == (reason, True)


def test_a_hanging_handshake_ends_at_the_deadline(raw_server, firing):
    def behave(connection, stopped):
        connection.sendall(b"220 localhost\r\n")
        connection.recv(1_024)
        connection.sendall(b"250-localhost\r\n250 STARTTLS\r\n")
        connection.recv(1_024)
        connection.sendall(b"220 go\r\n")
        stopped.wait()

    assert failure_of(receiver_of(raw_server(behave).port), firing, 1.0).reason == "timeout"


def test_a_closed_port_is_retryable(unused_port, firing):
    failure = failure_of(receiver_of(unused_port(1)), firing)
    assert (failure.reason, failure.retryable) == ("connect", True)


def test_modules_for_sending_are_loaded_when_the_receiver_is_built():
    """Later the daemon may not be able to read its own installation."""
    program = textwrap.dedent("""
        import sys, tomllib
        from watchdog.config.settings import read_settings
        from watchdog.config.document import Document
        from watchdog.errors import DeliveryErrorReason
        from watchdog.receivers.registry import build_receivers
        from watchdog.receivers.render.example import example_notifications
        assert "smtplib" not in sys.modules
        text = '[[receiver]]\\nname="m"\\ntype="email"\\nhost="127.0.0.1"\\nport=1\\nfrom="a@b"\\nto=["c@d"]\\n'
        receiver = build_receivers(read_settings(Document(text, tomllib.loads(text), "x")))["m"]
        before = set(sys.modules)
        for notification in example_notifications("m"):
            try:
                receiver.send(notification, 5.0)
            except Exception as error:
                assert error.reason == "connect", error
        print(sorted(set(sys.modules) - before))
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=170, check=True)
    assert done.stdout == "[]\n"
