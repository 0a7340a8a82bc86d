"""The metrics in the formats of Prometheus: the text format 0.0.4, OpenMetrics 1.0, and protobuf."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from watchdog.measure.catalogue import HOST_METRICS
from watchdog.web import metric_names, protobuf
from watchdog.web.metric_names import PREFIX, help_text
from watchdog.web.native_histograms import NativeHistogram, native_histogram
from watchdog.web.own_health import TICK_BOUNDS, OwnHealth, TickDurations
from watchdog.web.traffic_totals import (
    BOUNDS,
    COUNTERS,
    FAILURE_NAMES,
    GAUGES,
    OWN_COUNTERS,
    STATE_NAMES,
    TrafficTotals,
    TrafficView,
)
from watchdog.web.web_page import WebPage

_PAIR = ("process", "unit")
_PROTOBUF_PARAMETERS = {"proto=io.prometheus.client.metricfamily", "encoding=delimited"}
_PAUSE_SECONDS = 0.000_2  # between two families, in which a tick gets the interpreter
_RULE_STATES: Final = ("firing", "pending", "unknown", "ok")
_RECEIVER_STATES: Final = ("ok", "failing", "down")


class PageFormat(enum.Enum):
    """Format of a page, and its media type."""

    TEXT = "text/plain"
    OPEN_METRICS = "application/openmetrics-text"
    PROTOBUF = "application/vnd.google.protobuf"


class Exposition:
    """Makes the pages. Use it from one thread."""

    def __init__(self, traffic: TrafficTotals, durations: TickDurations, read_health: Callable[[], OwnHealth]) -> None:
        """Read all of these for each page; a page is made once per tick, second and format."""
        self._traffic = traffic
        self._durations = durations
        self._read_health = read_health
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._max_places = traffic.max_places
        self._made_at = (-1, -1)
        self._pages: dict[PageFormat, WebPage] = {}
        self._view = traffic.view()

    def page(self, accept: str) -> WebPage:
        """Return the metrics in the format that the header `accept` prefers, text by default."""
        now = (self._traffic.ticks, int(time.monotonic()))
        if now != self._made_at:
            self._made_at, self._pages = now, {}
        form = preferred_format(accept)
        if form not in self._pages:
            self._pages[form] = self._make_page(form)
        return self._pages[form]

    def collect(self) -> Iterator[Metric]:
        """Yield the families, called by the registry."""
        view = self._view
        for family in (
            *_own_families(self._read_health(), view, self._max_places),
            _tick_durations(*self._durations.view()),
        ):
            yield family
        for family in _traffic_families(view):
            yield family
            time.sleep(_PAUSE_SECONDS)

    def _make_page(self, form: PageFormat) -> WebPage:
        if form is PageFormat.PROTOBUF:
            self._traffic.count_native()
        self._view = self._traffic.view()
        if form is PageFormat.PROTOBUF:
            native = _native_families(self._view)
            families = (
                protobuf.encode_family(family, native.get(family.name, {})) for family in self._registry.collect()
            )
            return WebPage(protobuf.CONTENT_TYPE, b"".join(families))
        encode, content_type = choose_encoder(f"{form.value}; version=1.0.0" if form is PageFormat.OPEN_METRICS else "")
        return WebPage(content_type, encode(self._registry))


def preferred_format(accept: str) -> PageFormat:
    """Return the format that a header `Accept` ranks highest, text by default (RFC 9110, section 12.5.1)."""
    weights = dict.fromkeys(PageFormat, 0.0)
    by_type = {form.value: form for form in PageFormat}
    for entry in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        form = by_type.get(kind)
        if form is None or (form is PageFormat.PROTOBUF and not set(parameters) >= _PROTOBUF_PARAMETERS):
            continue
        weights[form] = max(weights[form], _weight(parameters))
    return max(weights, key=weights.__getitem__)  # the first of equal ones


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return min(1.0, max(0.0, float(parameter[2:])))
            except ValueError:
                return 0.0
    return 1.0


def _traffic_families(view: TrafficView) -> Iterator[Metric]:
    for number, name in enumerate(COUNTERS):
        values = view.counters[number]
        if name.startswith("udp_") and not values.any():
            continue  # counted only while a rule reads them
        yield _counter(
            metric_names.counter_name(name), help_text(name), _PAIR, zip(view.pairs, values.tolist(), strict=True)
        )
    yield _counter(
        metric_names.counter_name("connect_failures"),
        help_text("connect_failures"),
        (*_PAIR, "failure"),
        _labelled(view.pairs, FAILURE_NAMES, view.failures, _with_failures(view)),
    )
    yield _gauge(
        metric_names.OPEN_NAME,
        help_text("open"),
        (*_PAIR, "state"),
        _labelled(view.pairs, STATE_NAMES, view.open_by_state, view.seen_states),
    )
    for number, name in enumerate(GAUGES):
        values = view.gauges[number].tolist()
        yield _gauge(metric_names.gauge_name(name), help_text(name), _PAIR, zip(view.pairs, values, strict=True))
    for name in BOUNDS:
        yield _histogram(name, view)
    for name in HOST_METRICS:
        yield _gauge(metric_names.host_name(name), help_text(name), (), [((), view.host[name])])


def _native_families(view: TrafficView) -> Mapping[str, Mapping[protobuf.Labels, NativeHistogram]]:
    """Return the native histograms by name of the family and by labels."""
    return {
        metric_names.histogram_name(name): {
            tuple(zip(_PAIR, view.pairs[place], strict=True)): native_histogram(name, counts[place])
            for place in np.flatnonzero(counts.any(axis=1)).tolist()
        }
        for name, counts in view.native.items()
    }


def _with_failures(view: TrafficView) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return, (p, failures), the series to show: all named failures of a place that has tried to connect."""
    tried = (view.counters[COUNTERS.index("connects")] > 0) | view.failures.any(axis=1)
    shown = np.repeat(tried[:, np.newaxis], len(FAILURE_NAMES), axis=1)
    shown[:, 0] = view.failures[:, 0] > 0
    return shown


