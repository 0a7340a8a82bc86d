"""Names and help texts of the metrics of the traffic, made from the catalogue."""

from __future__ import annotations

from typing import Final

from watchdog.measure.catalogue import METRICS, Unit

PREFIX: Final = "bpf_watchdog_"
_HOST_NAMES: Final = {
    "time_wait": "host_time_wait_sockets",
    "orphans": "host_orphaned_sockets",
    "ports_in_use": "host_ports_in_use",
    "ports": "host_ports",
}
OPEN_NAME: Final = f"{PREFIX}tcp_open_connections"
INTERVAL_NAME: Final = f"{PREFIX}interval_seconds"
CONFIGURED_INTERVAL_NAME: Final = f"{PREFIX}configured_interval_seconds"
_OWN_GAUGE_NAMES: Final = {"tick_interval": INTERVAL_NAME, "configured_interval": CONFIGURED_INTERVAL_NAME}
_SUFFIXES: Final = {Unit.SECONDS: "_seconds", Unit.RATIO: "_ratio"}
_GAUGE_NAMES: Final = {
    "send_queue": "tcp_send_queue_bytes",
    "receive_queue": "tcp_receive_queue_bytes",
    "half_open": "tcp_half_open_connections",
    "listeners": "tcp_listeners",
}


def counter_name(metric: str) -> str:
    """Return the name of a counter without `_total`, which the formats add."""
    return PREFIX + (metric if metric.startswith("udp_") else f"tcp_{metric}")


def gauge_name(metric: str) -> str:
    """Return the name of a gauge of processes."""
    return PREFIX + _GAUGE_NAMES[metric]


def host_name(metric: str) -> str:
    """Return the name of a gauge of the host."""
    return PREFIX + _HOST_NAMES[metric]


def histogram_name(metric: str) -> str:
    """Return the name of a distribution, with its unit."""
    return f"{PREFIX}tcp_{metric}{_SUFFIXES[METRICS[metric].unit]}"


def own_name(metric: str) -> str:
    """Return the name of a counter of the watchdog itself, without `_total`."""
    return PREFIX + metric


def own_gauge_name(metric: str) -> str:
    """Return the name of a gauge of the watchdog itself."""
    return _OWN_GAUGE_NAMES[metric]


def help_text(metric: str) -> str:
    """Return the meaning of a metric as one sentence."""
    text = METRICS[metric].meaning
    return text[0].upper() + text[1:] + "."
