"""`bpf-watchdog run`: the daemon, in the foreground."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from watchdog.clock import SystemClock
from watchdog.config.durations import parse_duration
from watchdog.config.permissions import ACCOUNT
from watchdog.config.settings import DEFAULT_CONFIG, DEFAULT_RULES, LONGEST_INTERVAL, SHORTEST_INTERVAL
from watchdog.control.socket_path import DEFAULT_FOLDER, DEFAULT_STATE, FILE_NAME, socket_of
from watchdog.daemon.configuration import Sources
from watchdog.daemon.daemon import Daemon, Options
from watchdog.daemon.log_writer import LogWriter
from watchdog.daemon.malloc import give_back_what_is_freed
from watchdog.errors import UsageError

_DESCRIPTION = f"""\
Guard this host until SIGTERM or Ctrl-C: watch every TCP connection, judge by rules, deliver notices.

Without any settings: the shipped rules, and notices on this terminal (or in the journal). Settings are read from
{DEFAULT_CONFIG}, rules from {DEFAULT_RULES} where it has any. SIGHUP reads all files again; if anything is wrong in
them, the old ones stay in force and the log says so. Start it as root: it loads its programs through a child with two
capabilities and goes on as the account {ACCOUNT} without any. That account must be able to read all files again."""

_LAST_WORDS_SECONDS = 0.5  # for a reader of the log that is slow; one that is stuck does not keep the daemon


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
    usual = f"{DEFAULT_FOLDER}/{FILE_NAME}; with a --state-dir: in there"
    parser.add_argument("--control", metavar="SOCKET", help=f"where commands ask this daemon (default: {usual})")
    parser.add_argument("--interval", metavar="TIME", help="how often to look (default: what the settings say, 1s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the daemon; return its exit code.

    Raises:
        UsageError: an interval that is none, or out of bounds.
    """
    interval_ns = None
    if args.interval is not None:
        try:
            interval_ns = parse_duration(args.interval)
        except ValueError as error:
            raise UsageError(f"--interval: {error}") from error
        if not parse_duration(SHORTEST_INTERVAL) <= interval_ns <= parse_duration(LONGEST_INTERVAL):
            raise UsageError(f"--interval: must be {SHORTEST_INTERVAL} to {LONGEST_INTERVAL}, not {args.interval}")
    give_back_what_is_freed()
    log = LogWriter(sys.stderr.fileno())
    logging.basicConfig(level=logging.INFO, handlers=[log])
    state = args.state_dir or os.environ.get("STATE_DIRECTORY") or DEFAULT_STATE
    control = Path(args.control) if args.control else socket_of(state, os.environ)
    options = Options(Sources(args.config, args.rules, interval_ns), Path(state), control)
    try:
        return Daemon(options, SystemClock(), log).run()
    finally:
        log.drain(_LAST_WORDS_SECONDS)
