"""The digest: one notification in place of many, when a rate limit allows only one more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from watchdog.routing.notification import DIGEST_GROUP_KEY, Notification, NotificationReason
from watchdog.state.outbox import merge_notifications


def make_digest(notifications: Sequence[Notification]) -> Notification:
    """Return one notification for `notifications` of any groups, oldest first; the worst alerts first, resolved last.

    It keeps the id of the oldest. If all are of one group, the result belongs to that group and is no digest.
    """
    merged = merge_notifications(notifications)
    if len({notification.group_key for notification in notifications}) == 1:
        return merged
    alerts = sorted(merged.alerts, key=lambda one: (one.resolved is not None, -one.severity, one.fired, one.rule))
    return replace(
        merged,
        group_key=DIGEST_GROUP_KEY,
        group_labels=(),
        reason=NotificationReason.DIGEST,
        reason_detail="",
        alerts=tuple(alerts),
    )
