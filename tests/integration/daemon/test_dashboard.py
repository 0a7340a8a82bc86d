"""The dashboard, the alerting rules and the counts, in a real Prometheus that scrapes a real daemon under load."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from counted_load import REQUEST, RESPONSE
from prometheus_server import RULES, PrometheusServer, filled_in, panels, selectors

pytestmark = pytest.mark.timeout(400)  # a loaded machine takes long to load the programs
SCRIPT = Path(__file__).parents[2] / "peers/counted_load.py"
LOADS = ("load-one", "load-two", "load-three")
COUNTS = ("connects", "accepts", "connect_failures", "bytes_sent", "bytes_received", "resets_sent")
SECONDS, RATE = 5, 40
MAX_SERIES, NAMES = 30, 300
OWN_SERIES = 400  # of the daemon itself and of its host
WINDOW = "5m"
CROWD = {"summary": "{value}", "metric": "open", "stat": "last", "window": "10s", "by": ["process"]}
RULES_OF_THE_DAEMON = {
    "fires": CROWD | {"where": {"process": LOADS[0]}, "fire_above": 0.5, "clear_below": 0.5},
    "responses": CROWD | {"metric": "response_latency", "stat": "max", "fire_above": 1000},
    "datagrams": CROWD | {"metric": "udp_bytes_sent", "stat": "sum", "fire_above": 1e12},
}
ON_DEMAND = ("udp_", "response_latency", "bpf_program")  # where the kernel and the account permit them


class Load:
    def __init__(self, name):
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def order(self, text):
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()

    def counts(self):
        return json.loads(self._process.stdout.readline())

    def end(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@pytest.fixture
def loads():
    started = [Load(name) for name in LOADS]
    yield started
    for load in started:
        load.end()


@pytest.fixture
def prometheus(watchdog, tmp_path, unused_port):
    """Start the daemon with a receiver that works and one that does not, and a Prometheus that scrapes it."""
    port = unused_port(socket.SOCK_STREAM)
    broken = {"type": "webhook", "url": f"http://127.0.0.1:{unused_port(socket.SOCK_STREAM)}/"}
    watchdog.configure({"out": {"type": "console"}, "broken": broken}, RULES_OF_THE_DAEMON)
    watchdog.configure_more(f'[web]\nlisten = "127.0.0.1:{port}"\nmax_series = {MAX_SERIES}\nbpf_stats = true\n')
    watchdog.start()
    server = PrometheusServer(tmp_path, port, "2s")
    yield server
    server.stop()


def test_counts_queries_and_alerting_rules(watchdog, prometheus, loads):
    for load in loads:
        load.order("once")
    first = [load.counts() for load in loads]
    connects = 'bpf_watchdog_tcp_connects_total{process=~"load-.*"}'
    watchdog.wait_for(lambda: len(prometheus.query(connects)) == len(LOADS), "the first scrape of each load")
    for load in loads:
        load.order(f"for {SECONDS} {RATE}")
    last = [load.counts() for load in loads]
    for name in COUNTS:
        series = f'bpf_watchdog_tcp_{name}_total{{process=~"load-.*"}}'
        total = f"sum by (process) ({series})"
        growth = f"sum by (process) (max_over_time({series}[{WINDOW}]) - min_over_time({series}[{WINDOW}]))"
        wait_for_equality(watchdog, prometheus, total, [count.get(name, 0) for count in last])
        grown = [after.get(name, 0) - before.get(name, 0) for before, after in zip(first, last, strict=True)]
        wait_for_equality(watchdog, prometheus, growth, grown)
    check_panels(prometheus, watchdog)
    check_alerting_rules(prometheus, watchdog)
    check_names(prometheus, watchdog, loads[-1])
    check_acknowledgement(prometheus, watchdog)


def wait_for_equality(watchdog, prometheus, query, counts):
    """Wait until the values of a query by process are the counts of the loads."""
    expected = dict(zip(LOADS, counts, strict=True))
    watchdog.wait_for(lambda: prometheus.values_by("process", query) == expected, f"{query}: {expected}")


def check_panels(prometheus, watchdog):
    """Each query of the dashboard returns a number."""
    unmeasured = [name for name in ON_DEMAND if not prometheus.query(f'count({{__name__=~"bpf_watchdog_.*{name}.*"}})')]
    assert not unmeasured or re.search("message probes unavailable|run time of the BPF programs", watchdog.log()), (
        unmeasured
    )
    queries = [filled_in(target["expr"], WINDOW) for panel in panels() for target in panel["targets"]]
    for query in queries:
        if not any(name in query for name in unmeasured):
            watchdog.wait_for(lambda query=query: prometheus.has_numbers(query), query)


def check_alerting_rules(prometheus, watchdog):
    """Prometheus evaluates each alerting rule, and each selector in it has series."""
    assert {rule["name"] for rule in prometheus.rules()} == set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    watchdog.wait_for(lambda: all(rule["health"] != "unknown" for rule in prometheus.rules()), "all rules")
    assert {(rule["health"], rule.get("lastError")) for rule in prometheus.rules()} == {("ok", None)}
    for selector in {found for rule in prometheus.rules() for found in selectors(rule["query"])}:
        watchdog.wait_for(lambda selector=selector: prometheus.query(selector), selector)


def check_names(prometheus, watchdog, load):
    """With more names than places, series stay within the bound, and the totals match."""
    names = f'process=~"{load.name}-.*|[(]other[)]"'
    queries = {
        name: f"sum(max_over_time(bpf_watchdog_tcp_{name}_total{{{names}}}[{WINDOW}]))"
        for name in ("connects", "bytes_sent", "bytes_received")
    }
    before = {name: prometheus.value(query) for name, query in queries.items()}
    load.order(f"names {NAMES}")
    load.counts()
    for name, expected in (("connects", 1), ("bytes_sent", REQUEST + RESPONSE), ("bytes_received", REQUEST + RESPONSE)):
        watchdog.wait_for(
            lambda name=name, expected=expected: (
                (prometheus.value(queries[name]) or 0) - before[name] >= NAMES * expected
            ),
            f"{name} of {NAMES} names",
        )
    assert prometheus.value(f"max_over_time(bpf_watchdog_process_series[{WINDOW}])") <= MAX_SERIES
    assert prometheus.value(f"max_over_time(scrape_samples_scraped[{WINDOW}])") <= MAX_SERIES * 120 + OWN_SERIES
    series = f"count(count by (process, unit) (last_over_time(bpf_watchdog_tcp_connects_total[{WINDOW}])))"
    assert prometheus.value(series) <= MAX_SERIES
    assert prometheus.value(f"max_over_time(bpf_watchdog_process_series_refused_total[{WINDOW}])") > 0


def check_acknowledgement(prometheus, watchdog):
    """The age of the oldest alert is that of those that nobody has acknowledged."""
    ages = "bpf_watchdog_alerts_oldest_firing_seconds"
    watchdog.wait_for(
        lambda: max(prometheus.values_by("severity", ages).values(), default=0) > 1, "the age of the alert"
    )
    _, listed, _ = watchdog.ask("alerts", "--json")
    for alert in json.loads(listed):
        assert watchdog.ask("ack", alert["fingerprint"])[0] == 0
    watchdog.wait_for(lambda: set(prometheus.values_by("severity", ages).values()) == {0}, "no age")
