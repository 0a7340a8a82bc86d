"""A notification: one message for one receiver, kept in the outbox until the receiver has confirmed it."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self

from watchdog.alerts.alert import Alert
from watchdog.alerts.boottimes import wall_time
from watchdog.clock import Now
from watchdog.errors import document_errors
from watchdog.rules.language.rule import Labels

DIGEST_GROUP_KEY: Final = "(digest)"  # a digest has several groups


class NotificationReason(enum.StrEnum):
    """The cause of one notification; the value is both its name in JSON and its words for people."""

    FIRST = "first notification"
    NEW_ALERT = "new alert in group"
    SEVERITY_CHANGED = "severity changed"
    RESOLVED = "resolved"
    RELEASED = "no longer suppressed"  # a silence has ended while the alert fires
    REPEAT = "repeat"
    ESCALATED = "escalated"
    DIGEST = "digest"  # of several groups
    REFRESH = "refresh"  # firing alerts sent again to a receiver that forgets them; never in the outbox
    TEST = "test"


def describe_reason(reason: str, detail: str) -> str:
    """Return a reason in words: "escalated: oncall does not answer since 2026-11-23 02:13:05 UTC"."""
    return f"{reason}: {detail}" if detail else str(reason)


@dataclass(frozen=True, slots=True)
class Notification:
    """One message for one receiver about one group of alerts.

    `id`: the notification_id, the same in every attempt and across restarts. `group_key`: the rule's id, or the
    `group_labels` in braces, or `DIGEST_GROUP_KEY`. `alerts`: at least one; every alert of the group that fires, and
    those that have resolved since its previous notification. `created`: wall-clock seconds. `group_labels`: the labels
    that the alerts share by their grouping, None: grouped by rule. `reason_detail`: words on the reason, mostly "".
    `created_ns`: CLOCK_BOOTTIME of the boot `boot_id`, to which the `boottimes` of the alerts belong; None: not known.
    """

    id: str
    receiver: str
    group_key: str
    reason: NotificationReason
    alerts: tuple[Alert, ...]
    created: float
    host: str
    is_test: bool = False
    group_labels: Labels | None = None
    reason_detail: str = ""
    created_ns: int | None = None
    boot_id: str = ""

    @property
    def status(self) -> str:
        """Return "firing" if any alert of the notification fires, else "resolved"."""
        return "firing" if any(alert.resolved is None for alert in self.alerts) else "resolved"

    @property
    def reason_text(self) -> str:
        """Return `reason` with its detail, in words for people."""
        return describe_reason(self.reason, self.reason_detail)

    def shown_at(self, present: Now, present_boot_id: str) -> Self:
        """Return the notification with all times by the wall clock at `present`, which may have stepped since it fired.

        One of a former boot has the times of the clock at its creation.
        """
        if self.created_ns is None:
            return replace(self, alerts=tuple(alert.shown_at(None) for alert in self.alerts))
        if self.boot_id != present_boot_id:
            present = Now(self.created_ns, self.created)
        created = wall_time(self.created_ns, self.created, present)
        return replace(self, created=created, alerts=tuple(alert.shown_at(present) for alert in self.alerts))

    def without_boottimes(self) -> Self:
        """Return the notification with the times of its creation alone, to be combined with one of another boot."""
        shown = self.shown_at(Now(0, 0.0), "")
        return replace(
            shown, created_ns=None, boot_id="", alerts=tuple(replace(one, boottimes=None) for one in shown.alerts)
        )

    def to_json(self) -> dict[str, Any]:
        """Return a document for `json` and `from_json`; bytes that are not UTF-8 stay surrogate-escaped.

        Fields with their default value are left out: thousands of notifications wait in a file of bounded size.
        """
        document = {name: getattr(self, name) for name in self.__slots__}
        optional = {field.name for field in fields(self) if document[field.name] == field.default}
        kept = {name: value for name, value in document.items() if name not in optional}
        return {**kept, "alerts": [alert.to_json() for alert in self.alerts]}

    @classmethod
    def from_json_text(cls, text: str) -> Self:
        """Return the notification in the JSON text `text`.

        Raises:
            DocumentError: not JSON, or as `from_json`.
        """
        with document_errors():
            return cls.from_json(json.loads(text))

    @classmethod
    @document_errors()
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the notification that `to_json` wrote.

        Raises:
            DocumentError: `document` does not have the form of `to_json`.
        """
        group_labels = document.get("group_labels")
        return cls(
            **{
                **document,
                "reason": NotificationReason(document["reason"]),
                "alerts": tuple(Alert.from_json(alert) for alert in document["alerts"]),
                "group_labels": None if group_labels is None else tuple((name, value) for name, value in group_labels),
            }
        )
