"""Messages to systemd, read from a real datagram socket."""

from __future__ import annotations

import contextlib
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
        ({"WATCHDOG_USEC": "-30000000"}, None),
        ({"WATCHDOG_USEC": "\N{ARABIC-INDIC DIGIT THREE}0000000"}, None),
        ({"WATCHDOG_USEC": str(2**64 - 1)}, None),  # stands for infinity
        ({"WATCHDOG_USEC": "9" * 400}, None),
        ({"WATCHDOG_USEC": "9" * 5000}, None),
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


def fill(address):
    """Send to `address` until its queue is full; return the number of messages."""
    count = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.sendto(b"FILL", address.replace("@", "\0"))
                count += 1
    return count


def test_a_tick_waits_for_no_socket_that_is_full_and_the_timeout_is_sent_later(received):
    address, receiver = received
    systemd = Systemd({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
    count = fill(address)
    assert systemd.set_watchdog_timeout(60.0) is False
    began = time.monotonic()
    assert [systemd.notify_watchdog() for _ in range(100)] == [False] * 100
    assert time.monotonic() - began < 50.0  # each one would wait a second
    assert [receiver.recv(4096) for _ in range(count)] == [b"FILL"] * count

    assert [systemd.notify_watchdog(), systemd.notify_watchdog()] == [True, True]
    assert receiver.recv(4096) == b"WATCHDOG=1\nWATCHDOG_USEC=180000000"
    assert receiver.recv(4096) == b"WATCHDOG=1"


def test_a_newer_timeout_takes_the_place_of_one_that_was_not_sent(received):
    address, receiver = received
    systemd = Systemd({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
    count = fill(address)
    systemd.set_watchdog_timeout(60.0)
    for _ in range(count):
        receiver.recv(4096)

    assert [systemd.set_watchdog_timeout(10.0), systemd.notify_watchdog()] == [True, True]
    assert [receiver.recv(4096), receiver.recv(4096)] == [b"WATCHDOG_USEC=30000000", b"WATCHDOG=1"]
