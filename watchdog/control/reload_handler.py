"""Control socket request `reload`: read all files again, and use them, or tell what would change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from watchdog.control.arguments import RequestArguments
from watchdog.control.server import Handler, RequestHandler


@dataclass(frozen=True, slots=True)
class AlertEffect:
    """The effect of a reload on one firing alert.

    `effect`: "resolves", "begins again" (its windows start anew), "changes severity" or "changes receivers"; `detail`:
    in words.
    """

    fingerprint: str
    rule: str
    labels: Mapping[str, str]
    effect: str
    detail: str


@dataclass(frozen=True, slots=True)
class ReloadAnswer:
    """Result of a reload, or of the attempt with `dry_run`, which changes nothing.

    `problems`: all problems of all files, as `check` prints them; empty if the files are accepted. `notes`: likewise.
    `added`, `changed`, `removed`: ids of rules. `settings`: changed tables and keys of the settings file.
    `restart_keys`: changed keys of the settings that a restart alone applies. `rules`: their number, `shipped` of them
    are shipped; `origin`: their file or folder. `due`: rules or settings differ from those in force, or the newest
    reload was refused.
    """

    accepted: bool
    dry_run: bool
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rules: int = 0
    shipped: int = 0
    origin: str = ""
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    restart_keys: tuple[str, ...] = ()
    alerts: tuple[AlertEffect, ...] = ()
    due: bool = False


def reload_handlers(reload: Callable[[bool], ReloadAnswer]) -> dict[str, RequestHandler | Handler]:
    """Return the handlers of `reload` and `reload check`; `reload(dry_run)` does it."""

    def handler(*, dry_run: bool) -> RequestHandler:
        def handle(given: Mapping[str, Any]) -> dict[str, Any]:
            RequestArguments(given).reject_unknown_arguments()
            return asdict(reload(dry_run))

        return handle

    return {
        "reload": Handler(handler(dry_run=False), changes=True, in_background=True, is_single=True),
        "reload check": Handler(handler(dry_run=True), in_background=True, is_single=True),
    }
