"""Syslog over TLS and over every transport of syslog-ng: the records are read back as the servers parsed them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
import ssl
import subprocess
import sys
import time

import pytest

from certificates import make_certificates
from syslog_servers import RsyslogTls, SyslogNg
from watchdog import sanitize
from watchdog.config.document import Document
from watchdog.errors import DeliveryError
from watchdog.receivers.syslog.syslog_receiver import Syslog

DEADLINE = 5.0
FIRING_TEXT = "[FIRING] critical: crawler opens 612/s connections (limit 500/s); value 612/s, "
RESOLVED_TEXT = (
    "[RESOLVED] critical: crawler opens 612/s connections (limit 500/s); lasted 1 min 40 s, peak 640/s, last value 3/s "
)

HOSTILE_NAMES = (
    "\x1b[2J\x1b]0;owned\x07",
    "line\r\nfeed: <26>1 - - - - - forged",
    "nul\x00nul",
    "\u202egnp.exe \u2028",
    b"bytes \xff\xfe\x1b".decode("utf-8", "surrogateescape"),
    "lone \ud800 surrogate",
    '"] [forged@32473 rule="x"] \\',
    "\\",
    "]",
    '\\"',
    "%s %n ${x} $(id) $!all %msg%",
    "12 <26>1 - - - - - - octets",
    "é" * 5_000,
    "\x1b" * 5_000,
    "日本 🔥",
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Make an authority, and certificates for a server, a client and a stranger."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def rsyslog_tls(open_folder, certificates):
    """Run an rsyslogd that receives records over TLS, with GnuTLS and with OpenSSL."""
    running = RsyslogTls(open_folder, certificates)
    yield running
    running.stop()


@pytest.fixture
def syslog_ng(open_folder, certificates):
    """Run a syslog-ng that receives records over each of its transports."""
    running = SyslogNg(open_folder, certificates)
    yield running
    running.stop()


@pytest.fixture
def receiver(certificates):
    """Return a function that makes a receiver for a server on localhost from its table."""

    def read(scheme, port, *, client=None, ca="ca.pem", **more):
        keys = {"address": f"{scheme}://{'localhost' if scheme == 'tls' else '127.0.0.1'}:{port}", **more}
        if ca is not None and scheme == "tls":
            keys["ca_file"] = f"{certificates}/{ca}"
        if client is not None:
            keys |= {"cert_file": f"{certificates}/{client}.pem", "key_file": f"{certificates}/{client}.key"}
        document = Document("", keys, "watchdog.toml")
        log = Syslog.from_table("log", document.root)
        document.root.reject_unknown_keys()
        document.raise_problems()
        return log

    return read


def failure_of(receiver, notification):
    began = time.monotonic()
    with pytest.raises(DeliveryError) as caught:
        receiver.send(notification, DEADLINE)
    assert time.monotonic() - began < DEADLINE + 0.5
    assert caught.value.retryable
    return caught.value.reason, str(caught.value).partition(": ")[2]


def send_with_retries(receiver, notification):
    """Send as delivery does: a busy rsyslogd with OpenSSL may close a good client's connection after refused ones."""
    for left in range(4, -1, -1):
        try:
            receiver.send(notification, DEADLINE)
        except DeliveryError as error:
            if not (left and error.retryable and error.reason == "tls"):
                raise
        else:
            return


def hostile(notification):
    """Return the notification with one alert per hostile name, in each field that can contain a name."""
    return dataclasses.replace(
        notification,
        alerts=tuple(
            dataclasses.replace(alert, labels=(("process", name),), summary=name, reason=name)
            for alert in notification.alerts
            for name in HOSTILE_NAMES
        ),
    )


# ------------------------------------------------------------------------------------------------------- parsed records


