"""`bpf-watchdog notifications`: the notifications of each receiver, their delivery states, attempts and losses."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from watchdog.cli.daemon_options import add_daemon_options, ask_daemon, daemon_socket
from watchdog.cli.table import format_table
from watchdog.cli.terminal import fitted_table, output_width, print_facts, print_wrapped
from watchdog.control.client import send_request
from watchdog.control.socket_path import DEFAULT_STATE_FOLDER
from watchdog.errors import DaemonUnreachable, NotPermitted, StoreError, UsageError
from watchdog.kernel import privileges
from watchdog.state.delivery_states import DELIVERED, DELIVERY_STATES, FAILED
from watchdog.storage.folder import STATE_FILE_NAME
from watchdog.storage.reader import ReadableDatabase, StateReader

_SHORT_ID = 12  # characters that identify a notification in practice; `show` and `retry` accept them
_MAX_TEXT_CHARACTERS = 100
_NAME_WIDTH = 13
_DESCRIPTION = f"""\
Show the notifications that were created, their receivers, their delivery states, and the answer of each receiver.

States: pending (to be sent, or to be sent again), {DELIVERED} (the receiver has accepted it), merged (never sent: a
newer notification of the same group contains it), {FAILED} (given up for good; `retry` sends it after all).

The running daemon answers. Without one, `list` and `show` read its state file, given --state-dir DIR."""

StateFileQuery = Callable[[ReadableDatabase, Mapping[str, Any]], Any]


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `notifications` and its actions."""
    parser = commands.add_parser("notifications", description=_DESCRIPTION)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list",
        help="list the newest notifications, and the number of lost ones",
        description="List the newest notifications, then the number of lost ones by receiver and cause.",
    )
    listing.add_argument("--receiver", metavar="NAME", help="only notifications for this receiver")
    states = f"{', '.join(DELIVERY_STATES[:-1])} or {DELIVERY_STATES[-1]}"
    listing.add_argument(
        "--state", metavar="STATE", choices=DELIVERY_STATES, help=f"only notifications in this state: {states}"
    )
    listing.add_argument("--limit", metavar="N", type=int, default=50, help="list at most N (default: 50)")
    listing.add_argument("--lost", action="store_true", help="only the number of lost notifications, by cause")
    listing.set_defaults(run=_list)
    showing = actions.add_parser(
        "show", help="show one notification", description="Show one notification with its alerts and attempts."
    )
    showing.add_argument("notification_id", metavar="ID", help="the notification's id, or its first characters")
    showing.set_defaults(run=_show)
    retrying = actions.add_parser(
        "retry",
        help="send failed notifications again",
        description="Send failed notifications again. Needs the running daemon. A notification is not sent again if a"
        " later one of its group has been delivered. Exit code: 0, or 1 if any notification was not accepted.",
    )
    retrying.add_argument("notification_ids", metavar="ID", nargs="*", help="ids, or their first characters")
    retrying.add_argument("--failed", action="store_true", help="retry all failed notifications")
    retrying.add_argument("--dead", dest="failed", action="store_true", help=argparse.SUPPRESS)  # an older name
    retrying.add_argument("--receiver", metavar="NAME", help="with --failed: only notifications for this receiver")
    retrying.set_defaults(run=_retry)
    for action in (listing, showing, retrying):
        add_daemon_options(action)


def _list(args: argparse.Namespace) -> int:
    from watchdog.control import notification_handlers  # imported late: the help needs no alerts

    wanted = {"receiver": args.receiver, "state": args.state, "limit": args.limit}
    listed = _read(args, "notifications list", notification_handlers.list_notifications, wanted)
    if args.json:
        print(json.dumps(listed["lost" if args.lost else "notifications"], indent=2))
        return 0
    if args.lost:
        print(_losses_table(listed["lost"]) if listed["lost"] else "no lost notifications")
        return 0
    if listed["notifications"]:
        print(_table(listed["notifications"]))
    else:
        print("no notifications" + (" match" if args.receiver or args.state else " yet"), file=sys.stderr)
    if listed["lost"]:
        print("\n" + _losses_table(listed["lost"]))
    return 0


def _show(args: argparse.Namespace) -> int:
    from watchdog.control import notification_handlers  # imported late: the help needs no alerts

    wanted = {"notification_id": args.notification_id}
    detail = _read(args, "notifications show", notification_handlers.show_notification, wanted)
    if args.json:
        print(json.dumps(detail, indent=2))
    else:
        print_facts(_facts(detail), _NAME_WIDTH)
        for line in _lines(detail):
            print_wrapped("", line, 8)
    return 0


