"""JSON documents of the state file: their text, and the kinds of rows that hold them."""

from __future__ import annotations

import enum
import json
from typing import Any

from watchdog.storage.checksum import is_intact

JsonDocument = dict[str, Any]  # JSON-able


class AlertKind(enum.StrEnum):
    """Kind of a row in the table `alerts`; the values are stored."""

    RULE = "rule"
    """An instance of a rule."""
    RECEIVER_DOWN = "receiver_down"
    """The alert about a receiver that is down."""


class GroupKind(enum.StrEnum):
    """Kind of a row in the table `groups`; the values are stored."""

    ROUTED = "routed"
    """A notification group of the routing."""
    ESCALATION = "escalation"
    """A notification group of an escalation target."""
    ESCALATION_PROGRESS = "escalation_progress"
    """The alerts that an escalation target took over; its group key is empty."""


def dump_document(document: JsonDocument) -> str:
    """Return the text of `document`. ASCII: names that are not UTF-8 (surrogate-escaped) are preserved."""
    return json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def load_document(text: str, expected_checksum: int | None) -> JsonDocument:
    """Return the document of `text`; an empty one, which no reader accepts, if it is damaged."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) and is_intact(text, expected_checksum) else {}
