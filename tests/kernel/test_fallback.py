"""The fallback program alone handles every event as the first program does, and beside that one handles none again."""

import json
import subprocess
import sys

import pytest

# The loader in this process. Prints the final records of one connection, and the events of the fallback program: with
# both programs, then without the first, as if the kernel skipped it at each event.
ONE_CONNECTION = """
import json, os, socket, tempfile
from pathlib import Path
from watchdog.clock import SystemClock
from watchdog.config.map_sizes import DEFAULT_MAP_SIZES
from watchdog.kernel import collector as module, handover, loader
from watchdog.kernel.programs import CONNECTION_PROBES, STATE_PROBE
here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
with tempfile.TemporaryDirectory() as folder:
    loader.write_sources(Path(folder))
    loaded = loader.compile_and_load(Path(folder), DEFAULT_MAP_SIZES)
    handover.send(there, loaded.fds, loaded.optional)
received = handover.receive(here)
collector = module.Collector(received, SystemClock())
def report():
    collector.read()
    before = module._read_counter(received.maps["fallback_events"], 0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            with server.accept()[0] as accepted:
                client.sendall(b"f" * 1009)
                accepted.recv(1009, socket.MSG_WAITALL)
    closed = collector.read().closed
    rows = closed[((closed["local_port"] == port) | (closed["remote_port"] == port)) & (closed["state"] != 10)]
    names = ("direction", "flags", "bytes_sent", "bytes_received")
    times = bool((rows["established_ns"] >= rows["born_ns"]).all() and (rows["born_ns"] > 0).all())
    owners = rows["owner"]["tgid"][rows["direction"] == 1].tolist()  # the reader is the owner of its connects alone
    events = module._read_counter(received.maps["fallback_events"], 0) - before
    ends = sorted([int(row[name]) for name in names] for row in rows)
    print(json.dumps([ends, times, owners == [os.getpid()], events]))
report()
os.close(collector._attached.pop(CONNECTION_PROBES.index(STATE_PROBE)))
report()
collector.close()
there.close()
here.close()
"""
OUT, IN = 1, 2
CONNECT, ACCEPTED = 1, 2
EVENTS_OF_A_CONNECTION = 10  # of both ends; the listener has two more


@pytest.mark.everywhere
def test_the_fallback_program_handles_each_event_that_the_first_did_not_and_no_other():
    done = subprocess.run([sys.executable, "-c", ONE_CONNECTION], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with_both, with_fallback = map(json.loads, done.stdout.splitlines())

    ends = [[OUT, CONNECT, 1009, 0], [IN, ACCEPTED, 0, 1009]]
    assert with_both[:3] == [ends, True, True]
    assert with_fallback[:3] == [ends, True, True]
    assert with_both[3] < EVENTS_OF_A_CONNECTION  # an interrupt of the host can come in the middle of the first program
    assert with_fallback[3] >= EVENTS_OF_A_CONNECTION + 2
