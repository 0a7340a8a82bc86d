"""Partial delivery: the parts of a notification that a service has already accepted or refused.

A part is an event (PagerDuty), a recipient (e-mail) or a service (Apprise). When an attempt fails after some parts, the
next attempt sends only the others, also after a restart. The receiver state holds digests of the parts, since the state
file contains no addresses.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from watchdog.errors import (
    DeliveryError,
    DeliveryErrorReason,
    DocumentError,
    PartialDeliveryError,
    StoreError,
    document_errors,
)

_MAX_UNFINISHED: Final = 100  # the outbox does not report notifications that it gives up


class PartStore(Protocol):
    """The values of a receiver that survive a restart: `ReceiverState`."""

    def get(self, key: str) -> str | None:
        """Return the value stored under `key`, None if there is none."""
        ...

    def put(self, key: str, value: str | None) -> None:
        """Store `value` under `key`; None deletes the entry."""
        ...


@dataclass(slots=True)
class PartialDelivery:
    """The parts of one notification with a final result: accepted, or refused with an error that no retry can mend.

    Both hold digests. `is_saved`: the receiver state has an entry of this notification.
    """

    accepted: set[str] = field(default_factory=set)
    refused: dict[str, DeliveryError] = field(default_factory=dict)
    is_saved: bool = False

    def remaining(self, parts: Iterable[str]) -> list[str]:
        """Return those of `parts` that have no result yet."""
        return [part for part in parts if _digest(part) not in self.accepted and _digest(part) not in self.refused]

    def record(self, parts: Sequence[str], errors: Mapping[str, DeliveryError]) -> DeliveryError | None:
        """Record the results of one attempt with `parts`, of which those in `errors` failed.

        Return the first retryable error, whose part has no result yet; None without one.
        """
        failed = {part: errors[part] for part in parts if part in errors}
        self.accepted.update(_digest(part) for part in parts if part not in errors)
        self.refused |= {_digest(part): error for part, error in failed.items() if not error.retryable}
        return next((error for error in failed.values() if error.retryable), None)

    def raise_if_incomplete(self, part_count: int, noun: str, deferred: DeliveryError | None = None) -> None:
        """Raise `deferred`, the error of a part without a result, or else the first refusal.

        Raises:
            PartialDeliveryError: some parts were accepted.
            DeliveryError: none was.
        """
        cause = deferred or next(iter(self.refused.values()), None)
        if cause is None:
            return
        count = part_count - len(self.accepted) if deferred else len(self.refused)
        verb = "not reached" if deferred else "refused"
        text = f"{count} of {part_count} {noun} {verb}: {cause}" if part_count > 1 else str(cause)
        error_type = PartialDeliveryError if self.accepted else DeliveryError
        raise error_type(
            cause.reason, text, retryable=deferred is not None, retry_after_seconds=cause.retry_after_seconds
        )


class UnfinishedNotifications:
    """The partial deliveries of one receiver by notification id: the newest 100, and those in its state."""

    def __init__(self, store: PartStore) -> None:
        """Keep them in `store` over restarts."""
        self._store = store
        self._deliveries: OrderedDict[str, PartialDelivery] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of unfinished notifications in memory."""
        return len(self._deliveries)

    def delivery_of(self, notification_id: str) -> PartialDelivery:
        """Return the partial delivery of a notification, a new one at the first attempt."""
        if notification_id not in self._deliveries:
            self._deliveries[notification_id] = self._load(notification_id)
        if len(self._deliveries) > _MAX_UNFINISHED:
            self._deliveries.popitem(last=False)
        return self._deliveries[notification_id]

    def save(self, notification_id: str) -> None:
        """Save the results that a notification has so far; if the disk is full, they stay in memory."""
        delivery = self.delivery_of(notification_id)
        if not (delivery.accepted or delivery.refused):
            return
        document = {
            "accepted": sorted(delivery.accepted),
            "refused": {part: [str(error.reason), str(error)] for part, error in delivery.refused.items()},
        }
        with contextlib.suppress(StoreError):
            self._store.put(_key(notification_id), json.dumps(document))
            delivery.is_saved = True

    def finish(self, notification_id: str) -> None:
        """Forget a notification whose parts all have a result."""
        delivery = self._deliveries.pop(notification_id, None)
        if delivery is not None and delivery.is_saved:
            with contextlib.suppress(StoreError):
                self._store.put(_key(notification_id), None)

    def _load(self, notification_id: str) -> PartialDelivery:
        try:
            text = self._store.get(_key(notification_id))
            return PartialDelivery() if text is None else _from_json(text)
        except (DocumentError, StoreError):
            return PartialDelivery()


@document_errors()
def _from_json(text: str) -> PartialDelivery:
    document = json.loads(text)
    refused = {
        str(part): DeliveryError(DeliveryErrorReason(reason), str(error), retryable=False)
        for part, (reason, error) in document["refused"].items()
    }
    return PartialDelivery({str(part) for part in document["accepted"]}, refused, is_saved=True)


def _key(notification_id: str) -> str:
    return f"parts of {notification_id}"


def _digest(part: str) -> str:
    return hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:32]
