"""Control socket requests on alerts: `alerts list` and `alerts show`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from watchdog.control.arguments import RequestArguments
from watchdog.control.server import Handler
from watchdog.errors import UsageError, WatchdogError


@dataclass(frozen=True, slots=True)
class AlertReceiver:
    """One receiver of an alert.

    `notified`: the severity in the newest notification that it took, at `notified_at` (wall-clock seconds); None before
    the first one. `queued`: the severity in a notification that is to be delivered, None without one.
    """

    receiver: str
    notified: str | None
    notified_at: float | None = None
    queued: str | None = None


@dataclass(frozen=True, slots=True)
class TimerStatus:
    """The timer of one severity: "pending" (`for` runs), "firing", or "clearing" (`keep_firing_for` runs).

    `elapsed_seconds` of `duration_seconds` have passed; both None while it fires. `hits`: of a pending severity of a
    rule with `hits`, in place of both: "2 of 3 hits in 5 ticks".
    """

    severity: str
    state: str
    elapsed_seconds: float | None
    duration_seconds: float | None
    hits: str | None = None


@dataclass(frozen=True, slots=True)
class ActiveAlert:
    """A pending or firing alert.

    `severity`: of a pending one, that of its worst pending timer. `since`, `fired`: wall-clock seconds of the start of
    the condition and of the firing, None while pending. `value`, `limit`: None where they are no finite number;
    `value_text`, `limit_text`: the same for people. `share`: of the limit. `suppressed_by`: the silences and
    acknowledgements that withhold its notifications, "silence 1f0a3c5e".
    """

    fingerprint: str
    rule: str
    state: str
    severity: str
    labels: Mapping[str, str]
    since: float
    fired: float | None
    value: float | None
    limit: float | None
    value_text: str
    limit_text: str
    share: float | None
    summary: str
    reason: str
    timers: tuple[TimerStatus, ...]
    receivers: tuple[AlertReceiver, ...]
    suppressed_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AlertDetail:
    """One alert with its evidence, as in a notification; `alert`: as in the state file, None while pending."""

    active: ActiveAlert
    alert: Mapping[str, Any] | None
    evidence: Mapping[str, Any] | None
    runbook: str | None
    rule_file: str | None
    rule_line: int | None


def alert_handlers(
    list_alerts: Callable[[], Sequence[ActiveAlert]], read_alert: Callable[[str], AlertDetail | None]
) -> dict[str, Handler]:
    """Return the handlers of requests on alerts.

    `list_alerts`: returns all pending and firing alerts, the worst first. `read_alert`: returns one by its fingerprint.
    """

    def show_list(given: Mapping[str, Any]) -> list[dict[str, Any]]:
        RequestArguments(given).reject_unknown_arguments()
        return [asdict(alert) for alert in list_alerts()]

    def show(given: Mapping[str, Any]) -> dict[str, Any]:
        arguments = RequestArguments(given)
        prefix = arguments.text("fingerprint")
        arguments.reject_unknown_arguments()
        fingerprint = find_fingerprint(prefix, (alert.fingerprint for alert in list_alerts()))
        detail = read_alert(fingerprint)
        if detail is None:
            raise _no_alert(fingerprint)
        return asdict(detail)

    return {"alerts list": Handler(show_list, in_background=True), "alerts show": Handler(show, in_background=True)}


def find_fingerprint(prefix: str | None, fingerprints: Iterable[str], states: str = "pending or firing") -> str:
    """Return the only one of `fingerprints`, those of the alerts in `states`, that begins with `prefix`.

    Raises:
        UsageError: the prefix is missing, or several begin with it.
        WatchdogError: none begins with it.
    """
    if not prefix:
        raise UsageError("fingerprint is missing")
    found = sorted(one for one in fingerprints if one.startswith(prefix))
    if not found:
        raise _no_alert(prefix, states)
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} alerts have a fingerprint that begins with {prefix}", remedy="give more characters"
        )
    return found[0]


def _no_alert(fingerprint: str, states: str = "pending or firing") -> WatchdogError:
    return WatchdogError(f"no alert {fingerprint} is {states}", remedy="see bpf-watchdog alerts")
