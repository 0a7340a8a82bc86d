"""Native histograms in a real Prometheus: they have the counts and sums of the classic ones."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families

from factories import make_own_health
from watchdog.config.web_settings import WebSettings
from watchdog.web.exposition import Exposition
from watchdog.web.own_health import TickDurations
from watchdog.web.traffic_totals import BOUNDS, TrafficTotals
from watchdog.web.web_server import WebServer

PATIENCE = 120.0
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
HOSTILE = 'hostile"\\\n\x1b{}='
CONFIG = """
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: bpf-watchdog
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""
VALUES = np.geomspace(0.000_2, 30, 1_001)


def wait_for(condition, name):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {name}"
        time.sleep(0.1)
    return found


class Prometheus:
    """A Prometheus that stores native histograms and scrapes one port each second."""

    def __init__(self, folder, port):
        (folder / "prometheus.yml").write_text(CONFIG.format(port=port))
        own_port = free_port()
        self._url = f"http://127.0.0.1:{own_port}/api/v1"
        options = [
            "--enable-feature=native-histograms",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}",
            f"--web.listen-address=127.0.0.1:{own_port}",
        ]
        self._process = subprocess.Popen(["prometheus", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(self, path):
        try:
            with urllib.request.urlopen(f"{self._url}/{path}", timeout=60) as response:
                return json.load(response)["data"]
        except urllib.error.URLError:
            return None

    def values(self, query):
        """Return the values of a query by process."""
        found = self.ask(f"query?{urllib.parse.urlencode({'query': query})}")
        return {one["metric"].get("process"): float(one["value"][1]) for one in found["result"]} if found else {}

    def end(self):
        self._process.terminate()
        self._process.wait(60)


@pytest.fixture(scope="module")
def served():
    """Return totals with values of two pairs, and the port of a server that serves them."""
    totals = TrafficTotals(10)
    for name in ("nginx", HOSTILE):
        totals._places.find(name, "web.service")
    for name in BOUNDS:
        totals._add_values(name, VALUES, np.ones(len(VALUES), np.intp))
        totals._add_values(name, np.array([0.0, 0.25, 1e6]), np.array([1, 2, 2]))
    exposition = Exposition(totals, TickDurations(), make_own_health)
    port = free_port()
    pages = {"/metrics": lambda request: exposition.page(request.accept)}
    server = WebServer(WebSettings("127.0.0.1", port), tuple, pages)
    server.start()
    yield totals, port
    server.stop()


@pytest.fixture(scope="module")
def prometheus(served, tmp_path_factory):
    started = Prometheus(tmp_path_factory.mktemp("prometheus"), served[1])
    try:
        wait_for(lambda: started.values("bpf_watchdog_ticks_total"), "scrape")
        yield started
    finally:
        started.end()


def page(port, accept):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.headers["Content-Type"], response.read()


def test_prometheus_asks_for_protobuf_and_the_scrape_has_no_error(prometheus):
    [target] = prometheus.ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


@pytest.mark.parametrize("name", ["connect_latency_seconds", "rtt_seconds", "lifetime_seconds", "accept_queue_ratio"])
def test_counts_and_sums_are_those_of_the_classic_ones(served, prometheus, name):
    _, text = page(served[1], "text/plain")
    classic = {
        (sample.name, sample.labels["process"]): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name.startswith(f"bpf_watchdog_tcp_{name}_") and not sample.name.endswith("_bucket")
    }
    assert len(classic) == 4
    for kind in ("count", "sum"):
        found = prometheus.values(f"histogram_{kind}(bpf_watchdog_tcp_{name})")
        wanted = {process: value for (series, process), value in classic.items() if series.endswith(f"_{kind}")}
        assert found == pytest.approx(wanted)


def test_counters_gauges_labels_and_values_are_those_of_the_text_format(served, prometheus):
    _, text = page(served[1], "text/plain")
    families = {one.name: one for one in text_string_to_metric_families(text.decode())}
    for name, series in (
        ("bpf_watchdog_tcp_listeners", "bpf_watchdog_tcp_listeners"),
        ("bpf_watchdog_tcp_connects", "bpf_watchdog_tcp_connects_total"),
    ):
        wanted = {one.labels["process"]: one.value for one in families[name].samples}
        assert prometheus.values(series) == wanted
        assert len(wanted) == 3
    assert prometheus.values('bpf_watchdog_notifications_failed_total{receiver="oncall", cause="expired"}') == {None: 1}


def test_percentiles_of_new_values_are_right_within_a_bucket(served, prometheus):
    totals, _ = served
    wait_for(lambda: prometheus.values("histogram_count(bpf_watchdog_tcp_response_latency_seconds)"), "histogram")
    before = prometheus.values("histogram_count(bpf_watchdog_tcp_response_latency_seconds)")["nginx"]
    new = np.geomspace(0.003, 0.09, 2_001)
    totals._add_values("response_latency", new, np.ones(len(new), np.intp))
    totals._ticks += 1  # a new page

    def count():
        return prometheus.values("histogram_count(bpf_watchdog_tcp_response_latency_seconds)")["nginx"]

    wait_for(lambda: count() == before + len(new), "scrape of the new values")
    for quantile in (0.1, 0.5, 0.9, 0.99):
        query = f"histogram_quantile({quantile}, increase(bpf_watchdog_tcp_response_latency_seconds[5m]))"
        wanted = float(np.quantile(new, quantile))
        assert prometheus.values(query)["nginx"] == pytest.approx(wanted, rel=2 ** (1 / 8) - 1)


def test_all_formats_come_from_one_server(served):
    kinds = {accept: page(served[1], accept)[0] for accept in (PROTOBUF, "application/openmetrics-text", "*/*")}
    assert kinds[PROTOBUF] == PROTOBUF.replace(";", "; ")
    assert kinds["application/openmetrics-text"].startswith("application/openmetrics-text")
    assert kinds["*/*"].startswith("text/plain")