@pytest.mark.parametrize("library", ["gtls", "ossl"])
def test_rsyslog_receives_records_over_tls_unchanged(rsyslog_tls, receiver, library, firing, resolved):
    log = receiver("tls", rsyslog_tls.ports[library])
    notifications = [firing, resolved, hostile(firing)]
    for notification in notifications:
        log.send(notification, DEADLINE)
    arrived = rsyslog_tls.arrived(2 + len(HOSTILE_NAMES))
    assert [(record["pri"], record["msgid"]) for record in arrived[:3]] == [
        ("26", "FIRING"),
        ("29", "RESOLVED"),
        ("26", "FIRING"),
    ]
    assert [record["raw"] for record in arrived] == [
        record for notification in notifications for record in log.render(notification).decode().split("\n")
    ]
    assert all(record["data"] in record["raw"] for record in arrived)


def test_the_final_dot_of_a_name_is_not_part_of_the_certificate(rsyslog_tls, receiver, firing, monkeypatch):
    look_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **options: look_up("127.0.0.1", *more, **options))
    log = receiver("tls", rsyslog_tls.ports["ossl"])
    log._wire = dataclasses.replace(log._wire, host="localhost.")
    log.send(firing, DEADLINE)
    assert len(rsyslog_tls.arrived(1)) == 1


@pytest.mark.parametrize("wire", ["unix", "udp", "lf", "tcp", "tls"])
def test_syslog_ng_parses_every_record_as_rfc_5424_with_its_facts(syslog_ng, receiver, wire, firing, resolved):
    if wire == "unix":
        log = Syslog.from_table("log", Document("", {"address": f"unix://{syslog_ng.folder}/socket"}, "").root)
    else:
        more = {"framing": "lf"} if wire == "lf" else {}
        log = receiver({"lf": "tcp"}.get(wire, wire), syslog_ng.ports[wire], **more)
    for notification in (firing, resolved, hostile(firing)):
        log.send(notification, DEADLINE)
    firing_record, resolved_record, *others = syslog_ng.arrived(2 + len(HOSTILE_NAMES))
    facts = {
        "rule": "outbound-connection-storm",
        "state": "firing",
        "severity": "critical",
        "fingerprint": "0123456789abcdef",
        "notification_id": "a" * 32,
        "value": "612.0",
        "threshold": "500.0",
        "peak": "640.5",
        "started": "2025-06-15T15:06:40.000Z",
        "process": "crawler",
        "unit": "crawler.service",
    }
    resolved_facts = {**facts, "state": "resolved", "value": "3.0", "notification_id": "b" * 32}
    header = {
        "time": "2025-06-15T15:10:00.000+00:00",
        "host": "web-1",
        "app": "bpf-watchdog",
        "procid": str(os.getpid()),
    }
    assert firing_record.pop("msg").startswith(FIRING_TEXT)
    assert resolved_record.pop("msg").startswith(RESOLVED_TEXT)
    assert [firing_record, resolved_record] == [
        {
            **header,
            "pri": "26",
            "msgid": "FIRING",
            "data": {"bpf-watchdog@32473": facts},
            "raw": log.render(firing).decode(),
        },
        {
            **header,
            "pri": "29",
            "msgid": "RESOLVED",
            "data": {"bpf-watchdog@32473": {**resolved_facts, "resolved": "2025-06-15T15:08:20.000Z"}},
            "raw": log.render(resolved).decode(),
        },
    ]
    # The parser of syslog-ng returns each name as the receiver shows it, without quoting that is missing or left over.
    assert [record["data"]["bpf-watchdog@32473"]["process"] for record in others[:11]] == [
        sanitize.escape_unprintable(name) for name in HOSTILE_NAMES[:11]
    ]
    assert {tuple(record["data"]) for record in others} == {("bpf-watchdog@32473",)}
    assert [record["raw"] for record in others] == log.render(hostile(firing)).decode().split("\n")


# ---------------------------------------------------------------------------------------------------------------- trust


