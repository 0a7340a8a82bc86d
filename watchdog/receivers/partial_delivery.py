"""Partial delivery: the parts of a notification that a service has already accepted or refused.

A part is an event (PagerDuty) or a recipient (e-mail). When an attempt fails after some parts, the next attempt sends
only the others. This is kept in memory: after a restart all parts are sent again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from watchdog.errors import DeliveryError

_MAX_UNFINISHED: Final = 100  # the outbox does not report notifications that it gives up


@dataclass(slots=True)
class PartialDelivery:
    """The parts of one notification with a final result: accepted, or refused with an error that no retry can mend."""

    accepted: set[str] = field(default_factory=set)
    refused: dict[str, DeliveryError] = field(default_factory=dict)

    def remaining(self, parts: Iterable[str]) -> list[str]:
        """Return those of `parts` that have no result yet."""
        return [part for part in parts if part not in self.accepted and part not in self.refused]

    def record(self, parts: Sequence[str], errors: Mapping[str, DeliveryError]) -> None:
        """Record the results of one attempt with `parts`, of which those in `errors` failed.

        Raises:
            DeliveryError: the first retryable error; its part has no result yet.
        """
        failed = {part: errors[part] for part in parts if part in errors}
        self.accepted.update(part for part in parts if part not in errors)
        self.refused |= {part: error for part, error in failed.items() if not error.retryable}
        retryable = [error for error in failed.values() if error.retryable]
        if retryable:
            raise retryable[0]

    def raise_if_refused(self, part_count: int, noun: str) -> None:
        """Raise the first refusal, with the number of refused parts if there are several parts.

        Raises:
            DeliveryError: at least one part was refused; not retryable.
        """
        if self.refused:
            first = next(iter(self.refused.values()))
            count = f"{len(self.refused)} of {part_count} {noun} refused: " if part_count > 1 else ""
            raise DeliveryError(first.reason, f"{count}{first}", retryable=False)


class UnfinishedNotifications:
    """The partial deliveries of one receiver by notification id: the newest 100."""

    def __init__(self) -> None:
        """Start without any."""
        self._deliveries: OrderedDict[str, PartialDelivery] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of unfinished notifications."""
        return len(self._deliveries)

    def delivery_of(self, notification_id: str) -> PartialDelivery:
        """Return the partial delivery of a notification, a new one at the first attempt."""
        delivery = self._deliveries.setdefault(notification_id, PartialDelivery())
        if len(self._deliveries) > _MAX_UNFINISHED:
            self._deliveries.popitem(last=False)
        return delivery

    def finish(self, notification_id: str) -> None:
        """Forget a notification whose parts all have a result."""
        self._deliveries.pop(notification_id, None)
