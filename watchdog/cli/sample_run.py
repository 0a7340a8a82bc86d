"""Run of `bpf-watchdog sample`: measure, and print one row per connection or sums."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from watchdog.cli.sample_columns import sample_columns, sort_key
from watchdog.cli.sample_table import SampleTables
from watchdog.cli.silence import format_time
from watchdog.cli.terminal import output_width
from watchdog.clock import SECOND_NS, Clock, SystemClock
from watchdog.config import suggestions
from watchdog.config.counts import format_count
from watchdog.config.durations import format_duration, parse_duration
from watchdog.errors import KernelUnfit, UsageError
from watchdog.kernel.collector import Collector
from watchdog.kernel.startup import start_collector
from watchdog.kernel.trusted_code import require_trusted_code
from watchdog.measure.catalogue import DIMENSIONS, HOST_DIMENSIONS, LOCATION_DIMENSIONS
from watchdog.measure.deltas import Changes
from watchdog.measure.meter import Meter
from watchdog.measure.ranked_rows import SampleRow
from watchdog.measure.sample_connections import ConnectionAggregate
from watchdog.measure.sample_groups import GroupAggregate
from watchdog.measure.sample_sums import SampleLosses
from watchdog.measure.selected_rows import select_rows
from watchdog.measure.snapshot import Snapshot
from watchdog.routing.silencing import parse_matchers
from watchdog.rules.engine.selection import Mask, Selection
from watchdog.rules.language.formats import format_number
from watchdog.rules.language.rule import Condition

_Aggregate = ConnectionAggregate | GroupAggregate

_TICK_NS = SECOND_NS
_NO_BREAK_SPACE = "\u00a0"
_MIN_WIDTH = 20  # of a terminal, for the line of totals


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
    options = _read_options(args)
    width = None if args.wide else output_width()
    columns = sample_columns(options.dimensions, messages=args.messages, sort=args.sort or "")
    tables = SampleTables(columns, width)
    clock = SystemClock()
    require_trusted_code()
    collector = start_collector(clock)
    try:
        if args.messages and not collector.enable_message_probes():
            raise KernelUnfit(f"--messages: {collector.message_probes_problem}")
        for period in _periods(collector, clock, duration_ns, every_ns, options):
            if args.json:
                _print_json(period.aggregate)
            else:
                _print_table(period, tables, width, with_time=args.every is not None)
            _print_losses(period.losses)
    finally:
        collector.close()
    return 0


@dataclass(frozen=True, slots=True)
class _SampleOptions:
    # `where`: of the rows that are counted; `sort`: key of the values to sort by, "" for bytes; `limit`: 0 for all.
    dimensions: tuple[str, ...]
    where: tuple[Condition, ...]
    sort: str
    limit: int

    def new_aggregate(self) -> _Aggregate:
        if self.dimensions:
            return GroupAggregate(self.dimensions, self.limit, self.sort)
        return ConnectionAggregate(self.limit, self.sort)


@dataclass(slots=True)
class _SamplePeriod:
    # `elapsed_ns`: measured time of its ticks; `ended`: wall clock of the last one, in seconds.
    aggregate: _Aggregate
    losses: SampleLosses
    elapsed_ns: int = 0
    ended: float = 0.0

    def add(self, changes: Changes, snapshot: Snapshot, mask: Mask | None) -> None:
        self.losses.add(snapshot.quality)
        self.elapsed_ns += snapshot.elapsed_ns
        self.ended = snapshot.wall
        self.aggregate.add(*((changes, snapshot) if mask is None else select_rows(changes, snapshot, mask)))


def _read_options(args: argparse.Namespace) -> _SampleOptions:
    dimensions = _dimensions(args.by)
    sort = "" if args.sort is None else sort_key(args.sort, dimensions, messages=args.messages)
    return _SampleOptions(dimensions, _conditions(args.where), sort, 0 if args.json else args.limit)


def _conditions(texts: Sequence[str] | None) -> tuple[Condition, ...]:
    if not texts:
        return ()
    try:
        return parse_matchers(texts, HOST_DIMENSIONS)
    except UsageError as error:
        raise UsageError(f"--where: {error.text}", remedy=error.remedy) from error


def _periods(
    collector: Collector, clock: Clock, duration_ns: int, every_ns: int, options: _SampleOptions
) -> Iterator[_SamplePeriod]:
    """Yield a period every `every_ns`, until `duration_ns` have passed or Ctrl-C."""
    meter, selection = Meter(), Selection()
    meter.names.set_retention(0)  # an aggregate keeps texts, not codes
    meter.advance_with_changes(collector.read(complete=True), clock.wall())  # the baseline
    announcement = f"watching every TCP connection of this host for {format_duration(duration_ns)} …"
    print(announcement, file=sys.stderr, flush=True)
    shown_ns = clock.boottime_ns()
    end_ns = shown_ns + duration_ns
    period, interrupted = _SamplePeriod(options.new_aggregate(), SampleLosses()), False
    while shown_ns < end_ns and not interrupted:
        now_ns, due_ns = clock.boottime_ns(), min(end_ns, shown_ns + every_ns)
        try:
            time.sleep(max(0, min(due_ns - now_ns, _TICK_NS)) / SECOND_NS)
        except KeyboardInterrupt:
            interrupted = True
        changes, snapshot = meter.advance_with_changes(collector.read(complete=True), clock.wall())
        period.add(changes, snapshot, selection.mask(snapshot, options.where))
        selection.release()
        if interrupted or clock.boottime_ns() >= due_ns:
            yield period
            period, shown_ns = _SamplePeriod(options.new_aggregate(), SampleLosses()), due_ns


def _duration(option: str, text: str) -> int:
    try:
        duration_ns = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
    if duration_ns <= 0:
        raise UsageError(f"{option}: must be longer than 0s")
    return duration_ns


def _dimensions(texts: Sequence[str] | None) -> tuple[str, ...]:
    if texts is not None and len(texts) > 1:
        raise UsageError(f"--by: given {len(texts)} times; write --by {','.join(texts)}")
    names = tuple(name.strip() for text in texts or () for name in text.split(","))
    for index, name in enumerate(names):
        if name not in DIMENSIONS:
            raise UsageError(f"--by: {suggestions.unknown_name('dimension', name, DIMENSIONS)}")
        if name in LOCATION_DIMENSIONS:
            raise UsageError(f"--by: {name} is for rules only: it needs a file that the daemon has")
        if name in names[:index]:
            raise UsageError(f"--by: duplicate entry {name}")
    return names


@dataclass(frozen=True, slots=True)
class _TableRows:
    aggregate: _Aggregate

    def __iter__(self) -> Iterator[SampleRow]:
        return self.aggregate.rows()


def _print_json(aggregate: _Aggregate) -> None:
    separator = "["
    for row in aggregate.rows():
        print(separator + json.dumps(row), end="")
        separator = ",\n"
    print("[]" if separator == "[" else "]")


def _print_table(period: _SamplePeriod, tables: SampleTables, width: int | None, *, with_time: bool) -> None:
    aggregate, seconds = period.aggregate, period.elapsed_ns / SECOND_NS
    if with_time:
        print(f"{format_time(period.ended, '-')} UTC, over {format_number('seconds', seconds)}")
    shown = -1  # without the head
    for line in tables.lines(_TableRows(aggregate), seconds):
        print(line)
        shown += 1
    if more := aggregate.row_count() - shown:
        print(f"… and {format_count(more, 'more row')} (--limit 0 shows all)")
    print("\n".join(_total_lines(aggregate.totals(), seconds, width)), end="\n\n", flush=True)


def _total_lines(sums: Mapping[str, int], seconds: float, width: int | None) -> list[str]:
    items = [f"total: {sums['connects']} connects{_rate_text('rate', sums['connects'], seconds)}"]
    items += [f"{sums['accepts']} accepts", f"{sums['connect_failures']} failed connects", f"{sums['closes']} closes"]
    items += [
        f"{sums[name]} {name.replace('_', ' ')}{_rate_text('bytes/s', sums[name], seconds)}"
        for name in ("bytes_sent", "bytes_received")
    ]
    if width is None:
        return [", ".join(items)]
    unbroken = ", ".join(item.replace(" ", _NO_BREAK_SPACE) for item in items)
    lines = textwrap.wrap(unbroken, max(width, _MIN_WIDTH), subsequent_indent="  ")
    return [line.replace(_NO_BREAK_SPACE, " ") for line in lines]


def _rate_text(name: str, total: int, seconds: float) -> str:
    return f" ({format_number(name, total / seconds)})" if seconds else ""


def _print_losses(losses: SampleLosses) -> None:
    causes = [f"{count} {cause}" for cause, count in losses.counts_by_cause().items() if count]
    if causes:
        print(f"bpf-watchdog: sample incomplete: {', '.join(causes)}", file=sys.stderr)
