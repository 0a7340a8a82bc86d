"""A host without a free thread: an attempt fails for a while, and is no defect of the daemon."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_NOBODY = 65_534
_PROGRAM = f"""
import os, resource, ssl
from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError
from watchdog.receivers.syslog.wires import wire_from_address
from watchdog.receivers.transport.attempt_guard import AttemptGuard
from watchdog.receivers.transport.deadline import Deadline
from watchdog.receivers.transport.http import Endpoint
from watchdog.receivers.transport.smtp import SmtpServer

tls = ssl.create_default_context()
attempts = (
    lambda: Endpoint(Secret("http://localhost/")).post(b"", {{}}, 5.0),
    lambda: SmtpServer("localhost", 25, "none", tls).send_message("a", ["b"], b"", Deadline(5)),
    lambda: wire_from_address("tcp://localhost:514").send_records([b"x"], Deadline(5)),
    lambda: AttemptGuard(Deadline(5)).__enter__(),
)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
os.setuid({_NOBODY})
for attempt in attempts:
    try:
        attempt()
    except DeliveryError as error:
        print(error.reason, error.retryable, error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the limit applies to other accounts than root")
def test_an_attempt_without_a_thread_is_tried_again():
    finished = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False)
    assert (finished.stderr, finished.returncode) == ("", 0)
    assert finished.stdout.splitlines() == ["connect True no further thread can be started on this host"] * 4
