"""Evidence in words: the process, what it was started by and with, its peers, what led up to the alert.

As in `render`, this is plain, unsanitised text.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence

from watchdog.alerts.evidence import Evidence, TopProcess
from watchdog.measure.catalogue import METRICS
from watchdog.rules.engine.contributors import Peer
from watchdog.rules.language.formats import FORMATS
from watchdog.rules.language.rule import Labels

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_BARS = "▁▂▃▄▅▆▇█"
_NOTHING = "·"
_LONGEST_LINE = 480
_NOT_ALONE = 0.1  # a share below this says only that there are many
_KINDS_TOLD = 2  # of states and of failures with one peer


def evidence_lines(evidence: Evidence, labels: Labels) -> list[str]:
    """Return a line for each thing that is known, the most telling first; what `labels` tell is not told again."""
    if evidence.missing_reason:
        return [f"evidence: {evidence.missing_reason}"]
    return [f"{name}: {text}" for name, text in evidence_sections(evidence, labels).items()]


def evidence_sections(evidence: Evidence, labels: Labels = ()) -> dict[str, str]:
    """Return what is known, by what it is of."""
    found = {}
    if evidence.top_process is not None:
        found["process"] = process_text(evidence, evidence.top_process, dict(labels))
        if evidence.top_process.command:
            found["command"] = evidence.top_process.command
        if evidence.top_process.parents:
            found["parents"] = parents_text(evidence.top_process)
    if evidence.peers:
        found["peers"] = peers_text(evidence)
    if len(evidence.history) > 1:
        found["history"] = history_text(evidence)
    return found


def process_text(evidence: Evidence, culprit: TopProcess, labels: Mapping[str, str]) -> str:
    """Return who it is: "crawler, pid 812, user www-data, unit crawler.service, started 2025-06-15 13:00:02 UTC"."""
    known = [culprit.name or "-"] if labels.get("process") != culprit.name else []
    notes = ["gone already"] if culprit.has_exited else []
    if culprit.other_process_count:
        if culprit.share is None or culprit.share < _NOT_ALONE:
            notes.append(f"one of {culprit.other_process_count + 1:,} processes")
        else:
            rest = f"{culprit.other_process_count:,} other process{'es' if culprit.other_process_count > 1 else ''}"
            notes.append(f"{FORMATS['percent'](round(culprit.share, 2))} of it, the rest by {rest}")
    known.append(f"pid {culprit.pid}" + (f" ({'; '.join(notes)})" if notes else ""))
    known += [f"{what} {value}" for what, value in _identity(culprit) if value and labels.get(what) != value]
    if culprit.started is not None:
        known.append(f"started {utc_text(culprit.started)}, {duration_text(evidence.taken - culprit.started)} before")
    return ", ".join(known)


def parents_text(culprit: TopProcess) -> str:
    """Return the parents, the nearest first: "supervisord (640), systemd (1)"."""
    return ", ".join(f"{name} ({pid})" for pid, name in culprit.parents)


def peers_text(evidence: Evidence) -> str:
    """Return the peers that fit into a line, the greatest first, and how many there are."""
    others = evidence.peer_count - len(evidence.peers)
    head = f"within {_span(evidence.tick_seconds)}: "
    told: list[str] = []
    room = _LONGEST_LINE - len(head) - len("; and 1,000,000 more")
    for number, peer in enumerate(evidence.peers):
        text = _peer(peer, evidence)
        room -= len(text) + 2
        if room < 0:
            others += len(evidence.peers) - number
            break
        told.append(text)
    return head + "; ".join(told) + (f"; and {others:,} more" if others else "")


def history_text(evidence: Evidence) -> str:
    """Return the newest ticks as a sparkline: "▁▁▁▂▅█ 0/s to 640/s in 20 s"."""
    known = [value for value in evidence.history if value is not None]
    write = FORMATS[evidence.history_format]
    reach = f" {write(min(known))} to {write(max(known))}" if known else ""
    return f"{sparkline(evidence.history)}{reach} in {_span(evidence.history_seconds)}"


def sparkline(values: Sequence[float | None]) -> str:
    """Return one bar for each value, from zero to the greatest of them; a dot where there is none.

    From zero, not from the least: what hardly changes must not look like a mountain range.
    """
    known = [value for value in values if value is not None and abs(value) != float("inf")]
    low, high = min([0.0, *known]), max([0.0, *known])
    return "".join(_bar(value, low, high) for value in values)


def utc_text(wall: float) -> str:
    """Return a wall-clock time for people, in UTC: whoever is on call may live in another zone than the host."""
    return dt.datetime.fromtimestamp(wall, tz=dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration_text(seconds: float) -> str:
    """Return a duration for people, in its two greatest units: "4 s", "7 min 6 s", "2 h 5 min", "3 d 1 h"."""
    whole = max(0, round(seconds))
    for unit, name, below, below_name in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // below} {below_name}"
    return f"{whole} s"


def _identity(culprit: TopProcess) -> Iterator[tuple[str, str]]:
    yield "exe", culprit.exe
    yield "user", culprit.user
    yield "unit", culprit.unit
    yield "container", culprit.container


def _span(seconds: float) -> str:
    return FORMATS["seconds"](round(seconds, 1) if seconds >= 1 else seconds)


def _peer(peer: Peer, evidence: Evidence) -> str:
    known = [_amount(peer, evidence)]
    known += [f"{count:,} {failure}" for failure, count in peer.failures[:_KINDS_TOLD]]
    known += [f"{count:,} {state}" for state, count in peer.states[:_KINDS_TOLD]]
    if not evidence.metric.startswith("bytes_"):
        known += [
            f"{FORMATS['bytes'](count)} {way}"
            for way, count in (("sent", peer.bytes_sent), ("received", peer.bytes_received))
            if count > 0
        ]
    elif peer.connections > 1:
        known.append(f"{peer.connections:,} connections")
    return f"{_end(peer, evidence)}: {', '.join(known)}"


def _end(peer: Peer, evidence: Evidence) -> str:
    at = f"[{peer.address}]:{peer.port}" if ":" in peer.address else f"{peer.address}:{peer.port}"
    if "remote" in METRICS[evidence.metric].missing_dimensions:
        return f"at {at}"
    return f"from {peer.address} to port {peer.port}" if peer.direction == "in" else f"to {at}"


def _amount(peer: Peer, evidence: Evidence) -> str:
    share = ""
    if evidence.amount and evidence.peer_count > 1:
        share = f" ({FORMATS['percent'](round(min(peer.amount / evidence.amount, 1), 2))})"
    name = evidence.metric.replace("_", " ")
    amount = FORMATS[evidence.format](peer.amount)
    if evidence.metric.startswith("bytes_"):
        return f"{amount} {name.removeprefix('bytes ')}{share}"
    return f"{amount} {name}{share}"


def _bar(value: float | None, low: float, high: float) -> str:
    if value is None:
        return _NOTHING
    if value >= high:
        return _BARS[-1] if value > low else _BARS[0]
    return _BARS[min(int(max(value - low, 0.0) / (high - low) * len(_BARS)), len(_BARS) - 1)]
