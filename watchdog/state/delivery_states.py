"""The states of a notification in the state file."""

from __future__ import annotations

from typing import Final

DELIVERED: Final = "delivered"
FAILED: Final = "failed"
DELIVERY_STATES: Final = ("pending", DELIVERED, "merged", FAILED)
