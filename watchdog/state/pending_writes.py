"""Changes that are not written yet: those of one tick, and those of earlier ticks whose commit failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from watchdog.routing.group import ReceiverGroupKey
from watchdog.routing.notification import Notification
from watchdog.state.documents import AlertKind, GroupKind, JsonDocument, dump_document
from watchdog.state.outbox import merge_notifications

_MAX_NOTIFICATIONS = 1_000


@dataclass(frozen=True, slots=True)
class OutageChanges:
    """Changed documents about receivers that are down; None: to be deleted.

    `alerts`: the alerts about such receivers, by fingerprint. `groups`: the notification groups of escalation targets.
    `progress`: the alerts that each escalation target took over, by its name.
    """

    alerts: Sequence[tuple[str, JsonDocument | None]] = ()
    groups: Sequence[tuple[ReceiverGroupKey, JsonDocument | None]] = ()
    progress: Sequence[tuple[str, JsonDocument | None]] = ()


class PendingWrites:
    """The newest text of each row, by its key (None: to be deleted), and notifications by id, in order of creation."""

    def __init__(self) -> None:
        """Start empty."""
        self.alerts: dict[tuple[AlertKind, str], str | None] = {}
        self.groups: dict[tuple[GroupKind, str, str], str | None] = {}
        self.notifications: dict[str, Notification] = {}
        self.rule_memories: dict[tuple[str, str], bytes | None] = {}

    def __bool__(self) -> bool:
        """Return whether there is anything to write."""
        return bool(self.alerts or self.groups or self.notifications or self.rule_memories)

    def add(
        self,
        alerts: Iterable[tuple[str, JsonDocument | None]],
        groups: Iterable[tuple[ReceiverGroupKey, JsonDocument | None]],
        notifications: Iterable[Notification],
        outages: OutageChanges,
    ) -> None:
        """Add the changes of a tick."""
        self.notifications.update((notification.id, notification) for notification in notifications)
        for alert_kind, changed_alerts in ((AlertKind.RULE, alerts), (AlertKind.RECEIVER_DOWN, outages.alerts)):
            for fingerprint, document in changed_alerts:
                self.alerts[alert_kind, fingerprint] = _text(document)
        for group_kind, changed_groups in ((GroupKind.ROUTED, groups), (GroupKind.ESCALATION, outages.groups)):
            for key, document in changed_groups:
                self.groups[group_kind, *key] = _text(document)
        for receiver, document in outages.progress:
            self.groups[GroupKind.ESCALATION_PROGRESS, receiver, ""] = _text(document)

    def size_bytes(self) -> int:
        """Return the approximate size of everything to be written, in bytes."""
        texts = [*self.alerts.values(), *self.groups.values()]
        memories = sum(len(content) for content in self.rule_memories.values() if content is not None)
        bodies = (len(dump_document(notification.to_json())) for notification in self.notifications.values())
        return sum(len(text) for text in texts if text is not None) + sum(bodies) + memories

    def merge_groups(self) -> None:
        """Merge the notifications of each group when there are many: a disk may be full for days.

        The merged one gets the id of the newest. A commit can be on disk although it was reported as failed: then the
        older ones are there under their own ids, and all of them again under the newest.
        """
        if len(self.notifications) <= _MAX_NOTIFICATIONS:
            return
        merged = [
            replace(merge_notifications(notifications), id=notifications[-1].id)
            for notifications in _mergeable(self.notifications.values())
        ]
        self.notifications = {notification.id: notification for notification in merged}

    def clear(self) -> None:
        """Forget everything: it is written."""
        self.alerts.clear()
        self.groups.clear()
        self.notifications.clear()
        self.rule_memories.clear()


def _text(document: JsonDocument | None) -> str | None:
    return None if document is None else dump_document(document)


def _mergeable(notifications: Iterable[Notification]) -> list[list[Notification]]:
    # Runs of one group, each until another group of the receiver has a notification with the same alerts.
    runs: list[list[Notification]] = []
    newest: dict[ReceiverGroupKey, list[Notification]] = {}
    run_of_alert: dict[tuple[str, str], list[Notification]] = {}  # by receiver and fingerprint
    for notification in notifications:
        keys = [(notification.receiver, alert.fingerprint) for alert in notification.alerts]
        run = newest.get((notification.receiver, notification.group_key))
        if run is None or any(run_of_alert.get(key, run) is not run for key in keys):
            run = newest[notification.receiver, notification.group_key] = []
            runs.append(run)
        run.append(notification)
        run_of_alert.update((key, run) for key in keys)
    return runs
