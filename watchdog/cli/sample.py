"""`bpf-watchdog sample`: the connections of the next seconds, without a daemon."""

from __future__ import annotations

import argparse

_DESCRIPTION = """\
Measure every TCP connection of this host, in all network namespaces, and print one row per connection or, with --by,
sums by dimensions (see `bpf-watchdog metrics`). Counts are exact: each byte and connection is in one row; those without
a known process are in the process (unattributed). Needs root (CAP_BPF and CAP_PERFMON), no daemon.

A table fits the terminal: the least important columns are left out, long names are cut. With --wide, or in a pipe, all
columns are shown. Columns have the names of metrics and dimensions in rules; "rate" is the column before it, per
second. An address has its port."""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("sample", description=_DESCRIPTION)
    parser.add_argument(
        "--for", dest="duration", metavar="DURATION", default="5s", help="duration of the sample (default: 5s)"
    )
    parser.add_argument("--every", metavar="DURATION", help="print a table at this interval, instead of one at the end")
    parser.add_argument(
        "--by",
        metavar="DIM,…",
        action="append",
        help="print sums by these dimensions, for example process,remote",
    )
    parser.add_argument(
        "--where",
        metavar="NAME=PATTERN",
        action="append",
        help="count only these connections: a condition of rules, for example remote=10.0.0.0/8 or process!=nginx*; can"
        " be repeated, several patterns of one name are alternatives",
    )
    parser.add_argument(
        "--sort",
        metavar="NAME",
        help="the column to sort by, greatest number or first text first, for example retransmits, rtt, with --by also"
        " rtt.p99 (default: bytes in both directions)",
    )
    parser.add_argument("--wide", action="store_true", help="show all columns, and cut nothing")
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
    """Measure and print, see `sample_run`."""
    from watchdog.cli import sample_run  # imported late: the help needs no numpy

    return sample_run.run(args)
