from __future__ import annotations

import email
import email.policy
import tomllib

import pytest

from watchdog.config.document import Document
from watchdog.config.settings import read_settings
from watchdog.errors import ConfigError, DeliveryError, DeliveryErrorReason, StoreError
from watchdog.receivers.base import ReceiverOptions
from watchdog.receivers.email import Email
from watchdog.receivers.registry import build_receivers


class Server:
    """A mail server that accepts messages, except for the recipients in `refusing`."""

    host, port = "mail.example", 587

    def __init__(self):
        self.accepted_messages = []
        self.refusing = {}

    def send_message(self, sender, recipients, message, deadline):
        refused = {recipient: self.refusing[recipient] for recipient in recipients if recipient in self.refusing}
        self.accepted_messages.append(
            ([recipient for recipient in recipients if recipient not in refused], parse(message))
        )
        return refused


def parse(message):
    return email.message_from_bytes(message, policy=email.policy.default)


@pytest.fixture
def server():
    return Server()


def email_through(server, options=None):
    return Email("mail", server, "watchdog@example.net", ("oncall@example.net", "boss@example.net"), options)


@pytest.fixture
def receiver(server):
    return email_through(server)


def text_of(message):
    return message.get_content().replace("\r\n", "\n")


def check_form(raw):
    """Check the form of a message by RFC 5322: short 7-bit lines, no added header; return it parsed."""
    assert raw.isascii()
    lines = raw.split(b"\r\n")
    assert all(len(line) <= 998 and b"\n" not in line and b"\r" not in line for line in lines)
    names = [line.split(b":")[0] for line in raw.partition(b"\r\n\r\n")[0].split(b"\r\n") if not line.startswith(b" ")]
    assert sorted(names) == [
        b"Auto-Submitted",
        b"Content-Transfer-Encoding",
        b"Content-Type",
        b"Date",
        b"From",
        b"MIME-Version",
        b"Message-ID",
        b"Subject",
        b"To",
        b"X-Notification-Id",
    ]
    return parse(raw)


def test_a_message_has_all_headers_and_lines(receiver, make_alert, make_notification):
    message = check_form(receiver.render(make_notification(make_alert(runbook="https://wiki.example/storm"))))
    identity = "5f0c7e7a8d9b4c6e8f1a2b3c4d5e6f70"
    title = "[FIRING] critical: crawler opens 612/s connections (limit 500/s)"
    assert message["Subject"] == f"{title} on web-1"
    assert (message["From"], message["To"]) == ("watchdog@example.net", "oncall@example.net, boss@example.net")
    assert message["Date"].datetime.timestamp() == 1_750_000_012
    assert message["Message-ID"] == f"<{identity}@example.net>"
    assert (message["Auto-Submitted"], message["X-Notification-Id"]) == ("auto-generated", identity)
    assert text_of(message) == (
        f"{title}\n"
        "  value 612/s, limit 500/s, peak 640/s\n"
        "  process=crawler, unit=crawler.service\n"
        "  since 2025-06-15 15:06:40 UTC, for 12 s; why: value above 500/s for 10 s\n"
        "  host web-1, rule outbound-connection-storm\n"
        "  runbook: https://wiki.example/storm\n"
        "\n"
        f"first notification, notification {identity}\n"
        "next: bpf-watchdog alerts show 01234567; to silence: bpf-watchdog ack 01234567;"
        f" delivery: bpf-watchdog notifications show {identity[:12]}\n"
    )


def test_several_alerts_share_a_subject_and_excess_ones_are_counted(receiver, make_alert, make_notification):
    message = check_form(receiver.render(make_notification(*(make_alert() for _ in range(103)))))
    assert message["Subject"] == "[FIRING:103] critical: outbound-connection-storm on web-1"
    assert text_of(message).count("[FIRING] critical: ") == 100
    assert "\n\nand 3 more alerts\n\n" in text_of(message)


def test_hostile_names_add_no_header_and_decode_to_themselves(receiver, hostile_notification):
    message = check_form(receiver.render(hostile_notification))
    assert message["Subject"].isprintable()
    assert message["Subject"].startswith("[FIRING] critical: ")
    assert all(line.isprintable() for line in text_of(message).split("\n"))


def test_a_name_in_the_form_of_an_encoded_word_is_unchanged(receiver, make_alert, make_notification):
    hidden = "=?utf-8?b?4oCu?="  # a bidi control
    message = check_form(receiver.render(make_notification(make_alert(summary=hidden), host=hidden)))
    assert message["Subject"] == f"[FIRING] critical: {hidden} on {hidden}"


