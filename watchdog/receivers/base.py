"""Base class of all receivers. CONTRIBUTING.md lists the files that a new receiver needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self

from watchdog.alerts.alert import Alert
from watchdog.clock import SECOND_NS
from watchdog.config.document import Table
from watchdog.config.durations import parse_duration
from watchdog.receivers.render.fallback import fallback_notification
from watchdog.routing.notification import Notification
from watchdog.state.rate_limit import RateLimit


class ReceiverState(Protocol):
    """Values that a receiver needs again after a restart, such as the id of a message that it edits later."""

    def get(self, key: str) -> str | None:
        """Return the value stored under `key`, None if there is none.

        Raises:
            StoreError: the state file cannot be read.
        """
        ...

    def put(self, key: str, value: str | None) -> None:
        """Store `value` under `key`; None deletes the entry. The change is on disk when this returns.

        Raises:
            StoreError: the state file cannot be written.
        """
        ...


class VolatileReceiverState:
    """Receiver state that ends with the process."""

    def __init__(self) -> None:
        """Start empty."""
        self._values: dict[str, str] = {}

    def get(self, key: str) -> str | None:
        """Return the value stored under `key`, None if there is none."""
        return self._values.get(key)

    def put(self, key: str, value: str | None) -> None:
        """Store `value` under `key`; None deletes the entry."""
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value


@dataclass(frozen=True, slots=True)
class ReceiverOptions:
    """The settings that every type of receiver has.

    `rate_limit`: None for no limit. `timeout_seconds`: of one attempt, None for the default of the type. `state`:
    values that the receiver needs again after a restart. `suppress`: silences withhold notifications of this receiver;
    None for the default of the type. `send_resolved`: it gets resolved alerts.
    """

    rate_limit: RateLimit | None = None
    timeout_seconds: float | None = None
    state: ReceiverState = field(default_factory=VolatileReceiverState)
    suppress: bool | None = None
    send_resolved: bool = True


class ReceiverSource(Protocol):
    """The files with secrets and certificates that a receiver was built from."""

    def has_changed(self) -> bool:
        """Return whether one of the files was replaced or written since the receiver was built."""
        ...

    def build(self) -> Receiver:
        """Return a new receiver with the present content of the files.

        Raises:
            ConfigError: a file cannot be used now.
        """
        ...


OpenReceiverState = Callable[[str], ReceiverState]
"""Returns the state of the receiver with a given name."""


def open_volatile_state(_receiver: str) -> ReceiverState:
    """Return an empty state that ends with the process."""
    return VolatileReceiverState()


class Receiver(ABC):
    """Delivers notifications to one destination. An instance is used by one worker thread at a time."""

    type: ClassVar[str]
    refresh_interval_seconds: ClassVar[float | None] = None
    """Interval of the calls of `refresh` while alerts fire of which the receiver was notified; None: no refresh."""

    default_rate_limit: ClassVar[str] = "30/h"
    """The rate limit without the key `rate_limit`: this one suits people; receivers read by programs have "none"."""

    default_timeout: ClassVar[str] = "10s"
    """The duration of one attempt at most, without the key `timeout`."""

    default_suppress: ClassVar[bool] = True
    """Whether silences apply, without the key `suppress`: a service with silences of its own gets every alert."""

    source: ReceiverSource | None = None
    """Builds the receiver again when one of its files has changed; None: it needs no file."""

    joins_copies: bool = False
    """Whether the service recognises a copy: then a notification is repeated soon, although it may have arrived."""

    def __init__(self, name: str, options: ReceiverOptions | None = None) -> None:
        """Store the name that rules and routes use, the rate limit and the receiver state.

        Without `options` there is no rate limit, and the state ends with the process.
        """
        options = options or ReceiverOptions()
        self.name = name
        self.rate_limit = options.rate_limit
        self.timeout_seconds = options.timeout_seconds or parse_duration(self.default_timeout) / SECOND_NS
        self.state = options.state
        self.send_resolved = options.send_resolved
        self.suppress = self.default_suppress if options.suppress is None else options.suppress

    @classmethod
    @abstractmethod
    def from_table(cls, name: str, table: Table, options: ReceiverOptions | None = None) -> Self:
        """Build a receiver from its `[[receiver]]` table.

        Secrets are read now. Problems are added to the table.
        """

    @abstractmethod
    def render(self, notification: Notification) -> bytes:
        """Return the bytes that `send` sends, several messages separated by newlines."""

    @abstractmethod
    def send(self, notification: Notification, deadline_seconds: float) -> None:
        """Deliver `notification`; return only after the service has confirmed it, if its protocol has a confirmation.

        Raises:
            DeliveryError: with a reason, and with `retryable` if another attempt can help; after `deadline_seconds` at
                the latest. After reason `render`, the worker calls `send_fallback` at once.
        """

    def send_fallback(self, notification: Notification, error: str, deadline_seconds: float) -> None:
        """Deliver a minimal form of `notification` after `render` failed with `error`, which contains no secrets.

        A receiver with a user's template does not use it here.

        Raises:
            DeliveryError: as in `send`.
        """
        self.send(fallback_notification(notification, error), deadline_seconds)

    @abstractmethod
    def destination(self) -> str:
        """Return the destination for people, without secrets: "webhook alerts.example.net", "syslog unix:///dev/log"."""

    def limit_usage(self, notification: Notification) -> list[str]:
        """Return the size of each rendered message and the limit of the service: "812 of 2,048 octets"."""
        return [f"{len(self.render(notification)):,} bytes"]

    def refresh(self, alerts: Sequence[Alert], host: str, deadline_seconds: float) -> None:  # noqa: B027 - few need it
        """Send firing `alerts` again, for services that forget alerts which are not repeated.

        Raises:
            DeliveryError: as in `send`; the error is counted, and the next refresh sends them again.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Close sockets and end threads."""
