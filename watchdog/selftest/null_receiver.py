"""A receiver that accepts every notification and sends nothing."""

from __future__ import annotations

from typing import ClassVar, Self

from watchdog.config.document import Table
from watchdog.receivers.base import Receiver, ReceiverOptions
from watchdog.routing.notification import Notification


class NullReceiver(Receiver):
    """Keeps the ids of the notifications that it gets."""

    type: ClassVar[str] = "null"

    def __init__(self, name: str) -> None:
        """Start without ids."""
        super().__init__(name)
        self.notification_ids: list[str] = []

    @classmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:  # noqa: ARG003 - no settings
        """Return a receiver called `name`."""
        return cls(name)

    def render(self, notification: Notification) -> bytes:
        """Return the id."""
        return notification.id.encode()

    def send(self, notification: Notification, deadline_seconds: float) -> None:  # noqa: ARG002 - it takes no time
        """Keep the id."""
        self.notification_ids.append(notification.id)

    def destination(self) -> str:
        """Return a text for the log."""
        return "nowhere"
