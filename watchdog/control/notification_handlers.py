"""What the daemon answers on its audit trail: `notifications list`, `show` and `retry`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from watchdog.clock import Clock
from watchdog.control.arguments import Arguments
from watchdog.control.server import Handler
from watchdog.errors import UsageError, WatchdogError
from watchdog.state import audit
from watchdog.storage.database import Database
from watchdog.storage.reader import Readable, Reader

MOST_LISTED = 10_000
MOST_RETRIED = 50
"""In one request: each is a transaction of its own, between which the daemon's own get their turn."""


def handlers(database: Database, clock: Clock) -> dict[str, Handler]:
    """Return what answers requests on the notices in `database`, by the request's name.

    What only reads does so through a connection of its own, which holds up no transaction of the daemon.
    """
    reader = Reader(database.path)
    return {
        "notifications list": lambda given: list_notices(reader, given),
        "notifications show": lambda given: show(reader, given),
        "notifications retry": lambda given: _retry(database, given, clock),
    }


def list_notices(database: Readable, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the newest notices, newest first.

    Raises:
        UsageError: arguments that make no sense.
        StoreError: the file can't be read.
    """
    arguments = Arguments(given)
    receiver = arguments.text("receiver")
    state = arguments.text("state", choices=audit.STATES)
    limit = arguments.whole_number("limit", 50, most=MOST_LISTED)
    arguments.finish()
    return [asdict(notice) for notice in audit.list_notices(database, receiver=receiver, state=state, limit=limit)]


def show(database: Readable, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that is known of one notice, given by its id or how that begins.

    Raises:
        UsageError: arguments that make no sense, or a beginning of several ids.
        WatchdogError: there is no such notice.
        StoreError: the file can't be read.
    """
    arguments = Arguments(given)
    wanted = arguments.text("id")
    arguments.finish()
    if not wanted:
        raise UsageError("which notice? give its id")
    ids = audit.ids_beginning(database, wanted)
    if len(ids) > 1:
        raise UsageError(f"several notices have an id that begins with {wanted}: give more of it")
    detail = audit.show(database, ids[0]) if ids else None
    if detail is None:
        raise WatchdogError(f"no notice {wanted}: it never was, or ended too long ago to be kept")
    return asdict(detail)


def _retry(database: Database, given: Mapping[str, Any], clock: Clock) -> list[dict[str, Any]]:
    arguments = Arguments(given)
    wanted = arguments.texts("ids", most=MOST_RETRIED)
    arguments.finish()
    return [_retried(database, notice, clock) for notice in wanted]


def _retried(database: Database, wanted: str, clock: Clock) -> dict[str, Any]:
    ids = audit.ids_beginning(database, wanted)
    if len(ids) > 1:
        return {"id": wanted, "retried": False, "reason": "several notices have an id that begins so"}
    notice = ids[0] if ids else wanted
    if audit.retry(database, notice, clock):
        return {"id": notice, "retried": True, "reason": None}
    return {"id": notice, "retried": False, "reason": _why_not(database, notice)}


def _why_not(database: Database, notice: str) -> str:
    detail = audit.show(database, notice)
    if detail is None:
        return "there is no such notice"
    if detail.notice.state != "dead":
        return f"it is {detail.notice.state}, and only what is dead is sent again"
    return f"it is overtaken by {detail.overtaken_by}, which was delivered since: its news are old"
