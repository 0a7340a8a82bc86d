"""Checks of rows that are salvaged from a damaged state file: the part that knows their content."""

from __future__ import annotations

from sqlite3 import Connection

from watchdog.errors import DocumentError
from watchdog.routing.notification import Notification
from watchdog.state import losses
from watchdog.state.losses import LossCause
from watchdog.storage.salvage import SalvageChecks
from watchdog.storage.version_5 import TableRow


def is_readable(table: str, row: TableRow) -> bool:
    """Return whether `row`, whose checksum is right, has content that the daemon can use.

    A notification must be the one that its columns name.
    """
    if table != "notifications":
        return True
    try:
        notification = Notification.from_json_text(row["body"])
    except DocumentError:
        return False
    return (notification.id, notification.receiver, notification.group_key) == (
        row.get("id"),
        row.get("receiver"),
        row.get("group_key"),
    )


def count_loss(target: Connection, row: TableRow) -> None:
    """Count the unreadable pending notification `row` as lost, in the new file `target`."""
    losses.count_loss(target, str(row.get("receiver", "")), LossCause.DAMAGED)


SALVAGE_CHECKS = SalvageChecks(is_readable, count_loss)
