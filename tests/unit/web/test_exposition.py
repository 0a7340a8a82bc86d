"""The metrics in both formats: read again by Prometheus' own tools, and against the totals."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from factories import make_own_health
from watchdog.measure.catalogue import HOST_METRICS, METRICS, OWN_METRICS, MetricKind
from watchdog.web import metric_names
from watchdog.web.exposition import Exposition, PageFormat, preferred_format
from watchdog.web.own_health import TickDurations
from watchdog.web.traffic_totals import COUNTERS, FAILURE_NAMES, STATE_NAMES, TrafficTotals

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
# As Prometheus 2.42 sends it.
PROMETHEUS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"  # fmt: skip  # noqa: E501
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
HEALTH = make_own_health()


@pytest.fixture
def totals():
    """Return totals in which every series of two pairs has a value."""
    totals = TrafficTotals(10)
    for name in ("nginx", 'hostile"\\\n\x1b{}='):
        totals._places.find(name, "web.service")
    totals._counters[:, :3] = np.arange(3 * len(COUNTERS)).reshape(-1, 3)
    totals._failures[1] = np.arange(len(FAILURE_NAMES))
    totals._open[:3, 1] = 5
    totals._seen_states[:3, 1] = True
    for name in totals._buckets:
        totals._add_values(name, np.array([0.0001, 0.3, 2e6]), np.array([1, 1, 2]))
    return totals


def page(totals, accept="", health=HEALTH):
    durations = TickDurations()
    durations.add(0.01)
    durations.add(99)
    return Exposition(totals, durations, lambda: health).page(accept)


def name_of(metric):
    """Return the name of the family that has a metric of the catalogue."""
    if metric.name in OWN_METRICS:
        of_tick_loop = {"tick_interval": "interval_seconds", "configured_interval": "configured_interval_seconds"}
        return metric_names.PREFIX + of_tick_loop.get(metric.name, metric.name)
    if metric.name in HOST_METRICS:
        return metric_names.host_name(metric.name)
    if metric.name == "open":
        return "bpf_watchdog_tcp_open_connections"
    by_kind = {
        MetricKind.COUNTER: metric_names.counter_name,
        MetricKind.GAUGE: metric_names.gauge_name,
        MetricKind.DISTRIBUTION: metric_names.histogram_name,
    }
    return by_kind[metric.kind](metric.name)


def samples(families):
    return {(one.name, *sorted(one.labels.items())): one.value for family in families for one in family.samples}


def test_both_formats_have_the_same_values(totals):
    text, open_metrics = page(totals), page(totals, OPEN_METRICS)
    assert text.content_type.startswith("text/plain; version=0.0.4")
    assert open_metrics.content_type.startswith("application/openmetrics-text; version=")  # Debian 12: 0.0.1
    found = samples(parse_text(text.body.decode()))
    other = samples(parse_open_metrics(open_metrics.body.decode()))
    of_process = {key for key in found if key[0].startswith("process_")}
    assert {key: found[key] for key in found.keys() - of_process} == {
        key: other[key] for key in other.keys() - of_process
    }
    assert ("process_resident_memory_bytes",) in of_process


def test_promtool_finds_nothing(totals):
    done = subprocess.run(["promtool", "check", "metrics"], input=page(totals).body, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_values_labels_and_help_of_the_traffic(totals):
    families = {family.name: family for family in parse_text(page(totals).body.decode())}
    sent = families["bpf_watchdog_tcp_bytes_sent"]
    assert sent.documentation == "Payload sent, retransmissions not counted again."
    of_nginx = {"process": "nginx", "unit": "web.service"}
    assert [one.value for one in sent.samples if one.labels == of_nginx] == [3 * COUNTERS.index("bytes_sent") + 1]
    assert [one.labels["process"] for one in sent.samples] == ["(other)", "nginx", totals._places.pairs[2][0]]
    failures = {one.labels["failure"]: one.value for one in families["bpf_watchdog_tcp_connect_failures"].samples if one.labels["process"] == "nginx"}  # fmt: skip  # noqa: E501
    assert failures == dict(zip(FAILURE_NAMES[1:], range(1, len(FAILURE_NAMES)), strict=True))
    rtt = families["bpf_watchdog_tcp_rtt_seconds"]
    buckets = {one.labels["le"]: one.value for one in rtt.samples if one.name.endswith("_bucket") and one.labels["process"] == "nginx"}  # fmt: skip  # noqa: E501
    assert (buckets["0.0001"], buckets["0.25"], buckets["0.5"], buckets["+Inf"]) == (1, 1, 2, 2)


def test_every_metric_of_the_catalogue_is_there(totals):
    names = {family.name for family in parse_text(page(totals).body.decode())}
    for metric in METRICS.values():
        assert name_of(metric) in names


def names_on_the_page(text, known):
    """Return the names on a page: a name after `…_` has the begin of the full one before it that makes a known name."""
    found, full = set(), ""
    for name in re.findall(r"(?:bpf_watchdog|…)_\w+", text):
        if not name.startswith("…"):
            full = name
        parts = full.split("_")
        begins = ["_".join(parts[:count]) for count in range(2, len(parts))] if name.startswith("…") else [""]
        found.add(next((one for begin in begins if (one := begin + name.removeprefix("…")) in known), name))
    return found


def test_the_page_on_prometheus_has_each_metric_and_no_other(totals):
    text = (Path(__file__).parents[3] / "docs" / "prometheus.md").read_text()
    health = replace(HEALTH, program_runs={"on_state": (1, 0.1)})
    families = parse_text(page(totals, health=health).body.decode())
    names = {family.name + "_total" * (family.type == "counter") for family in families}
    names = {name for name in names if name.startswith("bpf_watchdog_")}
    of_queries = {f"{name}_bucket" for name in names}
    assert names_on_the_page(text, names) - of_queries == names


def test_a_pair_has_at_most_120_series(totals):
    totals._failures[1] = totals._open[1] = 1
    totals._seen_states[1] = [name in METRICS["open"].states or name == "unknown" for name in STATE_NAMES]
    found = samples(parse_text(page(totals).body.decode()))
    assert sum(("process", "nginx") in key for key in found) == 120


def test_own_health():
    found = samples(parse_text(page(TrafficTotals(10)).body.decode()))
    assert found["bpf_watchdog_losses_total", ("cause", "ledger_full")] == 3
    assert found[("bpf_watchdog_sockmap_connections",)] == 2
    assert found["bpf_watchdog_rules", ("state", "firing")] == 1
    assert found["bpf_watchdog_rules", ("state", "unknown")] == 0
    assert found["bpf_watchdog_alerts", ("severity", "critical"), ("state", "firing")] == 1
    assert found["bpf_watchdog_alerts_oldest_firing_seconds", ("severity", "critical")] == 90.5
    assert found["bpf_watchdog_receiver_state", ("receiver", "oncall"), ("state", "down")] == 1
    assert found["bpf_watchdog_receiver_state", ("receiver", "oncall"), ("state", "ok")] == 0
    assert found["bpf_watchdog_notifications_failed_total", ("cause", "expired"), ("receiver", "oncall")] == 1
    assert found["bpf_watchdog_delivery_attempts_failed_total", ("reason", "timeout"), ("receiver", "oncall")] == 9
    assert found["bpf_watchdog_last_reload_successful",] == 0
    assert found["bpf_watchdog_tick_duration_seconds_bucket", ("le", "0.01")] == 1
    assert found["bpf_watchdog_tick_duration_seconds_count",] == 2


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", PageFormat.TEXT),
        ("*/*", PageFormat.TEXT),
        ("text/plain", PageFormat.TEXT),
        (PROMETHEUS, PageFormat.OPEN_METRICS),
        ("text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5", PageFormat.TEXT),
        ("application/openmetrics-text;q=0", PageFormat.TEXT),
        ("application/openmetrics-text;q=x", PageFormat.TEXT),
        ("application/openmetrics-text;version=;q=nan, ;;,", PageFormat.TEXT),
        ("application/openmetrics-textual", PageFormat.TEXT),
        (f"{PROTOBUF},{PROMETHEUS.replace('version=1.0.0', 'version=1.0.0;q=0.8')}", PageFormat.PROTOBUF),
        (f"{PROTOBUF};escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.5", PageFormat.PROTOBUF),
        (f"{PROTOBUF};q=0.3,text/plain;q=0.5", PageFormat.TEXT),
        (PROTOBUF.replace("delimited", "text"), PageFormat.TEXT),
        ("application/vnd.google.protobuf", PageFormat.TEXT),
    ],
)
def test_the_format_is_the_one_that_the_client_prefers(accept, wanted):
    assert preferred_format(accept) is wanted


def test_pages_of_one_tick_are_made_once_and_those_of_the_next_anew(totals, monkeypatch):
    asked = []

    def read_health():
        asked.append(1)
        return HEALTH

    now = 100.0
    monkeypatch.setattr("watchdog.web.exposition.time.monotonic", lambda: now)
    exposition = Exposition(totals, TickDurations(), read_health)
    pages = [exposition.page("") for _ in range(50)]
    assert (len(asked), len(set(map(id, pages)))) == (1, 1)
    totals._ticks += 1
    exposition.page("")
    now = 101.5  # a daemon shows the age of its newest tick, also when ticks hang
    exposition.page("")
    assert len(asked) == 3