def _labelled(
    pairs: Sequence[tuple[str, ...]],
    names: Sequence[str],
    values: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    shown: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
) -> Iterator[tuple[tuple[str, ...], float]]:
    for place, choice in np.argwhere(shown).tolist():
        yield (*pairs[place], names[choice]), int(values[place, choice])


def _histogram(name: str, view: TrafficView) -> HistogramMetricFamily:
    meaning = "one value per listener and tick" if name == "accept_queue" else "one value per connection and tick"
    text = help_text(name)
    family = HistogramMetricFamily(
        metric_names.histogram_name(name), text if meaning in text else f"{text[:-1]}; {meaning}.", labels=_PAIR
    )
    cumulative = view.buckets[name].cumsum(axis=1)
    edges = [*(str(float(edge)) for edge in BOUNDS[name]), "+Inf"]
    for place in np.flatnonzero(cumulative[:, -1]).tolist():
        buckets = list(zip(edges, cumulative[place].tolist(), strict=True))
        family.add_metric(view.pairs[place], buckets, float(view.sums[name][place]))
    return family


def _tick_durations(counts: Sequence[int], sum_seconds: float) -> HistogramMetricFamily:
    edges = [*(str(float(edge)) for edge in TICK_BOUNDS), "+Inf"]
    cumulative = np.cumsum(counts).tolist()
    return HistogramMetricFamily(
        f"{PREFIX}tick_duration_seconds",
        "Duration of the ticks, from the read of the kernel to the commit of the state.",
        buckets=list(zip(edges, cumulative, strict=True)),
        sum_value=sum_seconds,
    )


def _own_families(health: OwnHealth, view: TrafficView, max_places: int) -> Iterator[Metric]:
    yield _gauge(
        f"{PREFIX}build_info",
        "Version of the watchdog and of the kernel, always 1.",
        ("version", "kernel"),
        [((health.version, health.kernel), 1)],
    )
    yield _counter(f"{PREFIX}ticks", "Ticks since the start that measured the host.", (), [((), view.ticks)])
    for name in OWN_COUNTERS:
        yield _counter(metric_names.own_name(name), help_text(name), (), [((), view.own[name])])
    yield from _interval_families(health)
    yield _counter(
        f"{PREFIX}losses",
        "Data lost since the start, by cause: connections, events, ticks, as docs/accuracy.md describes.",
        ("cause",),
        (((cause,), count) for cause, count in health.losses.items()),
    )
    yield _gauge(
        f"{PREFIX}sockmap_connections",
        "Connections in a sockmap in the newest tick: their bytes are not known.",
        (),
        [((), health.sockmap_connections)],
    )
    yield _gauge(
        f"{PREFIX}rules",
        "Rules in force by state: firing, pending, unknown (input incomplete), ok.",
        ("state",),
        (((state,), health.rules.get(state, 0)) for state in _RULE_STATES),
    )
    yield from _alert_families(health)
    yield from _receiver_families(health)
    if health.program_runs:
        yield from _program_families(health.program_runs)
    yield _gauge(
        f"{PREFIX}process_series",
        "Pairs of process and unit with series of their own, (other) included.",
        (),
        [((), len(view.pairs))],
    )
    yield _gauge(f"{PREFIX}process_series_limit", "Limit of these pairs: max_series.", (), [((), max_places)])
    yield _counter(
        f"{PREFIX}process_series_refused",
        "Times that a pair of process and unit was counted in (other), being new or unseen for 30 s.",
        (),
        [((), view.refused)],
    )


