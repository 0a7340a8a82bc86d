"""`bpf-watchdog run`: the daemon in the foreground."""

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
from watchdog.daemon.log_writer import LogWriter
from watchdog.daemon.malloc import configure_malloc
from watchdog.errors import UsageError

_DESCRIPTION = f"""\
Monitor this host until SIGTERM or Ctrl-C: measure every TCP connection, evaluate rules, deliver notifications.

Without settings: the shipped rules, and notifications on this terminal or in the journal. Settings are read from
{DEFAULT_SETTINGS_FILE}, rules from {DEFAULT_RULES_FOLDER} if it has files. `bpf-watchdog reload` and SIGHUP read
all files again; if they have a problem, the former configuration stays in force and the problem is logged. If they
have one at the start, the last good configuration in the state folder is used. Start it as root: a child with two
capabilities loads the BPF programs, and the daemon continues as the account {ACCOUNT} without capabilities. A reload
needs files that this account can read."""

_LOG_DRAIN_SECONDS = 0.5  # for a slow reader of the log; a reader that hangs does not delay the exit longer


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("run", description=_DESCRIPTION)
    parser.add_argument("--config", metavar="FILE", help=f"settings and receivers (default: {DEFAULT_SETTINGS_FILE})")
    parser.add_argument(
        "--rules", metavar="DIR", help=f"rule files (default: {DEFAULT_RULES_FOLDER}, else the shipped ones)"
    )
    parser.add_argument("--state-dir", metavar="DIR", help=f"state folder (default: {DEFAULT_STATE_FOLDER})")
    default = f"{DEFAULT_RUNTIME_FOLDER}/{SOCKET_FILE_NAME}; with --state-dir: in that folder"
    parser.add_argument("--control", metavar="SOCKET", help=f"control socket for commands (default: {default})")
    parser.add_argument("--interval", metavar="DURATION", help="sampling interval (default: from the settings, 1s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the daemon; return its exit code.

    Raises:
        UsageError: the interval is not a duration, or out of range.
    """
    # Imported late: the help needs none of it.
    from watchdog.daemon.configuration import ConfigurationSources
    from watchdog.daemon.daemon import Daemon, DaemonOptions
    from watchdog.kernel.privileges import forbid_core_files

    forbid_core_files()
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
        log.drain(_LOG_DRAIN_SECONDS)
