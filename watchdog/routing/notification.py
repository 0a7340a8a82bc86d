"""A notice: what one receiver is to be told, kept in the outbox until the receiver has said that it has it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from watchdog.alerts.alert import Alert
from watchdog.errors import document_errors
from watchdog.rules.language.rule import Labels

DIGEST_GROUP_KEY: Final = "(digest)"  # in place of a group


@dataclass(frozen=True, slots=True)
class Notification:
    """News for one receiver about one group of alerts.

    `id` is the notification_id: the same in every attempt, across restarts. `group` is the group's key: the rule's id,
    or what `by` says in braces, or `DIGEST_GROUP_KEY`. `reason` says why it is sent: "first notification", "new alert
    in group",
    "severity changed", "resolved", "repeat", "digest" (of several groups), "test".
    `alerts` holds every alert of the group that fires, and those that resolved since the last notice; at least one.
    `created`: wall-clock seconds. `by`: what the alerts have in common by their grouping; None: the rule.
    """

    id: str
    receiver: str
    group_key: str
    reason: str
    alerts: tuple[Alert, ...]
    created: float
    host: str
    is_test: bool = False
    group_labels: Labels | None = None

    @property
    def status(self) -> str:
        """Return "firing" while any alert of the notice fires, else "resolved"."""
        return "firing" if any(alert.resolved is None for alert in self.alerts) else "resolved"

    def to_json(self) -> dict[str, Any]:
        """Return what `json` can write and `from_json` reads; bytes that are no UTF-8 stay surrogate-escaped."""
        document = {name: getattr(self, name) for name in self.__slots__}
        return {**document, "alerts": [alert.to_json() for alert in self.alerts]}

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
            DocumentError: `document` is not what `to_json` writes.
        """
        group_labels = document.get("group_labels")
        return cls(
            **{
                **document,
                "alerts": tuple(Alert.from_json(alert) for alert in document["alerts"]),
                "group_labels": None if group_labels is None else tuple((name, value) for name, value in group_labels),
            }
        )
