"""What the daemon answers on its audit trail: `notifications list`, `show` and `retry`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from watchdog.clock import Clock
from watchdog.control.arguments import RequestArguments
from watchdog.control.server import RequestHandler
from watchdog.errors import UsageError, WatchdogError
from watchdog.state import audit
from watchdog.storage.database import Database
from watchdog.storage.reader import ReadableDatabase, StateReader

MAX_LISTED = 10_000
MAX_RETRIED = 50
"""In one request: each is a transaction of its own, between which the daemon's own get their turn."""


def notification_handlers(database: Database, clock: Clock) -> dict[str, RequestHandler]:
    """Return what answers requests on the notices in `database`, by the request's name.

    What only reads does so through a connection of its own, which holds up no transaction of the daemon.
    """
    reader = StateReader(database.path)
    return {
        "notifications list": lambda given: list_notifications(reader, given),
        "notifications show": lambda given: show_notification(reader, given),
        "notifications retry": lambda given: _retry(database, given, clock),
    }


def list_notifications(database: ReadableDatabase, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the newest notices, newest first.

    Raises:
        UsageError: arguments that make no sense.
        StoreError: the file can't be read.
    """
    arguments = RequestArguments(given)
    receiver = arguments.text("receiver")
    state = arguments.text("state", choices=audit.DELIVERY_STATES)
    limit = arguments.integer("limit", 50, maximum=MAX_LISTED)
    arguments.reject_unknown_arguments()
    return [
        asdict(notification)
        for notification in audit.list_notifications(database, receiver=receiver, state=state, limit=limit)
    ]


def show_notification(database: ReadableDatabase, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that is known of one notice, given by its id or how that begins.

    Raises:
        UsageError: arguments that make no sense, or a beginning of several ids.
        WatchdogError: there is no such notice.
        StoreError: the file can't be read.
    """
    arguments = RequestArguments(given)
    wanted = arguments.text("id")
    arguments.reject_unknown_arguments()
    if not wanted:
        raise UsageError("which notice? give its id")
    ids = audit.find_ids(database, wanted)
    if len(ids) > 1:
        raise UsageError(f"several notices have an id that begins with {wanted}: give more of it")
    detail = audit.read_notification(database, ids[0]) if ids else None
    if detail is None:
        raise WatchdogError(f"no notice {wanted}: it never was, or ended too long ago to be kept")
    return asdict(detail)


def _retry(database: Database, given: Mapping[str, Any], clock: Clock) -> list[dict[str, Any]]:
    arguments = RequestArguments(given)
    wanted = arguments.texts("ids", max_count=MAX_RETRIED)
    arguments.reject_unknown_arguments()
    return [_retried(database, notification, clock) for notification in wanted]


def _retried(database: Database, wanted: str, clock: Clock) -> dict[str, Any]:
    ids = audit.find_ids(database, wanted)
    if len(ids) > 1:
        return {"id": wanted, "retried": False, "reason": "several notices have an id that begins so"}
    notification = ids[0] if ids else wanted
    if audit.retry_failed(database, notification, clock):
        return {"id": notification, "retried": True, "reason": None}
    return {"id": notification, "retried": False, "reason": _why_not(database, notification)}


def _why_not(database: Database, notification: str) -> str:
    detail = audit.read_notification(database, notification)
    if detail is None:
        return "there is no such notice"
    if detail.notification.state != "dead":
        return f"it is {detail.notification.state}, and only what is dead is sent again"
    return f"it is overtaken by {detail.superseded_by}, which was delivered since: its news are old"
