"""A process without a free descriptor: an attempt fails for a while, and is no defect of the daemon."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import ssl

import pytest
from leftovers import child_processes, descriptors_left, open_descriptors

from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, DeliveryErrorReason, UncertainDeliveryError
from watchdog.receivers.command import Command
from watchdog.receivers.journald import Journald
from watchdog.receivers.syslog.stream import StreamWire, TlsSettings
from watchdog.receivers.syslog.syslog_receiver import Syslog
from watchdog.receivers.syslog.wires import UdpWire, UnixWire
from watchdog.receivers.transport.connect import connect_tcp
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.http import Endpoint
from watchdog.receivers.transport.smtp import SmtpServer

SECONDS = 0.2  # of an attempt: no server answers


@pytest.fixture
def port():
    """Return a port on which connections are taken and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def attempts(port, tmp_path, firing):
    """Return attempts of all kinds; each ends by itself."""
    path = str(tmp_path / "socket")
    tls = ssl.create_default_context()
    endpoint = Endpoint(Secret(f"http://127.0.0.1:{port}/"))
    server = SmtpServer("127.0.0.1", port, "none", tls)
    wires = (
        UnixWire(path),
        UdpWire("127.0.0.1", port),
        StreamWire("127.0.0.1", port),
        StreamWire("127.0.0.1", port, tls_settings=TlsSettings(tls)),
    )
    receivers = (
        *(Syslog("log", wire, 3, use_local_format=False) for wire in wires),
        Journald("journal", path),
        Command("script", ("/bin/true",)),
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(path)
        yield (
            lambda: connect_tcp("127.0.0.1", port, Deadline(SECONDS)).close(),
            lambda: endpoint.post(b"", {}, SECONDS),
            lambda: server.send_message("a", ["b"], b"", Deadline(SECONDS)),
            *(lambda receiver=receiver: receiver.send(firing, SECONDS) for receiver in receivers),
        )


@pytest.mark.parametrize("left", [0, 1, 4])
def test_an_attempt_without_a_descriptor_is_tried_again_and_leaves_nothing_behind(attempts, left):
    before = open_descriptors()
    for attempt in attempts:
        with contextlib.suppress(DeliveryError), descriptors_left(left):
            attempt()
            assert left
    assert open_descriptors() == before


def test_a_failure_for_want_of_a_descriptor_has_its_cause(port):
    with pytest.raises(DeliveryError, match="Too many open files") as caught, descriptors_left(0):
        connect_tcp("127.0.0.1", port, Deadline(60))
    assert (caught.value.reason, caught.value.retryable) == (DeliveryErrorReason.CONNECT, True)


def test_a_program_that_cannot_be_watched_is_killed_and_reaped(tmp_path, firing, monkeypatch):
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\nexec sleep 60 >{tmp_path}/never 2>&1\n")
    script.chmod(0o755)

    def refuse(pid):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    before = child_processes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", refuse)
        with pytest.raises(UncertainDeliveryError, match="was killed: Too many open files"):
            Command("script", (str(script),)).send(firing, 60.0)
    [left] = child_processes() - before
    # It has ended, and keeps its entry until the next run.
    assert os.waitid(os.P_PID, left, os.WEXITED | os.WNOWAIT).si_status == signal.SIGKILL
    Command("true", ("/bin/true",)).send(firing, 60.0)
    assert child_processes() <= before
