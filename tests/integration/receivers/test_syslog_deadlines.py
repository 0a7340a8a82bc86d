"""A syslog receiver returns at most 50 ms after its deadline, unless the machine itself is too slow."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from watchdog.errors import DeliveryError
from watchdog.receivers.syslog.wires import wire_from_address
from watchdog.receivers.transport.deadline import Deadline

DEADLINE = 0.2
LONG_DEADLINE = 15.0
MAX_DELAY = 0.05
MAX_TRIES = 50  # one prompt try is enough: slower ones show the load of the machine
RECORDS = [b"x" * 8_000] * 2_000


@pytest.fixture
def stuck_unix(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stuck:
        stuck.bind(str(tmp_path / "log"))
        yield f"unix://{tmp_path}/log", "timeout"


@pytest.fixture
def missing_unix(tmp_path):
    return f"unix://{tmp_path}/missing", "socket"


@pytest.fixture
def stuck_tcp(raw_server):
    return f"tcp://127.0.0.1:{raw_server(lambda connection, stopped: stopped.wait()).port}", "timeout"


@pytest.fixture
def full_tcp():
    """Listen with a full accept queue: new connections are neither accepted nor refused."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as waiting:
        for _ in range(4):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}", "timeout"


@pytest.fixture
def refusing_tcp(unused_port):
    return f"tcp://127.0.0.1:{unused_port(socket.SOCK_STREAM)}", "connect"


@pytest.mark.parametrize("peer", ["stuck_unix", "missing_unix", "stuck_tcp", "full_tcp", "refusing_tcp"])
def test_no_peer_delays_it_past_the_deadline(request, peer):
    address, reason = request.getfixturevalue(peer)
    wire, is_prompt = wire_from_address(address), False
    deadline, end = (DEADLINE, DEADLINE) if reason == "timeout" else (LONG_DEADLINE, 0.0)
    for _ in range(MAX_TRIES):
        began = time.monotonic()
        with pytest.raises(DeliveryError) as caught:
            wire.send_records(RECORDS, Deadline(deadline))
        took = time.monotonic() - began
        assert (caught.value.reason, caught.value.retryable) == (reason, True)
        assert took >= end
        if is_prompt := took <= end + MAX_DELAY:
            break
    assert is_prompt
