"""The base of everything that delivers notices. Adding a receiver is one module beside this one, and its test."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

from watchdog.alerts.notice import Notice
from watchdog.document import Table


class Receiver(ABC):
    """Delivers notices to one place. Instances are used by one worker thread at a time."""

    type: ClassVar[str]

    def __init__(self, name: str) -> None:
        """Keep the name that rules and routing use."""
        self.name = name

    @classmethod
    @abstractmethod
    def from_table(cls, name: str, table: Table) -> Self:
        """Make one from its `[[receiver]]` table; problems are noted in the table, secrets read now."""

    @abstractmethod
    def render(self, notice: Notice) -> bytes:
        """Return the bytes that `send` would send (for several messages: one after the other, a newline between)."""

    @abstractmethod
    def send(self, notice: Notice, deadline_seconds: float) -> None:
        """Deliver, or raise.

        Return only when the receiver has said that it has the notice (where its protocol has a way of saying so).

        Raises:
            DeliveryError: with reason and whether trying again can help; after `deadline_seconds` at the latest.
        """

    @abstractmethod
    def destination(self) -> str:
        """Say where notices go, for people, without secrets: "webhook alerts.example.net", "syslog unix:///dev/log"."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Give back sockets."""
