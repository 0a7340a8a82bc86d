"""`bpf-watchdog top`: the traffic of this host in a live view, from the running daemon or without one."""

from __future__ import annotations

import argparse

from watchdog.control.socket_path import DEFAULT_RUNTIME_FOLDER, DEFAULT_STATE_FOLDER, SOCKET_FILE_NAME
from watchdog.measure.traffic_view import VIEWS, TopView

_DESCRIPTION = """\
Show the traffic of this host in a live view: connections, processes, units or peers with their rates, and the worst
alerts. The numbers come from the running daemon; root can also watch without one. `?` shows the keys.

A filter is that of `sample --where`. The view ends with `q`."""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("top", description=_DESCRIPTION)
    usual = f"{DEFAULT_RUNTIME_FOLDER}/{SOCKET_FILE_NAME}"
    parser.add_argument("--control", metavar="SOCKET", help=f"the daemon's control socket (default: {usual})")
    parser.add_argument(
        "--state-dir", metavar="DIR", help=f"the daemon's state folder (default: {DEFAULT_STATE_FOLDER})"
    )
    parser.add_argument("--alone", action="store_true", help="measure without the daemon; needs root")
    parser.add_argument("--every", metavar="DURATION", default="1s", help="interval without the daemon (default: 1s)")
    parser.add_argument(
        "--view", choices=[str(view) for view in VIEWS], default=str(TopView.PROCESSES), help="the first view"
    )
    parser.add_argument(
        "--where", metavar="NAME=PATTERN", action="append", default=[], help="the first filter, as of sample --where"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the view, see `top_run`."""
    from watchdog.cli import top_run  # imported late: the help needs no numpy

    return top_run.run(args)
