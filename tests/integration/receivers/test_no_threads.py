"""A host without a free thread: an attempt fails for a while, and is no defect of the daemon."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_NOBODY = 65_534
_PROGRAM = f"""
import os, resource, ssl, sys, time
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError
from watchdog.receivers.syslog.wires import wire_from_address
from watchdog.receivers.transport.attempt_guard import AttemptGuard
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.http import Endpoint
from watchdog.receivers.transport.smtp import SmtpServer
from watchdog.receivers.transport.threads import THREADS_PER_ATTEMPT, keep_spare_threads

tls = ssl.create_default_context()
attempts = (
    lambda: Endpoint(Secret("http://localhost:1/")).post(b"", {{}}, 5.0),
    lambda: SmtpServer("localhost", 1, "none", tls).send_message("a", ["b"], b"", Deadline(5)),
    lambda: wire_from_address("tcp://localhost:1").send_records([b"x"], Deadline(5)),
    lambda: AttemptGuard(Deadline(5)).__enter__(),
)
if len(sys.argv) > 1:
    keep_spare_threads(THREADS_PER_ATTEMPT)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
os.setuid({_NOBODY})
for attempt in attempts:
    time.sleep(0.2)  # helpers of the former attempt have ended
    try:
        attempt()
    except DeliveryError as error:
        print(error.reason, error.retryable, error)
"""


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the limit applies to other accounts than root")


def test_an_attempt_without_a_thread_is_tried_again():
    finished = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False)
    assert (finished.stderr, finished.returncode) == ("", 0)
    assert finished.stdout.splitlines() == ["connect True no further thread can be started on this host"] * 4


def test_attempts_go_on_with_the_threads_of_former_ones():
    finished = subprocess.run([sys.executable, "-c", _PROGRAM, "spare"], capture_output=True, text=True, check=False)
    assert (finished.stderr, finished.returncode) == ("", 0)
    lines = finished.stdout.splitlines()
    assert len(lines) == 3
    assert all("Connection refused" in line for line in lines)
