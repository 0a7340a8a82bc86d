"""`bpf-watchdog sample`: what the host's connections do in the next seconds, without a daemon."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from watchdog import spelling
from watchdog.cli.table import table
from watchdog.clock import SECOND_NS, SystemClock
from watchdog.durations import format_duration, parse_duration
from watchdog.errors import KernelUnfit, UsageError
from watchdog.kernel.start import start_collector
from watchdog.measure.catalogue import DIMENSIONS
from watchdog.measure.meter import Meter
from watchdog.measure.tally import COUNTERS, Row, Tally

_TICK_NS = SECOND_NS
_DESCRIPTION = """\
Watch every TCP connection of this host, in all network namespaces, for a while, and print what they did: one row per
connection or, with --by, sums by dimensions (see `bpf-watchdog metrics`). Counts are exact: each byte and connection is
in one row, those of unknown owners as process (unattributed). Needs root (CAP_BPF and CAP_PERFMON), no daemon."""
_CONNECTION_COLUMNS = {
    "PID": "pid", "COMMAND": "process", "DIR": "direction", "SRC ADDR": "local", "SPORT": "local_port",
    "DST ADDR": "remote", "DPORT": "remote_port", "STATE": "state", "CONNECTS": "connects", "CLOSES": "closes",
    "SENT": "bytes_sent", "RECEIVED": "bytes_received", "PKTS OUT": "packets_sent", "PKTS IN": "packets_received",
    "RETRANS": "retransmits", "RTT us": "rtt_us", "FAILURE": "failure",
}  # fmt: skip
_GROUP_COLUMNS = {
    "CONNECTS": "connects", "ESTABLISHED": "established", "ACCEPTS": "accepts", "FAILED": "connect_failures",
    "CLOSES": "closes", "OPEN": "open", "SENT": "bytes_sent", "RECEIVED": "bytes_received", "PKTS OUT": "packets_sent",
    "PKTS IN": "packets_received", "RETRANS": "retransmits",
}  # fmt: skip


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "sample",
        help="show what this host's connections do in the next seconds",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--for", dest="duration", metavar="TIME", default="5s", help="how long to watch (default: 5s)")
    parser.add_argument("--every", metavar="TIME", help="print a table each time this has passed, not one at the end")
    parser.add_argument("--by", metavar="DIM,…", help="sum up by these dimensions: process,remote for example")
    parser.add_argument("--limit", metavar="N", type=int, default=50, help="rows of a table (default: 50; 0: all)")
    parser.add_argument(
        "--messages",
        action="store_true",
        help="also measure response latency and, with --by, UDP: a program runs at every message meanwhile",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array of all rows, at the end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Sample, print, and return the exit code.

    Raises:
        UsageError: a duration or dimension that there is not.
        KernelUnfit, NotPermitted: this host cannot be sampled.
    """
    duration_ns = _duration("--for", args.duration)
    every_ns = _duration("--every", args.every) if args.every else duration_ns
    if args.json and args.every:
        raise UsageError("--every prints tables: it does not go with --json")
    dimensions = _dimensions(args.by)
    clock = SystemClock()
    collector = start_collector(clock)
    try:
        if args.messages and not collector.follow_messages(True):
            raise KernelUnfit(f"--messages: {collector.no_messages}")
        meter = Meter()
        meter.measure(collector.read(), clock.wall())  # the baseline
        print(
            f"watching every TCP connection of this host for {format_duration(duration_ns)} …",
            file=sys.stderr,
            flush=True,
        )
        end_ns = clock.boottime_ns() + duration_ns
        tally, shown_ns, lost = Tally(), clock.boottime_ns(), 0
        interrupted = False
        while clock.boottime_ns() < end_ns and not interrupted:
            now_ns = clock.boottime_ns()
            until_ns = min(end_ns, shown_ns + every_ns, now_ns + _TICK_NS)
            try:
                time.sleep(max(0, until_ns - now_ns) / SECOND_NS)
            except KeyboardInterrupt:
                interrupted = True
            changes, snapshot = meter.measure(collector.read(), clock.wall())
            lost += snapshot.quality.sums_full + snapshot.quality.storage_failed + snapshot.quality.programs_missed
            tally.add(changes, snapshot)
            if not args.json and (interrupted or snapshot.at_ns >= min(end_ns, shown_ns + every_ns)):
                _show(tally, dimensions, args.limit)
                tally, shown_ns = Tally(), shown_ns + every_ns
    finally:
        collector.close()
    if args.json:
        _print_json(_rows(tally, dimensions))
    if lost:
        print(f"bpf-watchdog: {lost} events of connections were lost: the counts may be too low", file=sys.stderr)
    return 0


def _duration(option: str, text: str) -> int:
    try:
        duration_ns = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
    if duration_ns <= 0:
        raise UsageError(f"{option}: must be longer than 0s")
    return duration_ns


def _dimensions(text: str | None) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    for name in names:
        if name not in DIMENSIONS:
            raise UsageError(f"--by: {spelling.unknown('dimension', name, DIMENSIONS)}")
    return names


def _rows(tally: Tally, dimensions: Sequence[str]) -> list[Row]:
    return tally.by(dimensions) if dimensions else tally.connections()


def _print_json(rows: Sequence[Row]) -> None:
    print("[" + ",\n".join(json.dumps(row) for row in rows) + "]")


def _show(tally: Tally, dimensions: Sequence[str], limit: int) -> None:
    rows = _rows(tally, dimensions)
    columns = (
        dict(zip(map(str.upper, dimensions), dimensions, strict=True)) | _GROUP_COLUMNS
        if dimensions
        else _CONNECTION_COLUMNS
    )
    shown = rows[:limit] if limit else rows
    print(table(list(columns), [[row[name] for name in columns.values()] for row in shown]))
    if len(shown) < len(rows):
        print(f"… and {len(rows) - len(shown)} more rows (--limit 0 shows all)")
    sums = {name: sum(int(str(row[name])) for row in rows) for name in COUNTERS}
    print(
        f"total: {sums['connects']} connects, {sums['accepts']} accepts, {sums['connect_failures']} failed connects,"
        f" {sums['closes']} closes, {sums['bytes_sent']} bytes sent, {sums['bytes_received']} bytes received\n",
        flush=True,
    )
