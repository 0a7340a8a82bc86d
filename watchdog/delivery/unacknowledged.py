"""Alerts that nobody acknowledges: since when a first receiver has known each of them, while no silence covers it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from watchdog.alerts.alert import Alert
from watchdog.errors import document_errors


class Unacknowledged:
    """The waiting alerts of the first receivers of one escalation target. Times are CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        """Start without alerts."""
        self._since: dict[tuple[str, str], tuple[float, int]] = {}  # by first receiver and fingerprint: (fired, since)

    def update(self, first: str, alerts: Iterable[Alert], wait_ns: int, now_ns: int) -> tuple[list[Alert], bool]:
        """Take the alerts that `first` knows as firing and nobody acknowledged.

        Return those that have waited for `wait_ns`, and whether anything changed.
        """
        former = {key: entry for key, entry in self._since.items() if key[0] == first}
        present: dict[tuple[str, str], tuple[float, int]] = {}
        due = []
        for alert in alerts:
            key = first, alert.fingerprint
            known = former.get(key)
            entry = known if known is not None and known[0] == alert.fired else (alert.fired, now_ns)
            present[key] = entry
            if now_ns >= entry[1] + wait_ns:
                due.append(alert)
        if present == former:
            return due, False
        self._since = {key: entry for key, entry in self._since.items() if key[0] != first} | present
        return due, True

    def keep_only(self, firsts: Mapping[str, int]) -> None:
        """Forget the alerts of receivers that are not in `firsts`."""
        self._since = {key: entry for key, entry in self._since.items() if key[0] in firsts}

    def to_json(self) -> list[list[Any]]:
        """Return a document for `json` and `restore`."""
        return [[*key, *entry] for key, entry in self._since.items()]

    @document_errors()
    def restore(self, document: Iterable[Any], boottime_shift_ns: int) -> None:
        """Restore the document of `to_json`, its times moved by `boottime_shift_ns`.

        Raises:
            DocumentError: `document` does not have the form of `to_json`.
        """
        self._since = {
            (str(first), str(key)): (float(fired), int(since_ns) + boottime_shift_ns)
            for first, key, fired, since_ns in document
        }
