"""The metrics of a real daemon against the counts of a real load."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.timeout(300)  # a loaded machine takes long to load the programs
PREFIX = "bpf_watchdog_"
QUIET = {
    "summary": "{value}",
    "metric": "connects",
    "stat": "sum",
    "window": "10s",
    "by": ["process"],
    "fire_above": 1e9,
}
# Exact counts of its own: connects, refused connects, bytes each way, and connections that stay open.
LOAD = """
import ctypes, socket, sys, threading
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
listener = socket.create_server(("127.0.0.1", 0), backlog=512)
with socket.create_server(("127.0.0.1", 0)) as closed:
    refused = closed.getsockname()
print("ready", flush=True)
held = []
for line in sys.stdin:
    transfers, payload, failures, kept = map(int, line.split())
    for _ in range(transfers):
        client = socket.create_connection(listener.getsockname())
        server = listener.accept()[0]
        client.sendall(b"x" * payload)
        client.shutdown(socket.SHUT_WR)
        while server.recv(65536):
            pass
        server.close()
        client.close()
    for _ in range(failures):
        try:
            socket.create_connection(refused)
        except ConnectionRefusedError:
            pass
    for _ in range(kept):
        held += [socket.create_connection(listener.getsockname()), listener.accept()[0]]
    print("done", flush=True)
"""


class Load:
    def __init__(self, name):
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-c", LOAD, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout.readline() == "ready\n"

    def run(self, transfers=0, payload=0, failures=0, kept=0):
        self._process.stdin.write(f"{transfers} {payload} {failures} {kept}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def end(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@pytest.fixture
def loads():
    started = []

    def start(name):
        started.append(Load(name))
        return started[-1]

    yield start
    for load in started:
        load.end()


class Metrics:
    """The metrics of a daemon at a port of the loopback."""

    def __init__(self, port):
        self.port = port
        self._url = f"http://127.0.0.1:{port}/metrics"

    def text(self):
        with urllib.request.urlopen(self._url, timeout=60) as response:
            return response.read().decode()

    def samples(self):
        return [sample for family in text_string_to_metric_families(self.text()) for sample in family.samples]

    def sum(self, name, **labels):
        """Return the sum of the series of a metric with these labels."""
        return sum(
            sample.value
            for sample in self.samples()
            if sample.name == PREFIX + name and labels.items() <= sample.labels.items()
        )


@pytest.fixture
def start(watchdog):
    """Return a function that starts the daemon with `max_series` and returns its metrics."""

    def start(max_series=200):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        watchdog.configure({"out": {"type": "console"}}, {"quiet": QUIET})
        watchdog.configure_more(f'[web]\nlisten = "127.0.0.1:{port}"\nmax_series = {max_series}\n')
        watchdog.start()
        return Metrics(port)

    return start


def test_counts_of_a_process_are_those_of_its_load_over_a_reload(watchdog, start, loads):
    load = loads("metrics-load")
    metrics = start()
    load.run(transfers=100, payload=12_345, failures=30, kept=5)
    watchdog.reload()
    load.run(transfers=50, payload=100_000, failures=3, kept=2)

    def counts():
        names = ("connects", "accepts", "bytes_sent", "bytes_received", "connect_failures")
        return [metrics.sum(f"tcp_{name}_total", process=load.name) for name in names]

    payload = 100 * 12_345 + 50 * 100_000
    expected = [190, 157, payload, payload, 33]
    watchdog.wait_for(lambda: counts() == expected, f"{expected}, not {counts()}")
    assert metrics.sum("tcp_connect_failures_total", process=load.name, failure="refused") == 33
    assert metrics.sum("tcp_open_connections", process=load.name, state="ESTABLISHED") == 14
    assert metrics.sum("tcp_listeners", process=load.name) == 1
    assert metrics.sum("tcp_connect_latency_seconds_count", process=load.name) == 157
    assert metrics.sum("tcp_lifetime_seconds_count", process=load.name) >= 300
    assert metrics.sum("last_reload_successful") == 1
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics.text(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    code, _ = watchdog.terminate()
    assert code == 0


def test_processes_beyond_the_bound_are_counted_as_other(watchdog, start, loads):
    names = [f"worker-{number}" for number in range(8)]
    metrics = start(max_series=5)
    for name in names:
        loads(name).run(transfers=10, payload=1_000)

    def sent():
        samples = [one for one in metrics.samples() if one.name == f"{PREFIX}tcp_bytes_sent_total"]
        mine = [one for one in samples if one.labels["process"] in {*names, "(other)"}]
        assert len(samples) <= 5
        return sum(one.value for one in mine)

    watchdog.wait_for(lambda: sent() >= 80_000, "the bytes of all workers")
    assert metrics.sum("process_series_refused_total") >= 3
    assert metrics.sum("process_series_limit") == 5


def test_without_the_table_nothing_listens_and_nothing_is_loaded(watchdog):
    watchdog.configure({"out": {"type": "console"}}, {"quiet": QUIET})
    watchdog.start()
    maps = Path(f"/proc/{watchdog.process.pid}/task").iterdir()
    assert "web" not in {(task / "comm").read_text().strip() for task in maps}
    assert not re.search("metrics for Prometheus", watchdog.log())
    names = "[name for name in sys.modules if 'prometheus' in name or '.web' in name or 'status_source' in name]"
    probe = f"import sys, watchdog.daemon.daemon; print({names})"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "['watchdog.config.web_settings']\n"
