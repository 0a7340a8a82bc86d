"""What is not written yet: one tick's changes, and those of ticks before it whose commit failed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from watchdog.routing.group import GroupKey
from watchdog.routing.notification import Notice
from watchdog.state.outbox import merge

State = dict[str, Any]  # JSON-able

_MOST_NOTICES = 1_000


class Backlog:
    """By key, as JSON (None: delete), the newest state of each; and notices by id, in the order of their making."""

    def __init__(self) -> None:
        """Start empty."""
        self.alerts: dict[str, str | None] = {}
        self.groups: dict[GroupKey, str | None] = {}
        self.notices: dict[str, Notice] = {}

    def __bool__(self) -> bool:
        """Tell whether there is anything to write."""
        return bool(self.alerts or self.groups or self.notices)

    def add(
        self,
        alerts: Iterable[tuple[str, State | None]],
        groups: Iterable[tuple[GroupKey, State | None]],
        notices: Iterable[Notice],
    ) -> None:
        """Take in what a tick changed."""
        self.notices.update((notice.id, notice) for notice in notices)
        self.alerts.update((key, dumps(state)) for key, state in alerts)
        self.groups.update((key, dumps(state)) for key, state in groups)

    def bytes(self) -> int:
        """Return about how much there is to write."""
        states = [*self.alerts.values(), *self.groups.values()]
        notices = (len(dumps(notice.to_json()) or "") for notice in self.notices.values())
        return sum(len(state) for state in states if state is not None) + sum(notices)

    def shrink(self) -> None:
        """Make one notice of those of each group, when there are many: a disk may be full for days.

        It gets the id of the newest. A commit can be on disk although it was reported as failed: then the older ones
        are there under ids of their own, and with the newest id all of them.
        """
        if len(self.notices) <= _MOST_NOTICES:
            return
        merged = [replace(merge(notices), id=notices[-1].id) for notices in _mergeable(self.notices.values())]
        self.notices = {notice.id: notice for notice in merged}

    def clear(self) -> None:
        """Forget what is written now."""
        self.alerts.clear()
        self.groups.clear()
        self.notices.clear()


def _mergeable(notices: Iterable[Notice]) -> list[list[Notice]]:
    # Notices of one group, until another group of the receiver has told of the same alerts in between.
    runs: list[list[Notice]] = []
    newest: dict[GroupKey, list[Notice]] = {}
    telling: dict[tuple[str, str], list[Notice]] = {}  # by receiver and fingerprint
    for notice in notices:
        told = [(notice.receiver, alert.fingerprint) for alert in notice.alerts]
        run = newest.get((notice.receiver, notice.group))
        if run is None or any(telling.get(key, run) is not run for key in told):
            run = newest[notice.receiver, notice.group] = []
            runs.append(run)
        run.append(notice)
        telling.update((key, run) for key in told)
    return runs


def dumps(state: State | None) -> str | None:
    """Return `state` as the file holds it. ASCII: names that are no UTF-8 (surrogate-escaped) stay as they are."""
    return None if state is None else json.dumps(state, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
