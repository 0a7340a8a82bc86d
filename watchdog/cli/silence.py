"""`bpf-watchdog silence`: withhold the notifications of matching alerts for a while."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from watchdog.cli.daemon_options import add_daemon_options, ask_daemon
from watchdog.cli.terminal import print_table
from watchdog.config.counts import format_count
from watchdog.rules.language.condition_text import matchers_text
from watchdog.sanitize import escape_unprintable

_DESCRIPTION = """\
Withhold the notifications of matching alerts for a while. Rules are evaluated all the same. A receiver that knows an
alert as firing still gets its resolved notification. An alert that outlasts the silence is notified again.

A matcher is NAME=PATTERN or NAME!=PATTERN; names and patterns are those of a route's where: rule, severity, process,
unit, remote and so on, with * for any text. All names must match; several patterns of one name are alternatives.

The running daemon answers, and keeps silences over restarts."""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `silence` and its actions."""
    parser = commands.add_parser("silence", description=_DESCRIPTION)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    adding = actions.add_parser(
        "add",
        help="add a silence",
        description="Add a silence. Example:\n\n  bpf-watchdog silence add unit=backup.service --for 2h --comment move",
    )
    adding.add_argument("matchers", metavar="NAME=PATTERN", nargs="+", help="alerts to silence")
    adding.add_argument("--for", dest="duration", metavar="DURATION", help="30m, 2h, 3d: at most 7d")
    adding.add_argument("--comment", metavar="TEXT", required=True, help="reason of the silence")
    adding.add_argument(
        "--permanent-reason", metavar="TEXT", help="reason of a silence for more than 7d, or without an end"
    )
    adding.set_defaults(run=_add)
    listing = actions.add_parser(
        "list",
        help="list silences and acknowledgements",
        description="List silences and acknowledgements, with the number of notifications that each one withheld.",
    )
    listing.set_defaults(run=_list)
    expiring = actions.add_parser(
        "expire",
        help="end silences and acknowledgements now",
        description="End silences and acknowledgements now: alerts that still fire are notified again.",
    )
    expiring.add_argument("ids", metavar="ID", nargs="+", help="the silence's id, or its first characters")
    expiring.set_defaults(run=_expire)
    add_author(adding)
    for action in (adding, listing, expiring):
        add_daemon_options(action)


def add_author(parser: argparse.ArgumentParser) -> None:
    """Add the option for the name of the author."""
    parser.add_argument("--author", metavar="NAME", help="your name (default: the calling user)")


def author_of(args: argparse.Namespace) -> str:
    """Return the name that the options give, else that of the calling user, with sudo of its caller."""
    given: str | None = args.author
    if given is not None:
        return given
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return str(os.getuid())


def format_time(seconds: float | None, missing: str) -> str:
    """Return wall-clock `seconds` in UTC, `missing` for None."""
    return missing if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _add(args: argparse.Namespace) -> int:
    silence = ask_daemon(
        args,
        "silence add",
        # "-" is an empty value, as in the tables of all commands.
        matchers=[one[:-1] if one.endswith("=-") else one for one in args.matchers],
        duration=args.duration,
        author=author_of(args),
        comment=args.comment,
        permanent_reason=args.permanent_reason,
    )
    if args.json:
        print(json.dumps(silence, indent=2))
        return 0
    end = "without an end" if silence["ends_at"] is None else f"until {format_time(silence['ends_at'], '')} UTC"
    alerts = format_count(len(silence["alerts"]), "firing alert")
    print(f"silence {silence['id']} {end}: matches {alerts} now")
    return 0


def _list(args: argparse.Namespace) -> int:
    listed = ask_daemon(args, "silence list")
    if args.json:
        print(json.dumps(listed, indent=2))
    elif listed["silences"]:
        _print_table(listed["silences"])
    else:
        print("no silences", file=sys.stderr)
    return 0


def _expire(args: argparse.Namespace) -> int:
    results = ask_daemon(args, "silence expire", ids=args.ids)
    if args.json:
        print(json.dumps(results, indent=2))
    else:
        for result in results:
            outcome = "ended" if result["expired"] else f"not ended: {result['reason']}"
            print(f"{escape_unprintable(result['id'])}: {outcome}")
    return 0 if all(result["expired"] for result in results) else 1


def _print_table(silences: Iterable[Mapping[str, Any]]) -> None:
    head = ("ID", "ENDS (UTC)", "AUTHOR", "WITHHELD", "ALERTS", "SILENCES", "COMMENT")
    rows = [
        (
            silence["id"],
            format_time(silence["ends_at"], "when resolved" if silence["fingerprint"] else "never"),
            silence["author"],
            silence["withheld"],
            len(silence["alerts"]),
            _subject(silence),
            silence["comment"],
        )
        for silence in silences
    ]
    print_table(head, rows)


def _subject(silence: Mapping[str, Any]) -> str:
    if silence["fingerprint"]:
        return f"alert {silence['fingerprint']}"
    return matchers_text(silence["matchers"])
