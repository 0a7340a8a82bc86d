"""`bpf-watchdog run`: the daemon, in the foreground."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from watchdog.clock import SystemClock
from watchdog.config import DEFAULT_CONFIG, DEFAULT_RULES
from watchdog.daemon import DEFAULT_STATE, Daemon, Options
from watchdog.durations import parse_duration
from watchdog.errors import UsageError
from watchdog.setup import Sources

_DESCRIPTION = f"""\
Guard this host until SIGTERM or Ctrl-C: watch every TCP connection, judge by rules, deliver notices.

Without any settings: the shipped rules, and notices on this terminal (or in the journal). Settings are read from
{DEFAULT_CONFIG}, rules from {DEFAULT_RULES} where it has any. SIGHUP reads all files again; if anything is wrong in
them, the old ones stay in force and the log says so. Start it as root: it loads its programs through a child with two
capabilities and goes on as an ordinary user without any."""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "run",
        help="guard this host, in the foreground",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help=f"settings and receivers (default: {DEFAULT_CONFIG})")
    parser.add_argument("--rules", metavar="DIR", help=f"rule files (default: {DEFAULT_RULES}, else the shipped ones)")
    parser.add_argument("--state-dir", metavar="DIR", help=f"where state is kept (default: {DEFAULT_STATE})")
    parser.add_argument("--interval", metavar="TIME", help="how often to look (default: what the settings say, 1s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the daemon; return its exit code.

    Raises:
        UsageError: an interval that is none.
    """
    interval_ns = None
    if args.interval:
        try:
            interval_ns = parse_duration(args.interval)
        except ValueError as error:
            raise UsageError(f"--interval: {error}") from error
    _log_to_stderr()
    state = args.state_dir or os.environ.get("STATE_DIRECTORY") or DEFAULT_STATE
    options = Options(Sources(args.config, args.rules, interval_ns), state)
    return Daemon(options, SystemClock()).run()


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    journal = "JOURNAL_STREAM" in os.environ  # it has its own time stamps
    handler.setFormatter(logging.Formatter("%(message)s" if journal else "%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
