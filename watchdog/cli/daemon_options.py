"""Options of the commands that the running daemon answers, and their requests to it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from watchdog.control.client import send_request
from watchdog.control.socket_path import (
    DEFAULT_RUNTIME_FOLDER,
    DEFAULT_STATE_FOLDER,
    SOCKET_FILE_NAME,
    control_socket_path,
)


def add_daemon_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that find the daemon, and `--json`."""
    usual = f"{DEFAULT_RUNTIME_FOLDER}/{SOCKET_FILE_NAME}"
    parser.add_argument("--control", metavar="SOCKET", help=f"the daemon's control socket (default: {usual})")
    parser.add_argument(
        "--state-dir", metavar="DIR", help=f"the daemon's state folder (default: {DEFAULT_STATE_FOLDER})"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def daemon_socket(args: argparse.Namespace) -> Path:
    """Return the control socket of the daemon that the options name."""
    return Path(args.control) if args.control else control_socket_path(args.state_dir or DEFAULT_STATE_FOLDER, {})


def ask_daemon(args: argparse.Namespace, request_name: str, *, is_slow: bool = False, **arguments: object) -> Any:
    """Send a request to the daemon that the options name; return its result.

    Raises:
        WatchdogError: as `send_request`.
    """
    return send_request(daemon_socket(args), request_name, is_slow=is_slow, **arguments)
