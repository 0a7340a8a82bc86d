"""Control socket requests on silences and acknowledgements: `silence add`, `list` and `expire`, and `ack`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from watchdog.alerts.alert import Alert, AlertState
from watchdog.clock import SECOND_NS, Clock, Now
from watchdog.config.durations import format_duration, parse_duration
from watchdog.control.alert_handlers import find_fingerprint
from watchdog.control.arguments import RequestArguments
from watchdog.control.server import Handler, RequestHandler
from watchdog.errors import UsageError
from watchdog.measure.catalogue import Dimension
from watchdog.routing.silencing import AcknowledgedFiring, Silence, parse_matchers
from watchdog.rules.language.condition_text import patterns_of
from watchdog.state.silences import Silences

MAX_SILENCE: Final = "7d"
"""Longest silence without a reason for more."""

_MAX_NS: Final = parse_duration(MAX_SILENCE)
_MAX_MATCHERS: Final = 50
_MAX_EXPIRED: Final = 50
_MAX_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True)
class SilencedAlerts:
    """The alerts that silences apply to, as the newest tick left them.

    `firing`: returns the firing alerts by fingerprint. `dimensions`: returns the names that matchers can have.
    """

    firing: Callable[[], Mapping[str, Alert]]
    dimensions: Callable[[], Mapping[str, Dimension]]


def silence_handlers(silences: Silences, alerts: SilencedAlerts, clock: Clock) -> dict[str, RequestHandler | Handler]:
    """Return the handlers of requests on `silences`, by the request's name."""
    return {
        "silence add": Handler(lambda given: _add(silences, alerts, clock, given), changes=True, in_background=True),
        "silence list": lambda given: _list(silences, alerts, clock, given),
        "silence expire": Handler(lambda given: _expire(silences, given), changes=True, in_background=True),
        "ack": Handler(lambda given: _acknowledge(silences, alerts, clock, given), changes=True, in_background=True),
    }


def _add(silences: Silences, alerts: SilencedAlerts, clock: Clock, given: Mapping[str, Any]) -> dict[str, Any]:
    arguments = RequestArguments(given)
    matchers = arguments.texts("matchers", max_count=_MAX_MATCHERS)
    duration = arguments.text("duration")
    texts = _read_texts(arguments, "author", "comment", "permanent_reason")
    arguments.reject_unknown_arguments()
    if not texts["comment"]:
        raise UsageError("comment is missing", remedy="give the reason of the silence")
    now = Now.read(clock)
    silence = Silence(
        id="",
        where=parse_matchers(matchers, alerts.dimensions()),
        author=texts["author"],
        comment=texts["comment"],
        created=now.wall,
        ends_ns=_end_ns(duration, texts["permanent_reason"], now.boottime_ns),
        permanent_reason=texts["permanent_reason"],
    )
    return _document(silences.add(silence), alerts.firing(), now)


def _end_ns(duration: str | None, permanent_reason: str, now_ns: int) -> int | None:
    if duration is None:
        if not permanent_reason:
            raise UsageError("no duration", remedy="give --for, or --permanent-reason for a silence without an end")
        return None
    try:
        duration_ns = parse_duration(duration)
    except ValueError:
        raise UsageError(f'duration: not a duration: "{duration}"', remedy='write it like "30m", "2h", "3d"') from None
    if duration_ns < SECOND_NS:
        raise UsageError("duration: must be at least 1s")
    if duration_ns > _MAX_NS and not permanent_reason:
        raise UsageError(
            f"duration: {format_duration(duration_ns)} is more than {MAX_SILENCE}", remedy="give --permanent-reason too"
        )
    return now_ns + duration_ns


def _list(silences: Silences, alerts: SilencedAlerts, clock: Clock, given: Mapping[str, Any]) -> dict[str, Any]:
    RequestArguments(given).reject_unknown_arguments()
    firing, now = alerts.firing(), Now.read(clock)
    return {"silences": [_document(silence, firing, now) for silence in silences.current]}


def _expire(silences: Silences, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    arguments = RequestArguments(given)
    wanted = arguments.texts("ids", max_count=_MAX_EXPIRED)
    arguments.reject_unknown_arguments()
    return [_expire_one(silences, prefix) for prefix in wanted]


def _expire_one(silences: Silences, prefix: str) -> dict[str, Any]:
    ids = [silence.id for silence in silences.current if prefix and silence.id.startswith(prefix)]
    if len(ids) > 1:
        return {"id": prefix, "expired": False, "reason": "several silences have an id that begins so"}
    if not ids or silences.expire(ids[0]) is None:
        reason = "there is no such silence, or it has ended: see bpf-watchdog silence list"
        return {"id": prefix, "expired": False, "reason": reason}
    return {"id": ids[0], "expired": True, "reason": None}


def _acknowledge(silences: Silences, alerts: SilencedAlerts, clock: Clock, given: Mapping[str, Any]) -> dict[str, Any]:
    arguments = RequestArguments(given)
    prefix = arguments.text("fingerprint")
    texts = _read_texts(arguments, "author", "comment")
    arguments.reject_unknown_arguments()
    firing, now = alerts.firing(), Now.read(clock)
    alert = firing[find_fingerprint(prefix, firing, AlertState.FIRING)]
    acknowledged = AcknowledgedFiring(alert.fingerprint, alert.fired)
    for silence in silences.current:
        if silence.acknowledged == acknowledged:
            return _document(silence, firing, now)
    silence = Silence("", (), texts["author"], texts["comment"], now.wall, acknowledged=acknowledged)
    return _document(silences.add(silence), firing, now)


def _read_texts(arguments: RequestArguments, *names: str) -> dict[str, str]:
    texts = {name: (arguments.text(name) or "").strip() for name in names}
    for name, text in texts.items():
        if len(text) > _MAX_CHARACTERS:
            raise UsageError(f"{name} can have at most {_MAX_CHARACTERS} characters")
    return texts


def _document(silence: Silence, firing: Mapping[str, Alert], now: Now) -> dict[str, Any]:
    """Return a silence for JSON; times are wall-clock seconds, `alerts` the fingerprints that it silences now."""
    acknowledged, ends_ns = silence.acknowledged, silence.ends_ns
    return {
        "id": silence.id,
        "kind": silence.suppression.kind.value,
        "matchers": patterns_of(silence.where),
        "fingerprint": None if acknowledged is None else acknowledged.fingerprint,
        "author": silence.author,
        "comment": silence.comment,
        "permanent_reason": silence.permanent_reason or None,
        "created_at": silence.created,
        "ends_at": None if ends_ns is None else now.wall + (ends_ns - now.boottime_ns) / SECOND_NS,
        "withheld": silence.withheld,
        "alerts": [fingerprint for fingerprint, alert in firing.items() if silence.matches(alert)],
    }