@pytest.mark.parametrize(("kind", "wire"), [("rsyslog", "gtls"), ("rsyslog", "ossl"), ("syslog-ng", "tls")])
def test_a_server_that_requires_a_client_certificate_gets_it(request, receiver, kind, wire, firing):
    server = request.getfixturevalue("rsyslog_tls" if kind == "rsyslog" else "syslog_ng")
    receiver("tls", server.ports[f"{wire}_client"], client="client").send(firing, DEADLINE)
    assert server.arrived(1)[0]["msgid"] == "FIRING"


@pytest.mark.parametrize("client", [None, "stranger"])
@pytest.mark.parametrize(("kind", "wire"), [("rsyslog", "gtls"), ("rsyslog", "ossl"), ("syslog-ng", "tls")])
def test_a_server_that_refuses_the_client_certificate_is_a_failure(request, receiver, kind, wire, client, firing):
    server = request.getfixturevalue("rsyslog_tls" if kind == "rsyslog" else "syslog_ng")
    for _ in range(5):  # a TLS 1.3 server refuses after all records are sent; the form of the error is a race
        reason, text = failure_of(receiver("tls", server.ports[f"{wire}_client"], client=client), firing)
        assert reason in {"tls", "connect"}
        assert "certificate" in text or "unknown ca" in text
    send_with_retries(receiver("tls", server.ports[f"{wire}_client"], client="client"), firing)
    assert len(server.arrived(1)) == 1


def test_a_certificate_of_an_unknown_authority_or_another_name_is_refused(syslog_ng, receiver, firing):
    port = syslog_ng.ports["tls"]
    reason, text = failure_of(receiver("tls", port, ca="stranger.pem"), firing)
    assert (reason, "certificate refused: self-signed certificate in certificate chain" in text) == ("tls", True)
    reason, text = failure_of(receiver("tls", port, address=f"tls://127.0.0.1:{port}"), firing)
    assert (reason, "certificate refused: IP address mismatch" in text) == ("tls", True)
    assert not (syslog_ng.folder / "arrived").exists()


def test_a_fingerprint_is_enough_and_is_checked_in_addition_to_a_ca_file(syslog_ng, receiver, certificates, firing):
    port = syslog_ng.ports["tls"]
    der = ssl.PEM_cert_to_DER_cert((certificates / "server.pem").read_text())
    right = fingerprint_of(der)
    wrong = fingerprint_of(der + b"x")
    receiver("tls", port, ca=None, fingerprints=[wrong, right], address=f"tls://127.0.0.1:{port}").send(
        firing, DEADLINE
    )
    receiver("tls", port, fingerprints=[right]).send(firing, DEADLINE)
    for more in ({"ca": None}, {}):
        reason, text = failure_of(receiver("tls", port, fingerprints=[wrong], **more), firing)
        assert (reason, text.endswith("TLS failed: the fingerprint of the certificate is not configured")) == (
            "tls",
            True,
        )
    reason, _ = failure_of(receiver("tls", port, fingerprints=[right], address=f"tls://127.0.0.1:{port}"), firing)
    assert reason == "tls"  # with a ca_file the name is checked too
    assert len(syslog_ng.arrived(2)) == 2


def fingerprint_of(certificate):
    digest = hashlib.sha256(certificate).hexdigest().upper()
    return "sha-256:" + ":".join(digest[index : index + 2] for index in range(0, 64, 2))


# ------------------------------------------------------------------------------------------------- misbehaving readers


def hang(connection, stopped):
    stopped.wait()


def drip(connection, stopped):
    connection.sendall(b"\x16\x03\x03\x40\x00")  # the head of a record of 16 KiB
    while not stopped.wait(0.05):
        connection.sendall(b"\x02")


def talk_nonsense(connection, stopped):
    connection.sendall(b"220 mail.example ESMTP\r\n" * 10)
    stopped.wait()


def close_at_once(connection, stopped):
    connection.recv(10)


