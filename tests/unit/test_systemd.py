"""Messages to systemd, read from a real datagram socket."""

from __future__ import annotations

import os
import re
import socket
import time

import pytest

from watchdog.systemd import Systemd


@pytest.fixture(params=["path", "abstract"])
def received(request, tmp_path):
    """Return (address, socket) as systemd would offer them, by path and in the abstract namespace."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@bpf-watchdog-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0"))
        receiver.setblocking(False)
        yield name, receiver


@pytest.mark.parametrize("message", ["ready", "stopping", "watchdog"])
def test_each_message_arrives_as_the_protocol_writes_it(received, message):
    address, receiver = received
    systemd = Systemd({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})

    assert getattr(systemd, f"notify_{message}")() is True
    assert receiver.recv(4096) == message.upper().encode() + b"=1"


def test_a_step_of_the_start_is_the_status_and_extends_the_timeout(received):
    address, receiver = received

    assert Systemd({"NOTIFY_SOCKET": address}).notify_start_step("compiling\nREADY=1", 1.5) is True
    assert receiver.recv(4096) == b"STATUS=starting: compiling READY=1\nEXTEND_TIMEOUT_USEC=1500000"


def test_a_reload_is_reported_with_the_monotonic_time(received):
    address, receiver = received
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Systemd({"NOTIFY_SOCKET": address}).notify_reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    match = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", receiver.recv(4096))

    assert before <= int(match[1]) <= after


def test_a_status_cannot_smuggle_in_another_message(received):
    address, receiver = received
    Systemd({"NOTIFY_SOCKET": address}).notify_status("42 rules\nSTOPPING=1\r\n  \ud800 é")

    assert receiver.recv(4096) == "STATUS=42 rules STOPPING=1 ? é".encode()


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative/path"])
def test_without_the_address_of_a_unix_socket_nothing_is_sent(address):
    assert Systemd({"NOTIFY_SOCKET": address}).notify_ready() is False


def test_outside_systemd_nothing_is_sent():
    assert Systemd({}).notify_ready() is False


def test_a_systemd_that_has_gone_away_is_no_reason_to_fail(tmp_path):
    assert Systemd({"NOTIFY_SOCKET": str(tmp_path / "gone")}).notify_ready() is False


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_interval_is_the_one_meant_for_this_process(environment, seconds):
    assert Systemd(environment).watchdog_interval_seconds == seconds


def test_the_watchdog_message_is_sent_only_if_systemd_expects_it(received):
    address, receiver = received

    assert Systemd({"NOTIFY_SOCKET": address}).notify_watchdog() is False
    with pytest.raises(BlockingIOError):
        receiver.recv(4096)
