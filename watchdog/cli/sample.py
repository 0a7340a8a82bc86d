"""`bpf-watchdog sample`: the connections of the next seconds, without a daemon."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from watchdog.cli.table import table_lines
from watchdog.clock import SECOND_NS, Clock, SystemClock
from watchdog.config import suggestions
from watchdog.config.counts import format_count
from watchdog.config.durations import format_duration, parse_duration
from watchdog.errors import KernelUnfit, UsageError
from watchdog.kernel.collector import Collector
from watchdog.kernel.startup import start_collector
from watchdog.kernel.trusted_code import require_trusted_code
from watchdog.measure.catalogue import DIMENSIONS, LOCATION_DIMENSIONS
from watchdog.measure.meter import Meter
from watchdog.measure.ranked_rows import SampleRow
from watchdog.measure.sample_connections import ConnectionAggregate
from watchdog.measure.sample_groups import GroupAggregate
from watchdog.measure.sample_sums import SampleLosses

_Aggregate = ConnectionAggregate | GroupAggregate

_TICK_NS = SECOND_NS
_DESCRIPTION = """\
Measure every TCP connection of this host, in all network namespaces, and print one row per connection or, with --by,
sums by dimensions (see `bpf-watchdog metrics`). Counts are exact: each byte and connection is in one row; those without
a known process are in the process (unattributed). Needs root (CAP_BPF and CAP_PERFMON), no daemon."""
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
_ANSWER_COLUMN = {"ANSWER us": "response_latency_us"}
_MESSAGE_COLUMNS = {
    "ANSWERS": "response_latency.count", "p50 us": "response_latency.p50", "p99 us": "response_latency.p99",
    "UDP OUT": "udp_bytes_sent", "UDP IN": "udp_bytes_received",
}  # fmt: skip


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "sample",
        help="show the connections of the next seconds",
        description=_DESCRIPTION,
    )
    parser.add_argument(
        "--for", dest="duration", metavar="TIME", default="5s", help="duration of the sample (default: 5s)"
    )
    parser.add_argument("--every", metavar="TIME", help="print a table at this interval, instead of one at the end")
    parser.add_argument(
        "--by",
        metavar="DIM,…",
        action="append",
        help="print sums by these dimensions, for example process,remote; can be repeated",
    )
    parser.add_argument(
        "--limit", metavar="N", type=int, default=50, help="maximum rows of a table (default: 50; 0: all)"
    )
    parser.add_argument(
        "--messages",
        action="store_true",
        help="also measure response latency and, with --by, UDP; a BPF program then runs at every message",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array of all rows, at the end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print samples, and return the exit code.

    Raises:
        UsageError: a duration or dimension is wrong.
        KernelUnfit, NotPermitted: this host or user cannot load the BPF programs.
    """
    duration_ns = _duration("--for", args.duration)
    every_ns = duration_ns if args.every is None else _duration("--every", args.every)
    if every_ns > duration_ns:
        raise UsageError(f"--every: {args.every} is longer than --for: {args.duration}")
    if args.limit < 0:
        raise UsageError("--limit: must not be negative; 0 shows all rows")
    if args.json and args.every is not None:
        raise UsageError("--every prints tables and cannot be combined with --json")
    dimensions = _dimensions(args.by)
    limit = 0 if args.json else args.limit
    clock = SystemClock()
    require_trusted_code()
    collector = start_collector(clock)
    try:
        if args.messages and not collector.enable_message_probes():
            raise KernelUnfit(f"--messages: {collector.message_probes_problem}")
        for aggregate, losses in _aggregates(collector, clock, duration_ns, every_ns, dimensions, limit):
            if args.json:
                _print_json(aggregate)
            else:
                _print_table(aggregate, _columns(dimensions, messages=args.messages))
            _print_losses(losses)
    finally:
        collector.close()
    return 0