def _retry(args: argparse.Namespace) -> int:
    from watchdog.control import notification_handlers  # imported late: the help needs no alerts

    if bool(args.notification_ids) == args.failed:
        raise UsageError("give either ids or --failed")
    if args.receiver and not args.failed:
        raise UsageError("--receiver needs --failed")
    socket = daemon_socket(args)
    ids = _failed_ids(socket, args.receiver) if args.failed else args.notification_ids
    results = []
    for first in range(0, len(ids), notification_handlers.MAX_RETRIED):
        batch = ids[first : first + notification_handlers.MAX_RETRIED]
        results += send_request(socket, "notifications retry", notification_ids=batch)
    if args.json:
        print(json.dumps(results, indent=2))
    else:
        _print_results(results)
    return 0 if all(result["retried"] for result in results) else 1


def _failed_ids(socket: Path, receiver: str | None) -> list[str]:
    """Return the ids of failed notifications, oldest first."""
    from watchdog.control import notification_handlers  # imported late: the help needs no alerts

    limit = notification_handlers.MAX_LISTED
    listed = send_request(socket, "notifications list", receiver=receiver, state=FAILED, limit=limit)
    return [notification["notification_id"] for notification in reversed(listed["notifications"])]


def _print_results(results: Sequence[Mapping[str, Any]]) -> None:
    for result in results:
        outcome = "will be sent again" if result["retried"] else f"not sent again: {result['reason']}"
        print_wrapped("", f"{result['notification_id']}: {outcome}", 2)
    if not results:
        print("no failed notifications", file=sys.stderr)


def _read(args: argparse.Namespace, request: str, query: StateFileQuery, wanted: Mapping[str, Any]) -> Any:
    # The state file is read only where the user has named its folder: another daemon's file would mislead.
    try:
        return ask_daemon(args, request, **wanted)
    except DaemonUnreachable as error:
        if args.state_dir is None:
            remedy = f"start it, or read its state file with --state-dir {DEFAULT_STATE_FOLDER}"
            raise DaemonUnreachable(error.text, remedy=remedy) from None
        unreachable = error.text
    file = Path(args.state_dir, STATE_FILE_NAME)
    # Root must neither trust the content, which the daemon's account decides, nor leave files beside it.
    privileges.become_owner(file.parent)
    try:
        with file.open("rb"):
            pass
    except PermissionError as error:
        remedy = "run this command as root, or as the account of the daemon"
        raise NotPermitted(f"{unreachable}; this user may not read {file}", remedy=remedy) from error
    except OSError:  # the query reports it
        pass
    try:
        result = query(StateReader(file), wanted)
    except StoreError as error:
        raise DaemonUnreachable(f"{unreachable}; {error}") from None
    print(f"{unreachable}; read from {file}:", file=sys.stderr)
    return result


def _table(notifications: Sequence[Mapping[str, Any]]) -> str:
    # A narrow terminal shows the first columns.
    head = ("ID", "CREATED (UTC)", "RECEIVER", "STATE", "STATUS", "GROUP", "ALERTS", "ATTEMPTS", "RESULT")
    rows = [
        (
            notification["notification_id"][:_SHORT_ID],
            _time(notification["created_at"]),
            notification["receiver"],
            notification["state"],
            notification["status"],
            notification["group_key"],
            notification["alerts"],
            notification["attempts"],
            _result(notification),
        )
        for notification in notifications
    ]
    width = output_width()
    if width is None:
        return format_table(head, rows, _MAX_TEXT_CHARACTERS)
    return "\n".join(fitted_table(head, rows, width))


def _losses_table(lost: Sequence[Mapping[str, Any]]) -> str:
    rows = [(loss["receiver"], loss["cause"], loss["count"]) for loss in lost]
    return format_table(("RECEIVER", "CAUSE OF LOSS", "LOST"), rows, _MAX_TEXT_CHARACTERS)


def _result(notification: Mapping[str, Any]) -> str | None:
    return "ok" if notification["state"] == DELIVERED else notification["error"]


def _facts(detail: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    notification = detail["notification"]
    yield "notification", notification["notification_id"]
    yield "receiver", notification["receiver"]
    yield "group", notification["group_key"]
    yield "status", f"{notification['status']}: {notification['reason']}"
    yield "created", f"{_time(notification['created_at'])} UTC"
    ended = "" if notification["ended_at"] is None else f" since {_time(notification['ended_at'])} UTC"
    error = f": {notification['error']}" if notification["error"] else ""
    yield "state", f"{notification['state']}{ended}{error}"
    if detail["superseded_by"]:
        yield "superseded", f"by {detail['superseded_by']}; it cannot be sent again"


def _lines(detail: Mapping[str, Any]) -> Iterator[str]:
    notification, attempts = detail["notification"], detail["attempts"]
    yield ""
    yield "alerts:"
    for alert in detail["alerts"]:
        yield f"  {alert['state']:<8}  {alert['summary']}  ({alert['fingerprint']})"
    yield ""
    yield "attempts (UTC):" if attempts else "attempts: none"
    for attempt in attempts:
        yield f"  {attempt['number']:>4}  {_time(attempt['ended_at'])}  {attempt['result']}"
    unknown = notification["attempts"] - len({attempt["number"] for attempt in attempts if attempt["number"]})
    if unknown > 0:
        yield f"  {unknown} more: in progress, or without a recorded result"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