@pytest.mark.parametrize(
    ("behave", "reason"), [(hang, "timeout"), (drip, "timeout"), (talk_nonsense, "tls"), (close_at_once, "connect")]
)
def test_a_failed_handshake_ends_at_the_deadline(raw_server, receiver, firing, behave, reason):
    log = receiver("tls", 6_514, address=f"tls://127.0.0.1:{raw_server(behave).port}")
    began = time.monotonic()
    with pytest.raises(DeliveryError) as caught:
        log.send(firing, 1.0)
    assert (caught.value.reason, caught.value.retryable) == (reason, True)
    assert time.monotonic() - began < 2.5


def tls_reader(certificates, behave):
    """Return a server function that does the handshake and then calls `behave`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")

    def serve(connection, stopped):
        with context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as session:
            behave(session, stopped)

    return serve


def test_a_server_that_reads_nothing_after_the_handshake_ends_at_the_deadline(
    raw_server, receiver, certificates, firing
):
    server = raw_server(tls_reader(certificates, hang))
    many_alerts = dataclasses.replace(firing, alerts=firing.alerts * 500)
    began = time.monotonic()
    with pytest.raises(DeliveryError) as caught:
        receiver("tls", server.port).send(many_alerts, 1.5)
    assert (caught.value.reason, caught.value.retryable) == ("timeout", True)
    assert 1.4 <= time.monotonic() - began < 5.0  # rendering the records takes time too


def test_octets_are_counted_and_close_notify_is_sent_before_the_close(raw_server, receiver, certificates, firing):
    received = []

    def read_all(session, stopped):
        while chunk := session.recv(65_536):
            received.append(chunk)
        received.append("end")  # close_notify: without it, recv raises

    log = receiver("tls", raw_server(tls_reader(certificates, read_all)).port)
    log.send(firing, DEADLINE)
    record = log.render(firing)
    assert received[-1] == "end"
    assert b"".join(received[:-1]) == b"%d %b" % (len(record), record)


def test_for_a_server_that_never_closes_its_kernel_acknowledges(raw_server, receiver, certificates, firing):
    def keep_open(session, stopped):
        session.recv(65_536)
        stopped.wait()

    began = time.monotonic()
    receiver("tls", raw_server(tls_reader(certificates, keep_open)).port).send(firing, 10.0)
    assert time.monotonic() - began < 5.0


def test_with_framing_lf_a_line_feed_ends_each_record(raw_server, receiver, firing):
    received = []

    def read_all(connection, stopped):
        while chunk := connection.recv(65_536):
            received.append(chunk)

    log = receiver("tcp", raw_server(read_all).port, framing="lf")
    log.send(hostile(firing), DEADLINE)
    assert b"".join(received) == log.render(hostile(firing)) + b"\n"
    assert b"".join(received).count(b"\n") == len(HOSTILE_NAMES)


def test_a_server_that_closes_before_the_first_record_is_a_failure():
    """Over a real network the reset comes after the close; here a firewall rule drops it."""
    script = """if True:
        import socket
        from watchdog.errors import DeliveryError
        from watchdog.receivers.transport.deadline import Deadline
        from watchdog.receivers.syslog.wires import wire_from_address

        listener = socket.create_server(("127.0.0.1", 0))
        accept = socket.socket.accept
        connect = socket.socket.connect

        def connect_and_close(self, address):
            connect(self, address)
            accept(listener)[0].close()

        socket.socket.connect = connect_and_close
        try:
            wire_from_address(f"tcp://127.0.0.1:{listener.getsockname()[1]}").send_records([b"record"], Deadline(1.0))
        except DeliveryError as error:
            print(error.reason)
        else:
            print("delivered")
    """
    rules = (
        "add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c tcp flags rst drop"
    )
    shell = f"ip link set lo up && nft '{rules}' && exec {sys.executable} -c \"$1\""
    command = ["unshare", "--net", "sh", "-c", shell, "sh", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=True)
    assert done.stdout == "timeout\n"