def _aggregates(
    collector: Collector, clock: Clock, duration_ns: int, every_ns: int, dimensions: Sequence[str], limit: int
) -> Iterator[tuple[_Aggregate, SampleLosses]]:
    """Yield the aggregate and its losses every `every_ns`, until `duration_ns` have passed or Ctrl-C."""
    meter = Meter()
    meter.names.set_retention(0)  # an aggregate keeps texts, not codes
    meter.advance_with_changes(collector.read(complete=True), clock.wall())  # the baseline
    announcement = f"watching every TCP connection of this host for {format_duration(duration_ns)} …"
    print(announcement, file=sys.stderr, flush=True)
    shown_ns = clock.boottime_ns()
    end_ns = shown_ns + duration_ns
    aggregate, losses, interrupted = _new_aggregate(dimensions, limit), SampleLosses(), False
    while shown_ns < end_ns and not interrupted:
        now_ns, due_ns = clock.boottime_ns(), min(end_ns, shown_ns + every_ns)
        try:
            time.sleep(max(0, min(due_ns - now_ns, _TICK_NS)) / SECOND_NS)
        except KeyboardInterrupt:
            interrupted = True
        changes, snapshot = meter.advance_with_changes(collector.read(complete=True), clock.wall())
        aggregate.add(changes, snapshot)
        losses.add(snapshot.quality)
        if interrupted or clock.boottime_ns() >= due_ns:
            yield aggregate, losses
            aggregate, losses, shown_ns = _new_aggregate(dimensions, limit), SampleLosses(), due_ns


def _new_aggregate(dimensions: Sequence[str], limit: int) -> _Aggregate:
    return GroupAggregate(dimensions, limit) if dimensions else ConnectionAggregate(limit)


def _duration(option: str, text: str) -> int:
    try:
        duration_ns = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
    if duration_ns <= 0:
        raise UsageError(f"{option}: must be longer than 0s")
    return duration_ns


def _dimensions(texts: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(name.strip() for text in texts or () for name in text.split(","))
    for index, name in enumerate(names):
        if name not in DIMENSIONS:
            raise UsageError(f"--by: {suggestions.unknown_name('dimension', name, DIMENSIONS)}")
        if name in LOCATION_DIMENSIONS:
            raise UsageError(f"--by: {name} is for rules only: it needs a file that the daemon has")
        if name in names[:index]:
            raise UsageError(f"--by: duplicate entry {name}")
    return names


def _columns(dimensions: Sequence[str], *, messages: bool) -> dict[str, str]:
    if not dimensions:
        return _CONNECTION_COLUMNS | (_ANSWER_COLUMN if messages else {})
    columns = {name.upper(): name for name in dimensions} | _GROUP_COLUMNS
    return columns | (_MESSAGE_COLUMNS if messages else {})


@dataclass(frozen=True, slots=True)
class _TableRows:
    aggregate: _Aggregate
    columns: Mapping[str, str]

    def __iter__(self) -> Iterator[list[object]]:
        for row in self.aggregate.rows():
            yield [_cell(row, name) for name in self.columns.values()]


def _print_json(aggregate: _Aggregate) -> None:
    separator = "["
    for row in aggregate.rows():
        print(separator + json.dumps(row), end="")
        separator = ",\n"
    print("[]" if separator == "[" else "]")


def _print_table(aggregate: _Aggregate, columns: Mapping[str, str]) -> None:
    shown = -1  # without the head
    for line in table_lines(list(columns), _TableRows(aggregate, columns)):
        print(line)
        shown += 1
    if more := aggregate.row_count() - shown:
        print(f"… and {format_count(more, 'more row')} (--limit 0 shows all)")
    sums = aggregate.totals()
    print(
        f"total: {sums['connects']} connects, {sums['accepts']} accepts, {sums['connect_failures']} failed connects,"
        f" {sums['closes']} closes, {sums['bytes_sent']} bytes sent, {sums['bytes_received']} bytes received\n",
        flush=True,
    )


def _cell(row: SampleRow, name: str) -> object:
    metric, _, part = name.partition(".")
    if not part:
        return row[name]
    summary = row[metric]
    if not isinstance(summary, dict):
        return None
    return summary[part] if part == "count" else round(summary[part] * 1e6)


def _print_losses(losses: SampleLosses) -> None:
    causes = [f"{count} {cause}" for cause, count in losses.counts_by_cause().items() if count]
    if causes:
        print(f"bpf-watchdog: sample incomplete: {', '.join(causes)}", file=sys.stderr)
