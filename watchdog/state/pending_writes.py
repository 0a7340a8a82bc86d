"""What is not written yet: one tick's changes, and those of ticks before it whose commit failed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from watchdog.routing.group import ReceiverGroupKey
from watchdog.routing.notification import Notification
from watchdog.state.outbox import merge_notifications

JsonDocument = dict[str, Any]  # JSON-able

_MOST_NOTICES = 1_000


class PendingWrites:
    """By key, as JSON (None: delete), the newest state of each; and notices by id, in the order of their making."""

    def __init__(self) -> None:
        """Start empty."""
        self.alerts: dict[str, str | None] = {}
        self.groups: dict[ReceiverGroupKey, str | None] = {}
        self.notifications: dict[str, Notification] = {}

    def __bool__(self) -> bool:
        """Tell whether there is anything to write."""
        return bool(self.alerts or self.groups or self.notifications)

    def add(
        self,
        alerts: Iterable[tuple[str, JsonDocument | None]],
        groups: Iterable[tuple[ReceiverGroupKey, JsonDocument | None]],
        notifications: Iterable[Notification],
    ) -> None:
        """Take in what a tick changed."""
        self.notifications.update((notification.id, notification) for notification in notifications)
        self.alerts.update((key, dump_document(state)) for key, state in alerts)
        self.groups.update((key, dump_document(state)) for key, state in groups)

    def size_bytes(self) -> int:
        """Return about how much there is to write."""
        states = [*self.alerts.values(), *self.groups.values()]
        notifications = (
            len(dump_document(notification.to_json()) or "") for notification in self.notifications.values()
        )
        return sum(len(state) for state in states if state is not None) + sum(notifications)

    def merge_groups(self) -> None:
        """Make one notice of those of each group, when there are many: a disk may be full for days.

        It gets the id of the newest. A commit can be on disk although it was reported as failed: then the older ones
        are there under ids of their own, and with the newest id all of them.
        """
        if len(self.notifications) <= _MOST_NOTICES:
            return
        merged = [
            replace(merge_notifications(notifications), id=notifications[-1].id)
            for notifications in _mergeable(self.notifications.values())
        ]
        self.notifications = {notification.id: notification for notification in merged}

    def clear(self) -> None:
        """Forget what is written now."""
        self.alerts.clear()
        self.groups.clear()
        self.notifications.clear()


def _mergeable(notifications: Iterable[Notification]) -> list[list[Notification]]:
    # Notices of one group, until another group of the receiver has told of the same alerts in between.
    runs: list[list[Notification]] = []
    newest: dict[ReceiverGroupKey, list[Notification]] = {}
    telling: dict[tuple[str, str], list[Notification]] = {}  # by receiver and fingerprint
    for notification in notifications:
        told = [(notification.receiver, alert.fingerprint) for alert in notification.alerts]
        run = newest.get((notification.receiver, notification.group_key))
        if run is None or any(telling.get(key, run) is not run for key in told):
            run = newest[notification.receiver, notification.group_key] = []
            runs.append(run)
        run.append(notification)
        telling.update((key, run) for key in told)
    return runs


def dump_document(state: JsonDocument | None) -> str | None:
    """Return `state` as the file holds it. ASCII: names that are no UTF-8 (surrogate-escaped) stay as they are."""
    return None if state is None else json.dumps(state, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
