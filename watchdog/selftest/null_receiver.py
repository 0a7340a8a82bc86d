"""A receiver in this process, which has whatever it is sent."""

from __future__ import annotations

from typing import ClassVar, Self

from watchdog.config.document import Table
from watchdog.receivers.base import Receiver
from watchdog.routing.notification import Notice


class Ear(Receiver):
    """Keeps the ids of what it is sent."""

    type: ClassVar[str] = "ear"

    def __init__(self, name: str) -> None:
        """Start with none."""
        super().__init__(name)
        self.ids: list[str] = []

    @classmethod
    def from_table(cls, name: str, table: Table) -> Self:  # noqa: ARG003 - it has no settings
        """Make one."""
        return cls(name)

    def render(self, notice: Notice) -> bytes:
        """Return the id."""
        return notice.id.encode()

    def send(self, notice: Notice, deadline_seconds: float) -> None:  # noqa: ARG002 - it takes no time
        """Keep the id."""
        self.ids.append(notice.id)

    def destination(self) -> str:
        """Say that it goes nowhere."""
        return "nowhere"
