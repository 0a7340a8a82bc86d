"""`bpf-watchdog ack`: acknowledge one alert, which is silenced until it resolves."""

from __future__ import annotations

import argparse
import json

from watchdog.cli.daemon_options import add_daemon_options, ask_daemon
from watchdog.cli.silence import add_author, author_of

_DESCRIPTION = """\
Acknowledge one alert that fires: its notifications are withheld until it resolves. Receivers that know it as firing
then get its resolved notification. If it fires again later, they are notified again.

`bpf-watchdog silence list` shows acknowledgements too, `bpf-watchdog silence expire ID` takes one back."""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `ack`."""
    parser = commands.add_parser("ack", description=_DESCRIPTION)
    parser.add_argument("fingerprint", metavar="FINGERPRINT", help="the alert's fingerprint, or its first characters")
    parser.add_argument("--comment", metavar="TEXT", default="", help="reason of the acknowledgement")
    add_author(parser)
    add_daemon_options(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    silence = ask_daemon(
        args, "ack", fingerprint=args.fingerprint, author=author_of(args), comment=args.comment or None
    )
    if args.json:
        print(json.dumps(silence, indent=2))
    else:
        print(f"acknowledged: alert {silence['fingerprint']} is silenced until it resolves (id {silence['id']})")
    return 0
