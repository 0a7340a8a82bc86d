"""`bpf-watchdog notifications`: who was told what, when, by which receiver, and with what answer."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from watchdog.cli.table import format_table
from watchdog.control import notification_handlers
from watchdog.control.client import send_request
from watchdog.control.socket_path import (
    DEFAULT_RUNTIME_FOLDER,
    DEFAULT_STATE_FOLDER,
    SOCKET_FILE_NAME,
    control_socket_path,
)
from watchdog.errors import DaemonUnreachable, StoreError, UsageError
from watchdog.sanitize import escape_unprintable
from watchdog.state.audit import DELIVERY_STATES
from watchdog.storage.folder import STATE_FILE_NAME
from watchdog.storage.reader import ReadableDatabase, StateReader

_SHORT_ID = 12  # letters that tell notices apart; `show` and `retry` take them for the whole
_LONGEST_TEXT = 100
_DESCRIPTION = """\
The audit trail: which notices were made, for whom, what became of them, and what each receiver answered.

States: pending (to be sent, or sent again), done (the receiver said that it has it), merged (never sent, for a newer
one of its group told the same and more), dead (given up; `retry` has it sent after all).

Asks the running daemon. Where none runs, `list` and `show` read its state file, given --state-dir DIR."""

StateFileQuery = Callable[[ReadableDatabase, Mapping[str, Any]], Any]


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `notifications` and what is below it."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(
        "notifications", help="who was told what, and with what answer", description=_DESCRIPTION, formatter_class=raw
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the newest notices", description="List the newest notices.")
    listing.add_argument("--receiver", metavar="NAME", help="only those for this receiver")
    listing.add_argument("--state", choices=DELIVERY_STATES, help="only those in this state")
    listing.add_argument("--limit", metavar="N", type=int, default=50, help="so many at most (default: 50)")
    listing.set_defaults(run=_list)
    showing = actions.add_parser("show", help="all about one notice", description="Show one notice and its attempts.")
    showing.add_argument("id", metavar="ID", help="the notice's id, or how it begins")
    showing.set_defaults(run=_show)
    retrying = actions.add_parser(
        "retry",
        help="have dead notices sent after all",
        description="Have notices that were given up sent after all; needs the running daemon. One whose news are old,"
        " because a later notice on the same was delivered since, is left alone. Exit code: 0, or 1 if any was.",
    )
    retrying.add_argument("ids", metavar="ID", nargs="*", help="ids of notices, or how they begin")
    retrying.add_argument("--dead", action="store_true", help="all that were given up")
    retrying.add_argument("--receiver", metavar="NAME", help="with --dead: only those for this receiver")
    retrying.set_defaults(run=_retry)
    for action in (listing, showing, retrying):
        usual = f"{DEFAULT_RUNTIME_FOLDER}/{SOCKET_FILE_NAME}"
        action.add_argument("--control", metavar="SOCKET", help=f"where the daemon answers (default: {usual})")
        action.add_argument(
            "--state-dir", metavar="DIR", help=f"the daemon's state folder (default: {DEFAULT_STATE_FOLDER})"
        )
        action.add_argument("--json", action="store_true", help="print one JSON document")


def _list(args: argparse.Namespace) -> int:
    wanted = {"receiver": args.receiver, "state": args.state, "limit": args.limit}
    notifications = _read(args, "notifications list", notification_handlers.list_notifications, wanted)
    if args.json:
        print(json.dumps(notifications, indent=2))
    elif notifications:
        print(_table(notifications))
    else:
        print("no notices" + (" like that" if args.receiver or args.state else " yet"), file=sys.stderr)
    return 0


def _show(args: argparse.Namespace) -> int:
    detail = _read(args, "notifications show", notification_handlers.show_notification, {"id": args.id})
    print(json.dumps(detail, indent=2) if args.json else "\n".join(_lines(detail)))
    return 0


def _retry(args: argparse.Namespace) -> int:
    if bool(args.ids) == args.dead:
        raise UsageError("retry what? give either ids or --dead")
    if args.receiver and not args.dead:
        raise UsageError("--receiver goes with --dead")
    socket = _socket(args)
    ids = args.ids
    if args.dead:
        limit = notification_handlers.MAX_LISTED
        dead = send_request(socket, "notifications list", receiver=args.receiver, state="dead", limit=limit)
        ids = [notification["id"] for notification in reversed(dead)]  # the oldest first
    results = []
    for first in range(0, len(ids), notification_handlers.MAX_RETRIED):
        some = ids[first : first + notification_handlers.MAX_RETRIED]
        results += send_request(socket, "notifications retry", ids=some)
    if args.json:
        print(json.dumps(results, indent=2))
    else:
        _tell_retried(results)
    return 0 if all(result["retried"] for result in results) else 1


def _tell_retried(results: Sequence[Mapping[str, Any]]) -> None:
    for result in results:
        reason = "will be sent again" if result["retried"] else f"left alone: {result['reason']}"
        print(f"{escape_unprintable(result['id'])}: {reason}")
    if not results:
        print("nothing was given up", file=sys.stderr)


def _socket(args: argparse.Namespace) -> Path:
    return Path(args.control) if args.control else control_socket_path(args.state_dir or DEFAULT_STATE_FOLDER, {})


def _read(args: argparse.Namespace, request: str, read: StateFileQuery, wanted: Mapping[str, Any]) -> Any:
    # From the daemon; from its file where there is no daemon, and people know which file.
    try:
        return send_request(_socket(args), request, **wanted)
    except DaemonUnreachable as error:
        if args.state_dir is None:
            advice = f"start it, or read what it left: --state-dir {DEFAULT_STATE_FOLDER}"
            raise DaemonUnreachable(f"{error}; {advice}") from None
        unreachable = error
    file = Path(args.state_dir, STATE_FILE_NAME)
    try:
        result = read(StateReader(file), wanted)
    except StoreError as error:
        raise DaemonUnreachable(f"{unreachable}; and {error}") from None
    print(f"{unreachable}; this is what {file} holds:", file=sys.stderr)
    return result


def _table(notifications: Sequence[Mapping[str, Any]]) -> str:
    head = ("CREATED (UTC)", "RECEIVER", "NEWS", "RULE", "ALERTS", "STATE", "TRIES", "ID", "ANSWER")
    rows = [
        (
            _time(notification["created"]),
            notification["receiver"],
            notification["status"],
            notification["group_key"],
            notification["alerts"],
            notification["state"],
            notification["attempts"],
            notification["id"][:_SHORT_ID],
            _answer(notification),
        )
        for notification in notifications
    ]
    return format_table(head, rows, _LONGEST_TEXT)


def _answer(notification: Mapping[str, Any]) -> str | None:
    return "ok" if notification["state"] == "done" else notification["error"]


def _lines(detail: Mapping[str, Any]) -> Iterator[str]:
    notification, attempts = detail["notification"], detail["attempts"]
    yield f"notice    {escape_unprintable(notification['id'])}"
    yield f"receiver  {escape_unprintable(notification['receiver'])}"
    reason, key = escape_unprintable(notification["reason"]), escape_unprintable(notification["group_key"])
    yield f"news      {notification['status']}: {reason}, rule {key}"
    yield f"created   {_time(notification['created'])} UTC"
    ended = "" if notification["ended"] is None else f" since {_time(notification['ended'])} UTC"
    error = f": {escape_unprintable(notification['error'])}" if notification["error"] else ""
    yield f"state     {notification['state']}{ended}{error}"
    if detail["superseded_by"]:
        yield f"          overtaken by {escape_unprintable(detail['superseded_by'])}: it is not sent again"
    yield ""
    yield "alerts in it:"
    for alert in detail["alerts"]:
        state, summary = escape_unprintable(alert["state"]), escape_unprintable(alert["summary"])
        yield f"  {state:<8}  {summary}  ({escape_unprintable(alert['fingerprint'])})"
    yield ""
    yield "attempts:" if attempts else "attempts: none"
    for attempt in attempts:
        yield f"  {attempt['number']:>4}  {_time(attempt['ended'])}  {escape_unprintable(attempt['result'])}"
    unknown = notification["attempts"] - len({attempt["number"] for attempt in attempts if attempt["number"]})
    if unknown > 0:
        yield f"  {unknown} more: under way, or how they ended was not written down (or is kept no longer)"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
