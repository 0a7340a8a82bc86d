"""Control socket request `status`: one screen about the running daemon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from watchdog.control.arguments import RequestArguments
from watchdog.control.server import RequestHandler


@dataclass(frozen=True, slots=True)
class RulesStatus:
    """The rules in force: number, hash (as in the heartbeat), ids of rules without a sure verdict.

    `origin`: their file or folder. `shipped`: how many of `count` are shipped, overridden ones included.
    """

    count: int
    sha256: str
    origin: str
    shipped: int
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReloadStatus:
    """The newest reload: `result` is "none" (since the start), "accepted" or "refused"; `at`: wall-clock seconds.

    `problem`: the first problem of the refused files, with the number of further ones; None unless refused.
    """

    result: str
    at: float | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class TickStatus:
    """Ticks: interval as configured and as used, both in seconds; duration of the newest tick, None before the first.

    `age_seconds`: since the newest tick that succeeded.
    """

    configured_seconds: float
    interval_seconds: float
    duration_seconds: float | None
    age_seconds: float | None


@dataclass(frozen=True, slots=True)
class ReceiverStatus:
    """One receiver.

    `state`: "ok", "failing" (its newest attempt failed) or "down" (for `receiver_down_after`). `since`: wall-clock
    seconds of the start of the outage. `pending`: notifications in its queue, the oldest `oldest_seconds` old.
    `answer`, `answered_at`: result of the newest attempt, None before the first.
    """

    name: str
    destination: str
    state: str
    since: float | None
    reason: str | None
    pending: int
    oldest_seconds: float
    answer: str | None
    answered_at: float | None
    lost: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class AlertCounts:
    """Alerts by state; `critical` and `warning` are firing."""

    pending: int
    critical: int
    warning: int


@dataclass(frozen=True, slots=True)
class SuppressionStatus:
    """Suppressions in force: number of silences and acknowledgements, names of the mute times that hold now.

    `suppressed_alerts`: firing alerts of which notifications are withheld. `withheld`: notifications withheld since the
    start, by the kind of the suppression.
    """

    silences: int
    acknowledgements: int
    mute_times: tuple[str, ...]
    suppressed_alerts: int
    withheld: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """The answer to `status`.

    `quality`: data lost since the start, by cause; connections in a sockmap as of the newest tick. `problems`: as in
    the heartbeat; and a tick that hangs, and a state file that does not answer: its figures are then the former ones.
    """

    version: str
    host: str
    pid: int
    account: str
    uptime_seconds: float
    kernel: str
    rules: RulesStatus
    reload: ReloadStatus
    ticks: TickStatus
    quality: Mapping[str, int]
    alerts: AlertCounts
    suppression: SuppressionStatus
    receivers: tuple[ReceiverStatus, ...]
    problems: tuple[str, ...]


def status_handlers(read: Callable[[], DaemonStatus]) -> dict[str, RequestHandler]:
    """Return the handler of `status`; `read` makes the answer."""

    def status(given: Mapping[str, Any]) -> dict[str, Any]:
        RequestArguments(given).reject_unknown_arguments()
        return asdict(read())

    return {"status": status}