def _program_families(runs: Mapping[str, tuple[int, float]]) -> Iterator[Metric]:
    yield _counter(
        f"{PREFIX}bpf_program_runs",
        "Runs of the watchdog's own BPF programs since they were loaded.",
        ("program",),
        (((program,), count) for program, (count, _) in runs.items()),
    )
    yield _counter(
        f"{PREFIX}bpf_program_run_seconds",
        "CPU time of these runs.",
        ("program",),
        (((program,), seconds) for program, (_, seconds) in runs.items()),
    )


def _interval_families(health: OwnHealth) -> Iterator[Metric]:
    yield _gauge(
        metric_names.CONFIGURED_INTERVAL_NAME,
        "Interval between two ticks by the settings.",
        (),
        [((), health.configured_seconds)],
    )
    yield _gauge(metric_names.INTERVAL_NAME, "Present interval between two ticks.", (), [((), health.interval_seconds)])
    age = [] if health.age_seconds is None else [((), health.age_seconds)]
    yield _gauge(f"{PREFIX}tick_age_seconds", "Time since the newest tick that succeeded.", (), age)
    yield _gauge(
        f"{PREFIX}last_reload_successful",
        "Whether the files were accepted at the newest reload or start: 1, or 0.",
        (),
        [((), int(health.reload_succeeded))],
    )
    at = [] if health.reload_at is None else [((), health.reload_at)]
    yield _gauge(f"{PREFIX}last_reload_timestamp_seconds", "Unix time of the newest reload.", (), at)


def _alert_families(health: OwnHealth) -> Iterator[Metric]:
    yield _gauge(
        f"{PREFIX}alerts", "Alerts by state and severity.", ("state", "severity"), sorted(health.alerts.items())
    )
    yield _gauge(
        f"{PREFIX}alerts_oldest_firing_seconds",
        "Age of the oldest firing alert that is neither silenced nor acknowledged, 0 without one.",
        ("severity",),
        (((severity,), age) for severity, age in health.oldest_firing_seconds.items()),
    )
    yield _gauge(
        f"{PREFIX}alerts_suppressed",
        "Firing alerts whose notifications a silence, mute time or inhibition withholds.",
        (),
        [((), health.suppressed_alerts)],
    )
    yield _counter(
        f"{PREFIX}notifications_withheld",
        "Notifications withheld since the start, by cause.",
        ("cause",),
        (((cause,), count) for cause, count in health.withheld.items()),
    )


def _receiver_families(health: OwnHealth) -> Iterator[Metric]:
    receivers = health.receivers
    yield _gauge(
        f"{PREFIX}receiver_state",
        "State of each receiver: 1 for the present one of ok, failing, down.",
        ("receiver", "state"),
        (((one.name, state), int(one.state == state)) for one in receivers for state in _RECEIVER_STATES),
    )
    yield _gauge(
        f"{PREFIX}notifications_pending",
        "Notifications that wait for their receiver.",
        ("receiver",),
        (((one.name,), one.pending) for one in receivers),
    )
    yield _gauge(
        f"{PREFIX}notifications_oldest_pending_seconds",
        "Age of the oldest notification that waits.",
        ("receiver",),
        (((one.name,), one.oldest_seconds) for one in receivers),
    )
    yield _counter(
        f"{PREFIX}notifications_delivered",
        "Notifications delivered since the start.",
        ("receiver",),
        (((one.name,), one.delivered) for one in receivers),
    )
    yield _counter(
        f"{PREFIX}notifications_failed",
        "Notifications given up for good since the state file was created, by cause.",
        ("receiver", "cause"),
        (((one.name, cause), count) for one in receivers for cause, count in one.failed.items()),
    )
    yield _counter(
        f"{PREFIX}delivery_attempts_failed",
        "Attempts to deliver that failed since the start, by reason; most are repeated.",
        ("receiver", "reason"),
        (((one.name, reason), count) for one in receivers for reason, count in one.failed_attempts.items()),
    )


def _counter(name: str, text: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _gauge(name: str, text: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family