def test_all_messages_until_the_end_are_in_one_thread(receiver, server, make_alert, make_notification):
    for number, alert in enumerate((make_alert(), make_alert(), make_alert(resolved=1_750_000_100.0), make_alert())):
        receiver.send(make_notification(alert, id=str(number)), 10.0)
    references = [message["References"] for _, message in server.accepted_messages]
    assert references == [None, "<0@example.net>", "<0@example.net>", None]
    assert [message["In-Reply-To"] for _, message in server.accepted_messages] == references


def test_each_group_has_its_own_thread(receiver, server, make_notification):
    receiver.send(make_notification(id="0"), 10.0)
    receiver.send(make_notification(id="1", group_key="other"), 10.0)
    assert [message["References"] for _, message in server.accepted_messages] == [None, None]


def test_a_repeated_message_is_identical(receiver, server, make_notification):
    receiver.send(make_notification(), 10.0)
    receiver.send(make_notification(), 10.0)
    first, second = (message.as_bytes() for _, message in server.accepted_messages)
    assert first == second


class FailingState:
    """A receiver state on a full disk."""

    def get(self, key):
        raise StoreError(f"disk full: key={key}")

    def put(self, key, value):
        raise StoreError(f"disk full: key={key} value={value}")


def test_a_failing_state_costs_the_thread_but_no_notification(server, make_alert, make_notification):
    receiver = email_through(server, ReceiverOptions(state=FailingState()))
    receiver.send(make_notification(), 10.0)
    receiver.send(make_notification(make_alert(resolved=1_750_000_100.0), id="1"), 10.0)
    assert len(server.accepted_messages) == 2


def test_at_most_a_hundred_unfinished_notifications_are_kept(receiver, server, make_notification):
    server.refusing["boss@example.net"] = DeliveryError(DeliveryErrorReason.SERVER_ERROR, "later", retryable=True)
    for number in range(300):
        with pytest.raises(DeliveryError):
            receiver.send(make_notification(id=str(number)), 10.0)
    assert len(receiver._unfinished) == 100


TABLE = '[[receiver]]\nname="mail"\ntype="email"\nhost="mail.example"\nfrom="a@example.net"\nto=["b@example.net"]\n'


def build(text):
    return build_receivers(read_settings(Document(text, tomllib.loads(text), "watchdog.toml")))["mail"]


@pytest.mark.parametrize(
    ("more", "tls", "port"),
    [
        ("", "starttls", 587),
        ('tls="implicit"', "implicit", 465),
        ('tls="none"', "none", 25),
        ("port=2525", "starttls", 2525),
    ],
)
def test_the_port_follows_the_tls_mode(more, tls, port):
    receiver = build(TABLE + more)
    assert (receiver._server.tls_mode, receiver._server.port) == (tls, port)
    assert receiver.destination() == f"e-mail through mail.example:{port}"


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (TABLE + 'password="x"', "7: receiver.password: give both username and password, or neither"),
        (TABLE + 'username="x"', "7: receiver.username: give both username and password, or neither"),
        (
            TABLE + 'username="x"\npassword="y"\ntls="none"',
            '9: receiver.tls: a password needs TLS: set tls to "starttls" or "implicit"',
        ),
        (
            TABLE + 'username="é"\npassword="y"',
            "7: receiver.username: username and password must be ASCII: SMTP logins allow nothing else",
        ),
        (
            TABLE.replace('"a@example.net"', '"A <a@example.net>"'),
            "5: receiver.from: must be an address such as watchdog@example.net, without a display name",
        ),
        (
            TABLE.replace('["b@example.net"]', '["b@example.net", "c@x\\r\\nRCPT TO:<d@x>"]'),
            "6: receiver.to: must be an address such as oncall@example.net, without a display name",
        ),
        (TABLE.replace('["b@example.net"]', "[]"), "6: receiver.to: must contain at least one address"),
        (
            TABLE.replace("mail.example", "mail.example:587", 1),
            '4: receiver.host: must be a host name or an address, without a port: give "mail.example"; give port = 587',
        ),
    ],
)
def test_bad_settings_are_reported(table, problem):
    with pytest.raises(ConfigError) as caught:
        build(table)
    assert [str(each) for each in caught.value.problems] == [f"watchdog.toml:{problem}"]
