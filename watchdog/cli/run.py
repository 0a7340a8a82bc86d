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
from watchdog.config.settings import DEFAULT_RULES_FOLDER, DEFAULT_SETTINGS_FILE, MAX_INTERVAL, MIN_INTERVAL
from watchdog.control.socket_path import (
    DEFAULT_RUNTIME_FOLDER,
    DEFAULT_STATE_FOLDER,
    SOCKET_FILE_NAME,
    control_socket_path,
)
from watchdog.daemon.configuration import ConfigurationSources
from watchdog.daemon.daemon import Daemon, DaemonOptions
from watchdog.daemon.log_writer import LogWriter
from watchdog.daemon.malloc import configure_malloc
from watchdog.errors import UsageError

_DESCRIPTION = f"""\
Guard this host until SIGTERM or Ctrl-C: watch every TCP connection, judge by rules, deliver notices.

Without any settings: the shipped rules, and notices on this terminal (or in the journal). Settings are read from
{DEFAULT_SETTINGS_FILE}, rules from {DEFAULT_RULES_FOLDER} where it has any. SIGHUP reads all files again; if anything
is wrong in
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
    parser.add_argument("--config", metavar="FILE", help=f"settings and receivers (default: {DEFAULT_SETTINGS_FILE})")
    parser.add_argument(
        "--rules", metavar="DIR", help=f"rule files (default: {DEFAULT_RULES_FOLDER}, else the shipped ones)"
    )
    parser.add_argument("--state-dir", metavar="DIR", help=f"where state is kept (default: {DEFAULT_STATE_FOLDER})")
    usual = f"{DEFAULT_RUNTIME_FOLDER}/{SOCKET_FILE_NAME}; with a --state-dir: in there"
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
        if not parse_duration(MIN_INTERVAL) <= interval_ns <= parse_duration(MAX_INTERVAL):
            raise UsageError(f"--interval: must be {MIN_INTERVAL} to {MAX_INTERVAL}, not {args.interval}")
    configure_malloc()
    log = LogWriter(sys.stderr.fileno())
    logging.basicConfig(level=logging.INFO, handlers=[log])
    state = args.state_dir or os.environ.get("STATE_DIRECTORY") or DEFAULT_STATE_FOLDER
    control = Path(args.control) if args.control else control_socket_path(state, os.environ)
    options = DaemonOptions(ConfigurationSources(args.config, args.rules, interval_ns), Path(state), control)
    try:
        return Daemon(options, SystemClock(), log).run()
    finally:
        log.drain(_LAST_WORDS_SECONDS)
