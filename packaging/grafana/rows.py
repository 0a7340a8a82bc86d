"""Rows of the dashboard: the queries and panels of each."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel
from panels import graph, listing, number, spread

BUSIEST = 12
HOST = 'job=~"$job",instance=~"$instance"'
CHOSEN = f'{HOST},unit=~"$unit",process=~"$process"'
PAIR = "process, unit"
QUANTILES = ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))


def total(metric: str, by: str = "instance", labels: str = HOST) -> str:
    """Return the rate of a counter, summed."""
    return f"sum by ({by}) (rate(bpf_watchdog_{metric}{{{labels}}}[$__rate_interval]))"


def gauge(metric: str, by: str = "instance", labels: str = HOST) -> str:
    """Return the values of a gauge, summed."""
    return f"sum by ({by}) (bpf_watchdog_{metric}{{{labels}}})"


def busiest(metric: str) -> tuple[str, str]:
    """Return a query: the rate of a counter for the chosen processes that have most of it in the range shown."""
    return (
        f"{total(metric, PAIR, CHOSEN)} and topk({BUSIEST}, sum by ({PAIR}) "
        f"(rate(bpf_watchdog_{metric}{{{CHOSEN}}}[$__range] @ end())))"
    ), "{{process}} {{unit}}"


def highest(metric: str) -> tuple[str, str]:
    """Return a query: a gauge of the chosen processes that reach the highest values in the range shown."""
    return (
        f"{gauge(metric, PAIR, CHOSEN)} and topk({BUSIEST}, sum by ({PAIR}) "
        f"(max_over_time(bpf_watchdog_{metric}{{{CHOSEN}}}[$__range] @ end())))"
    ), "{{process}} {{unit}}"


def quantiles(metric: str, labels: str = CHOSEN) -> list[tuple[str, str]]:
    """Return queries: median and upper quantiles of a histogram over the chosen processes."""
    buckets = total(f"{metric}_bucket", "le", labels)
    return [(f"histogram_quantile({share}, {buckets})", name) for share, name in QUANTILES]


def slowest(metric: str) -> tuple[str, str]:
    """Return a query: the 99th percentile of a histogram by process, for the slowest of the chosen ones."""
    buckets = total(f"{metric}_bucket", f"le, {PAIR}", CHOSEN)
    return f"topk({BUSIEST}, histogram_quantile(0.99, {buckets}))", "{{process}} {{unit}}"


def share(part: str, whole: str) -> str:
    """Return the share of one counter in another by host, no number where the other does not grow."""
    return f"{total(part)} / {total(whole)}"


def growth(metric: str, by: str, window: str = "$__rate_interval") -> str:
    """Return the increase of a counter within `window` before each time, summed."""
    return f"sum by ({by}) (increase(bpf_watchdog_{metric}{{{HOST}}}[{window}]))"


def greatest(metric: str, by: str) -> str:
    """Return the greatest value of a gauge."""
    return f"max by ({by}) (bpf_watchdog_{metric}{{{HOST}}})"


def host_overview() -> Iterable[Builder[Panel]]:
    """Return the first row: is the host watched, how much traffic does it have."""
    failures = ("tcp_connect_failures_total", "tcp_connects_total")
    return (
        number("Watchdogs that answer", "short", (f"sum(up{{{HOST}}})", ""), red_below=1, about="Hosts with a daemon."),
        number(
            "Critical alerts",
            "short",
            (f'sum(bpf_watchdog_alerts{{{HOST},state="firing",severity="critical"}})', ""),
            red=1,
        ),
        number("Open connections", "short", (f"sum(bpf_watchdog_tcp_open_connections{{{HOST}}})", "")),
        number("Sent", "Bps", (total("tcp_bytes_sent_total", "job"), "")),
        number("Received", "Bps", (total("tcp_bytes_received_total", "job"), "")),
        number("Connects", "cps", (total("tcp_connects_total", "job"), "")),
        number("Failed connects", "cps", (total("tcp_connect_failures_total", "job"), "")),
        number(
            "Lost data",
            "short",
            (growth("losses_total", "job", "$__range"), ""),
            red=1,
            about="Losses in the range shown, all causes: see the row Watchdog health.",
        ),
        graph("Sent by host", "Bps", (total("tcp_bytes_sent_total"), "{{instance}}")),
        graph("Received by host", "Bps", (total("tcp_bytes_received_total"), "{{instance}}")),
        graph(
            "New connections by host",
            "cps",
            (total("tcp_connects_total"), "{{instance}} out"),
            (total("tcp_accepts_total"), "{{instance}} in"),
        ),
        graph("Failed connects", "percentunit", (share(*failures), "{{instance}}"), about="Share of all connects."),
        graph(
            "Retransmitted segments",
            "percentunit",
            (share("tcp_retransmits_total", "tcp_packets_sent_total"), "{{instance}}"),
            about="Share of all segments sent.",
        ),
        graph(
            "Sockets of the host",
            "short",
            (gauge("host_time_wait_sockets"), "{{instance}} TIME_WAIT"),
            (gauge("host_orphaned_sockets"), "{{instance}} orphaned"),
            (gauge("host_ports_in_use"), "{{instance}} local ports in use"),
            (gauge("host_ports"), "{{instance}} local ports"),
        ),
        listing(
            "Busiest processes",
            ("process", "unit"),
            *(
                (heading, unit, f"topk(50, sum by ({PAIR}) (rate(bpf_watchdog_{metric}{{{HOST}}}[$__range])))")
                for heading, unit, metric in (
                    ("sent", "Bps", "tcp_bytes_sent_total"),
                    ("received", "Bps", "tcp_bytes_received_total"),
                    ("connects", "cps", "tcp_connects_total"),
                    ("accepts", "cps", "tcp_accepts_total"),
                    ("failed connects", "cps", "tcp_connect_failures_total"),
                    ("retransmits", "cps", "tcp_retransmits_total"),
                )
            ),
            about="Averages over the range shown, for the 50 largest of each column.",
        ),
    )


def processes() -> Iterable[Builder[Panel]]:
    """Return the row of the processes that the variables choose."""
    return (
        graph("Sent", "Bps", busiest("tcp_bytes_sent_total")),
        graph("Received", "Bps", busiest("tcp_bytes_received_total")),
        graph(
            "Connections by state", "short", (gauge("tcp_open_connections", "state", CHOSEN), "{{state}}"), stacked=True
        ),
        graph("Connects", "cps", busiest("tcp_connects_total")),
        graph("Accepts", "cps", busiest("tcp_accepts_total")),
        graph("Open connections", "short", highest("tcp_open_connections")),
        graph("Handshakes completed", "cps", busiest("tcp_established_total")),
        graph("Connections closed", "cps", busiest("tcp_closes_total")),
        graph("Retransmits", "cps", busiest("tcp_retransmits_total")),
        graph(
            "Segments",
            "cps",
            (total("tcp_packets_sent_total", "job", CHOSEN), "sent"),
            (total("tcp_packets_received_total", "job", CHOSEN), "received"),
        ),
        graph("Send queues", "bytes", highest("tcp_send_queue_bytes"), about="Written, and not acknowledged."),
        graph("Receive queues", "bytes", highest("tcp_receive_queue_bytes"), about="Received, and not read."),
        graph("Listeners", "short", highest("tcp_listeners")),
        graph("Half-open connections", "short", highest("tcp_half_open_connections")),
        graph(
            "Bytes seen late", "Bps", busiest("tcp_late_bytes_total"), about="Of connections unseen for a long time."
        ),
        graph(
            "UDP bytes",
            "Bps",
            (total("udp_bytes_sent_total", "job", CHOSEN), "sent"),
            (total("udp_bytes_received_total", "job", CHOSEN), "received"),
            about="Measured only while a rule reads it.",
            width=12,
        ),
        graph(
            "UDP datagrams",
            "cps",
            (total("udp_datagrams_sent_total", "job", CHOSEN), "sent"),
            (total("udp_datagrams_received_total", "job", CHOSEN), "received"),
            about="Measured only while a rule reads it.",
            width=12,
        ),
    )


def failures() -> Iterable[Builder[Panel]]:
    """Return the row of connections that fail."""
    return (
        graph(
            "Failed connects by reason",
            "cps",
            (total("tcp_connect_failures_total", "failure", CHOSEN), "{{failure}}"),
            stacked=True,
        ),
        graph("Failed connects by process", "cps", busiest("tcp_connect_failures_total")),
        graph(
            "Dropped by listeners", "cps", busiest("tcp_listen_drops_total"), about="Accept queue full, and the like."
        ),
        graph("Resets sent", "cps", busiest("tcp_resets_sent_total"), width=12),
        graph("Resets received", "cps", busiest("tcp_resets_received_total"), width=12),
    )


def latency() -> Iterable[Builder[Panel]]:
    """Return the row of the distributions."""
    return (
        graph("Time to connect", "s", *quantiles("tcp_connect_latency_seconds"), width=8),
        spread(
            "Time to connect, distribution",
            "s",
            total("tcp_connect_latency_seconds_bucket", "le", CHOSEN),
            "Connects per second by duration.",
        ),
        graph("Time to connect, slowest processes (99 %)", "s", slowest("tcp_connect_latency_seconds")),
        graph("Round-trip time", "s", *quantiles("tcp_rtt_seconds")),
        spread(
            "Round-trip time, distribution",
            "s",
            total("tcp_rtt_seconds_bucket", "le", CHOSEN),
            "One value per connection and tick in which it received something.",
        ),
        graph("Round-trip time, slowest processes (99 %)", "s", slowest("tcp_rtt_seconds")),
        graph(
            "Response latency",
            "s",
            *quantiles("tcp_response_latency_seconds"),
            about="Measured only while a rule reads it.",
        ),
        graph("Duration of connections", "s", *quantiles("tcp_lifetime_seconds")),
        graph(
            "Accept queues",
            "percentunit",
            *quantiles("tcp_accept_queue_ratio"),
            about="How full, one value per listener and tick.",
            limit=0.9,
        ),
    )


def alerts() -> Iterable[Builder[Panel]]:
    """Return the row of alerts and notifications."""
    return (
        graph(
            "Firing alerts",
            "short",
            (f'sum by (severity) (bpf_watchdog_alerts{{{HOST},state="firing"}})', "{{severity}}"),
            (f"sum(bpf_watchdog_alerts_suppressed{{{HOST}}})", "suppressed"),
        ),
        graph(
            "Pending alerts",
            "short",
            (f'sum by (severity) (bpf_watchdog_alerts{{{HOST},state="pending"}})', "{{severity}}"),
        ),
        graph("Rules by state", "short", (gauge("rules", "state"), "{{state}}"), stacked=True),
        graph(
            "Oldest firing alert",
            "s",
            (greatest("alerts_oldest_firing_seconds", "instance, severity"), "{{instance}} {{severity}}"),
            about="Without silenced and acknowledged ones.",
        ),
        graph("Notifications delivered", "cps", (total("notifications_delivered_total", "receiver"), "{{receiver}}")),
        graph(
            "Notifications withheld",
            "short",
            (growth("notifications_withheld_total", "cause"), "{{cause}}"),
            about="By silences, mute times and inhibition.",
        ),
    )


def health() -> Iterable[Builder[Panel]]:
    """Return the row of the watchdog itself."""
    return (
        graph(
            "Ticks",
            "cps",
            (total("ticks_total"), "{{instance}} complete"),
            (total("missed_ticks_total"), "{{instance}} missed"),
            (total("failed_ticks_total"), "{{instance}} failed"),
            (total("unknown_ticks_total"), "{{instance}} with unknown rules"),
            (total("slow_stages_total"), "{{instance}} stages over their limit"),
        ),
        graph("Duration of ticks", "s", *quantiles("tick_duration_seconds", HOST)),
        spread(
            "Duration of ticks, distribution", "s", total("tick_duration_seconds_bucket", "le"), "Ticks per second."
        ),
        graph(
            "Age of the newest tick, and intervals",
            "s",
            (gauge("tick_age_seconds"), "{{instance}} age"),
            (gauge("interval_seconds"), "{{instance}} interval"),
            (gauge("configured_interval_seconds"), "{{instance}} configured"),
        ),
        graph(
            "Lost data by cause",
            "short",
            (growth("losses_total", "cause"), "{{cause}}"),
            (growth("lost_connections_total", "job"), "connections"),
            (growth("unread_commands_total", "job"), "command lines"),
            about="docs/accuracy.md describes each cause.",
        ),
        graph(
            "Processes with series",
            "short",
            (gauge("process_series"), "{{instance}}"),
            (gauge("process_series_limit"), "{{instance}} limit"),
            (growth("process_series_refused_total", "instance"), "{{instance}} counted in (other)"),
        ),
        graph(
            "Receivers",
            "short",
            *(
                (
                    f'sum by (receiver) (bpf_watchdog_receiver_state{{{HOST},state="{state}"}})',
                    f"{{{{receiver}}}} {state}",
                )
                for state in ("failing", "down")
            ),
        ),
        graph(
            "Notifications that wait",
            "short",
            (gauge("notifications_pending", "receiver"), "{{receiver}}"),
        ),
        graph(
            "Age of the oldest that waits",
            "s",
            (greatest("notifications_oldest_pending_seconds", "receiver"), "{{receiver}}"),
        ),
        graph(
            "Attempts to deliver that failed",
            "short",
            (growth("delivery_attempts_failed_total", "receiver, reason"), "{{receiver}} {{reason}}"),
            about="Most are repeated.",
        ),
        graph(
            "Notifications given up",
            "short",
            (growth("notifications_failed_total", "receiver", "$__range"), "{{receiver}}"),
            about="Within a time as long as the range shown, before each point.",
            limit=1,
        ),
        graph(
            "Reload",
            "short",
            (f"min by (instance) (bpf_watchdog_last_reload_successful{{{HOST}}})", "{{instance}} newest accepted"),
            (growth("refused_reloads_total", "instance", "$__range"), "{{instance}} refused"),
        ),
        graph("Memory", "bytes", (f"process_resident_memory_bytes{{{HOST}}}", "{{instance}}"), width=6),
        graph(
            "CPU",
            "percentunit",
            (f"rate(process_cpu_seconds_total{{{HOST}}}[$__rate_interval])", "{{instance}}"),
            about="Share of one core.",
            width=6,
        ),
        graph(
            "Run time of the BPF programs",
            "percentunit",
            (total("bpf_program_run_seconds_total", "program"), "{{program}}"),
            about="Share of one core. Measured only with [web] bpf_stats = true.",
            width=6,
        ),
        graph("Open files", "short", (f"process_open_fds{{{HOST}}}", "{{instance}}"), width=6),
        listing(
            "Versions",
            ("instance", "version", "kernel"),
            (
                "uptime",
                "s",
                (
                    f"bpf_watchdog_build_info{{{HOST}}} * on (job, instance) group_left () "
                    f"(time() - process_start_time_seconds{{{HOST}}})"
                ),
            ),
        ),
    )


ROWS = (
    ("Host overview", host_overview),
    ("Processes: $process in $unit", processes),
    ("Failures", failures),
    ("Latency", latency),
    ("Alerts", alerts),
    ("Watchdog health", health),
)
