"""Syslog against the real rsyslog over each wire, and against servers that misbehave."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import time

import pytest

from watchdog.errors import DeliveryError
from watchdog.receivers.syslog.syslog_receiver import Syslog
from watchdog.receivers.syslog.wires import wire_from_address
from watchdog.receivers.transport.deadline import Deadline

DEADLINE = 1.0
LONG_DEADLINE = 15.0

WIRES = ("log", "log5424", "udp", "tcp", "ptcp")

HOSTILE_NAMES = (
    "\x1b[2J\x1b]0;owned\x07",
    "line\r\nfeed: <26>1 - - - - - forged",
    "nul\x00nul",
    "\u202egnp.exe \u2028",
    b"bytes \xff\xfe\x1b".decode("utf-8", "surrogateescape"),
    "lone \ud800 surrogate",
    '"] [forged@32473 rule="x"] \\',
    "%s %n ${x} $(id) $!all %msg%",
    "12 <26>1 - - - - - - octets",
    "é" * 5_000,
    "\x1b" * 5_000,
    "日本 🔥",
)


def syslog_to(address, *, use_local_format=False):
    return Syslog("log", wire_from_address(address), 3, use_local_format=use_local_format)


def failure_of(receiver, notification):
    began = time.monotonic()
    with pytest.raises(DeliveryError) as caught:
        receiver.send(notification, DEADLINE)
    return caught.value, time.monotonic() - began


@pytest.mark.parametrize("wire", ["log5424", "udp", "tcp", "ptcp"])
def test_rsyslog_reads_firing_and_resolved_as_rfc_5424(rsyslog, wire, firing, resolved):
    receiver = syslog_to(rsyslog.address(wire))
    for notification in (firing, resolved):
        receiver.send(notification, DEADLINE)
    common = {
        "time": "2025-06-15T15:10:00.000Z",
        "host": "web-1",
        "app": "bpf-watchdog",
        "procid": str(os.getpid()),
    }
    facts = (
        'severity="critical" fingerprint="0123456789abcdef" notification_id="{identity}" value="{value}" '
        'threshold="500.0" peak="640.5" started="2025-06-15T15:06:40.000Z" {more}'
        'process="crawler" unit="crawler.service"]'
    )
    rule = '[bpf-watchdog@32473 rule="outbound-connection-storm"'
    assert rsyslog.arrived(2) == [
        {
            **common,
            "pri": "26",
            "msgid": "FIRING",
            "data": f'{rule} state="firing" ' + facts.format(identity="a" * 32, value="612.0", more=""),
            "msg": "\ufeff[FIRING] critical: crawler opens 612/s connections (limit 500/s); "
            "value 612/s, limit 500/s, peak 640/s; process=crawler, unit=crawler.service; "
            "since 2025-06-15 15:06:40 UTC, for 3 min 20 s; why: value above 500/s for 10 s; "
            "host web-1, rule outbound-connection-storm",
            "raw": receiver.render(firing).decode(),
        },
        {
            **common,
            "pri": "29",
            "msgid": "RESOLVED",
            "data": f'{rule} state="resolved" '
            + facts.format(identity="b" * 32, value="3.0", more='resolved="2025-06-15T15:08:20.000Z" '),
            "msg": "\ufeff[RESOLVED] critical: crawler opens 612/s connections (limit 500/s); "
            "lasted 1 min 40 s, peak 640/s, last value 3/s (limit 500/s); process=crawler, unit=crawler.service; "
            "from 2025-06-15 15:06:40 UTC to 2025-06-15 15:08:20 UTC; why: value above 500/s for 10 s; "
            "host web-1, rule outbound-connection-storm",
            "raw": receiver.render(resolved).decode(),
        },
    ]


def test_rsyslog_parses_the_local_format(rsyslog, firing):
    receiver = syslog_to(rsyslog.address("log"), use_local_format=True)
    receiver.send(firing, DEADLINE)
    [record] = rsyslog.arrived(1)
    assert (record["pri"], record["app"], record["procid"]) == ("26", "bpf-watchdog", str(os.getpid()))
    assert record["msg"].startswith(" [FIRING] critical: crawler opens 612/s connections (limit 500/s); ")
    assert record["msg"].endswith(' process="crawler" unit="crawler.service"]')
    assert record["raw"] == receiver.render(firing).decode()


@pytest.mark.parametrize("wire", WIRES)
def test_hostile_names_arrive_unchanged_in_one_record_each(rsyslog, wire, firing):
    receiver = syslog_to(rsyslog.address(wire), use_local_format=wire == "log")
    alerts = tuple(
        dataclasses.replace(alert, labels=(("process", name),), summary=name, reason=name)
        for alert in firing.alerts
        for name in HOSTILE_NAMES
    )
    notification = dataclasses.replace(firing, alerts=alerts)
    receiver.send(notification, DEADLINE)
    arrived = rsyslog.arrived(len(HOSTILE_NAMES))
    assert [record["raw"] for record in arrived] == receiver.render(notification).decode().split("\n")
    assert {record["app"] for record in arrived} == {"bpf-watchdog"}


@pytest.mark.parametrize("wire", WIRES)
def test_a_restarted_server_is_reached_again(rsyslog, wire, firing, resolved):
    receiver = syslog_to(rsyslog.address(wire), use_local_format=wire == "log")
    receiver.send(firing, DEADLINE)
    rsyslog.arrived(1)
    rsyslog.stop()
    error, took = failure_of(receiver, resolved)
    rsyslog.start()
    assert (error.reason, error.retryable) == ("socket" if wire in {"log", "log5424"} else "connect", True)
    assert took < DEADLINE / 2
    receiver.send(resolved, DEADLINE)
    assert [record["raw"] for record in rsyslog.arrived(2)] == [
        receiver.render(notification).decode() for notification in (firing, resolved)
    ]


def test_the_close_by_rsyslog_is_the_acknowledgement(rsyslog, firing):
    began = time.monotonic()
    syslog_to(rsyslog.address("tcp")).send(firing, 10.0)
    assert time.monotonic() - began < 0.9  # less than the wait for a peer that does not close


# -------------------------------------------------------------------------------------------------- misbehaving readers


def failure_of_wire(address, records):
    began = time.monotonic()
    with pytest.raises(DeliveryError) as caught:
        wire_from_address(address).send_records(records, Deadline(DEADLINE))
    return caught.value, time.monotonic() - began


def test_a_unix_socket_with_a_stuck_reader_ends_at_the_deadline(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stuck:
        stuck.bind(str(tmp_path / "log"))
        error, took = failure_of_wire(f"unix://{tmp_path}/log", [b"x" * 1_000] * 2_000)
    assert (error.reason, error.retryable) == ("timeout", True)
    assert DEADLINE - 0.05 <= took <= DEADLINE + 0.5


def test_waits_for_a_slow_reader_of_a_unix_socket(tmp_path, firing):
    many_alerts = dataclasses.replace(firing, alerts=firing.alerts * 100)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as slow:
        slow.bind(str(tmp_path / "log"))
        script = f"""if True:
            import socket, time
            reader = socket.socket(fileno={slow.fileno()})
            time.sleep(0.3)
            for _ in range(100):
                assert reader.recv(65536).startswith(b"<26>1 ")
        """
        reader = subprocess.Popen(["/usr/bin/python3", "-c", script], pass_fds=[slow.fileno()])
        syslog_to(f"unix://{tmp_path}/log").send(many_alerts, LONG_DEADLINE)
        assert reader.wait(LONG_DEADLINE) == 0


def test_a_unix_socket_of_another_type_is_named_in_the_error(tmp_path, firing):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(str(tmp_path / "log"))
        stream.listen()
        error, _ = failure_of(syslog_to(f"unix://{tmp_path}/log"), firing)
    assert str(error) == f"unix://{tmp_path}/log: Protocol wrong type for socket"


@pytest.mark.parametrize("records", [20, 2_000], ids=["buffered here", "more than buffers hold"])
def test_a_tcp_server_that_does_not_read_ends_at_the_deadline(raw_server, records):
    server = raw_server(lambda connection, stopped: stopped.wait())
    error, took = failure_of_wire(f"tcp://127.0.0.1:{server.port}", [b"x" * 8_000] * records)
    assert (error.reason, error.retryable) == ("timeout", True)
    assert DEADLINE - 0.05 <= took <= DEADLINE + 0.5


def test_data_from_a_tcp_server_is_not_taken_for_its_close(raw_server, firing):
    received = []

    def greet(connection, stopped):
        connection.sendall(b"220 ready\r\n")
        while chunk := connection.recv(65_536):
            received.append(chunk)

    receiver = syslog_to(f"tcp://127.0.0.1:{raw_server(greet).port}")
    receiver.send(firing, DEADLINE)
    assert b"".join(received).endswith(receiver.render(firing))


def test_an_icmp_refusal_is_detected_at_the_next_record(unused_port):
    error, _ = failure_of_wire(f"udp://127.0.0.1:{unused_port(socket.SOCK_DGRAM)}", [b"one", b"two"])
    assert (error.reason, error.retryable) == ("connect", True)


def test_a_tcp_server_that_closes_without_reading_is_a_failure(raw_server, firing):
    server = raw_server(lambda connection, stopped: connection.recv(10))
    error, _ = failure_of(syslog_to(f"tcp://127.0.0.1:{server.port}"), firing)
    assert (error.reason, error.retryable) == ("connect", True)


def test_for_a_tcp_server_that_never_closes_its_kernel_acknowledges(raw_server, firing):
    received = []

    def keep_open(connection, stopped):
        while chunk := connection.recv(65_536):
            received.append(chunk)
        stopped.wait()

    server = raw_server(keep_open)
    receiver = syslog_to(f"tcp://127.0.0.1:{server.port}")
    began = time.monotonic()
    receiver.send(firing, 10.0)
    assert time.monotonic() - began < 3.0
    server.stop()  # after this it has read everything
    record = receiver.render(firing)
    assert b"".join(received) == b"%d %b" % (len(record), record)


def test_waits_for_a_tcp_server_that_reads_late(raw_server):
    received = []

    def read_late(connection, stopped):
        stopped.wait(1.2)  # longer than the wait for a peer that does not close
        while chunk := connection.recv(65_536):
            received.append(len(chunk))
        stopped.wait()

    server = raw_server(read_late)
    wire_from_address(f"tcp://127.0.0.1:{server.port}").send_records([b"x" * 8_000] * 20, Deadline(LONG_DEADLINE))
    server.stop()
    assert sum(received) == 20 * len(b"8000 " + b"x" * 8_000)


def test_octets_are_counted_not_characters(raw_server, firing):
    received = []

    def read_all(connection, stopped):
        while chunk := connection.recv(65_536):
            received.append(chunk)

    two = tuple(dataclasses.replace(alert, summary=text) for alert in firing.alerts for text in ("é日本", "ascii"))
    notification = dataclasses.replace(firing, alerts=two)
    receiver = syslog_to(f"tcp://127.0.0.1:{raw_server(read_all).port}")
    receiver.send(notification, DEADLINE)
    first, second = receiver.render(notification).split(b"\n")
    assert b"".join(received) == b"%d %b%d %b" % (len(first), first, len(second), second)


def test_records_over_udp_are_datagrams_over_ipv6_too(firing):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind(("::1", 0))
        server.settimeout(LONG_DEADLINE)
        receiver = syslog_to(f"udp://[::1]:{server.getsockname()[1]}")
        receiver.send(firing, DEADLINE)
        assert server.recv(65_536) == receiver.render(firing)
