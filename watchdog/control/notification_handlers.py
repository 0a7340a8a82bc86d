"""Control socket requests on notifications: `notifications list`, `show` and `retry`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import Any

from watchdog.clock import Clock
from watchdog.config import suggestions
from watchdog.control.arguments import RequestArguments
from watchdog.control.server import Handler, RequestHandler
from watchdog.errors import UsageError, WatchdogError
from watchdog.state import audit, losses
from watchdog.state.delivery_states import DELIVERY_STATES, FAILED
from watchdog.storage.database import Database
from watchdog.storage.reader import ReadableDatabase, StateReader

MAX_LISTED = 10_000
MAX_RETRIED = 50
"""Notifications in one request. Each one is a transaction of its own, so that the daemon's transactions get a turn."""


def notification_handlers(
    database: Database, clock: Clock, configured_receivers: Callable[[], Collection[str]]
) -> dict[str, RequestHandler | Handler]:
    """Return the handlers of requests on the notifications in `database`, by the request's name.

    `configured_receivers`: returns the names of the receivers in force.

    Handlers that only read use a connection of their own, which delays no transaction of the daemon.
    """
    reader = StateReader(database.path)
    return {
        "notifications list": Handler(
            lambda given: list_notifications(reader, given, configured_receivers()), in_background=True
        ),
        "notifications show": Handler(lambda given: show_notification(reader, given), in_background=True),
        "notifications retry": Handler(lambda given: _retry(database, given, clock), changes=True, in_background=True),
    }


def list_notifications(
    database: ReadableDatabase, given: Mapping[str, Any], configured_receivers: Collection[str] = ()
) -> dict[str, Any]:
    """Return the newest `notifications`, newest first, and under `lost` the number of lost ones by receiver and cause.

    `configured_receivers`: names without a notification that may be asked for; empty where no daemon answers.

    Raises:
        UsageError: an argument is unknown or out of range, or there is no such receiver.
        StoreError: the state file cannot be read.
    """
    arguments = RequestArguments(given)
    receiver = arguments.text("receiver")
    state = arguments.text("state", choices=DELIVERY_STATES)
    limit = arguments.integer("limit", 50, maximum=MAX_LISTED)
    arguments.reject_unknown_arguments()
    if receiver is not None and receiver not in configured_receivers:
        known = {*configured_receivers, *audit.known_receivers(database)}
        if receiver not in known:
            raise UsageError(suggestions.unknown_name("receiver", receiver, known))
    records = audit.list_notifications(database, receiver=receiver, state=state, limit=limit)
    return {"notifications": [asdict(record) for record in records], "lost": _read_losses(database, receiver)}


def _read_losses(database: ReadableDatabase, receiver: str | None) -> list[dict[str, Any]]:
    with database.transaction() as connection:
        counts = losses.read_losses(connection)
    return [
        {"receiver": name, "cause": cause.value, "count": count}
        for (name, cause), count in counts.items()
        if receiver in (None, name)
    ]


def show_notification(database: ReadableDatabase, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return one notification with its alerts and attempts, given by its id or the first characters of it.

    Raises:
        UsageError: an argument is missing or unknown, or several ids begin with these characters.
        WatchdogError: there is no such notification.
        StoreError: the state file cannot be read.
    """
    arguments = RequestArguments(given)
    wanted = arguments.text("notification_id")
    arguments.reject_unknown_arguments()
    if not wanted:
        raise UsageError("notification_id is missing")
    ids = audit.find_ids(database, wanted)
    if len(ids) > 1:
        raise UsageError(f"several notifications have an id that begins with {wanted}", remedy="give more characters")
    detail = audit.read_notification(database, ids[0]) if ids else None
    if detail is None:
        raise WatchdogError(
            f"no notification {wanted}: it never existed, or its history has been deleted",
            remedy="see bpf-watchdog notifications list",
        )
    return asdict(detail)


def _retry(database: Database, given: Mapping[str, Any], clock: Clock) -> list[dict[str, Any]]:
    arguments = RequestArguments(given)
    wanted = arguments.texts("notification_ids", max_count=MAX_RETRIED)
    arguments.reject_unknown_arguments()
    return [_retry_one(database, prefix, clock) for prefix in wanted]


def _retry_one(database: Database, prefix: str, clock: Clock) -> dict[str, Any]:
    ids = audit.find_ids(database, prefix)
    if len(ids) > 1:
        return _retry_result(prefix, "several notifications have an id that begins with these characters")
    notification_id = ids[0] if ids else prefix
    if audit.retry_failed(database, notification_id, clock):
        return _retry_result(notification_id, None)
    return _retry_result(notification_id, _reason_not_retried(database, notification_id))


def _retry_result(notification_id: str, reason: str | None) -> dict[str, Any]:
    return {"notification_id": notification_id, "retried": reason is None, "reason": reason}


def _reason_not_retried(database: Database, notification_id: str) -> str:
    detail = audit.read_notification(database, notification_id)
    if detail is None:
        return "there is no such notification: see bpf-watchdog notifications list"
    state = detail.notification.state
    if state != FAILED:
        return f"it is {state}, and only {FAILED} notifications can be sent again"
    if detail.superseded_by is None:
        return "its content has been discarded"
    return f"it is superseded by {detail.superseded_by}, which was delivered later"
