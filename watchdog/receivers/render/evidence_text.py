"""Evidence as text: the top process, its command line and parents, its peers, the history before the alert.

As in `notification_text`, the text is plain and not sanitised.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence

from watchdog.alerts.evidence import Evidence, TopProcess
from watchdog.measure.catalogue import METRICS
from watchdog.measure.procfs import UnreadReason
from watchdog.measure.program_file import ProgramFile
from watchdog.rules.engine.contributor_values import LeftOutGroups, Peer
from watchdog.rules.language.formats import FORMATS
from watchdog.rules.language.rule import Labels

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_BARS = "▁▂▃▄▅▆▇█"
_NO_VALUE = "·"
_MAX_LINE_LENGTH = 480
_MIN_SHARE = 0.1  # below it, the number of processes is shown instead of the share
# These causes end connections that worked, too: such an end is no failed connect.
_FAILURE_WORDS = {"reset": "ended by a reset", "aborted": "ended by an abort"}
_UNREAD = {
    UnreadReason.HELD: "could not be read: the process holds it",
    UnreadReason.LATE: "not read in time",
    UnreadReason.PAUSED: "not read: too many processes hold theirs",
}
_MAX_KINDS = 2  # states, and failures, shown per peer


def evidence_lines(evidence: Evidence, labels: Labels) -> list[str]:
    """Return one line per section of the evidence, without facts that `labels` contain already."""
    if evidence.missing_reason:
        return [f"evidence: {evidence.missing_reason}"]
    return [f"{name}: {text}" for name, text in evidence_sections(evidence, labels).items()]


def evidence_sections(evidence: Evidence, labels: Labels = ()) -> dict[str, str]:
    """Return the text of each section that has data, by its name.

    The names: process, program, command, parents, names, left_out, peers, history, unknown_rules.
    """
    sections = _sections_of_process(evidence, labels)
    if evidence.name_count > 1:
        sections["names"] = names_text(evidence)
    if evidence.left_out is not None and evidence.left_out.largest:
        sections["left_out"] = left_out_text(evidence, evidence.left_out)
    if evidence.peers:
        sections["peers"] = peers_text(evidence)
    if len(evidence.history) > 1:
        sections["history"] = history_text(evidence)
    if evidence.unknown_rules:
        more = evidence.unknown_rule_count - len(evidence.unknown_rules)
        sections["unknown_rules"] = ", ".join(evidence.unknown_rules) + (f" and {more:,} more" if more else "")
    return sections


def _sections_of_process(evidence: Evidence, labels: Labels) -> dict[str, str]:
    top = evidence.top_process
    if top is None:
        return {}
    sections = {"process": process_text(evidence, top, dict(labels))}
    if top.program is not None:
        sections["program"] = program_text(top.program)
    if top.command:
        sections["command"] = top.command
    elif top.unread is not None:
        sections["command"] = f"({_UNREAD[top.unread]})"
    if top.parents:
        sections["parents"] = parents_text(top)
    return sections


def process_text(evidence: Evidence, top: TopProcess, labels: Mapping[str, str]) -> str:
    """Return the identity: "crawler, pid 812, user www-data, unit crawler.service, started 2025-06-15 13:00:02 UTC"."""
    known = [top.name or "-"] if labels.get("process") != top.name else []
    notes = ["exited"] if top.has_exited else ["not visible in /proc"] if top.is_hidden else []
    if top.other_process_count:
        if top.share is None or top.share < _MIN_SHARE:
            notes.append(f"one of {top.other_process_count + 1:,} processes")
        else:
            rest = f"{top.other_process_count:,} other process{'es' if top.other_process_count > 1 else ''}"
            notes.append(f"{FORMATS['percent'](round(top.share, 2))} of it, the rest by {rest}")
    known.append(f"pid {top.pid}" + (f" ({'; '.join(notes)})" if notes else ""))
    known += [f"{name} {value}" for name, value in _identity(top) if value and labels.get(name) != value]
    if top.started is not None:
        known.append(f"started {utc_text(top.started)}, {duration_text(evidence.taken - top.started)} before")
    return ", ".join(known)


def parents_text(top: TopProcess) -> str:
    """Return the parents, nearest first: "supervisord (640), systemd (1)"."""
    return ", ".join(f"{name} ({pid})" for pid, name in top.parents)


def program_text(program: ProgramFile) -> str:
    """Return the executable: "/tmp/x/sshd (device 8:1, inode 77): user nobody can replace it; not the host's …"."""
    where = f"{program.path or 'path too long'} (device {program.device}, inode {program.inode})"
    return ": ".join([where, *(["; ".join(program.notes)] if program.notes else [])])


def names_text(evidence: Evidence) -> str:
    """Return the numbers of names and processes: "7,000 names, 1 process within 1 s"."""
    processes = f"{evidence.process_count:,} process{'es' if evidence.process_count != 1 else ''}"
    return f"{evidence.name_count:,} names, {processes} within {_span(evidence.tick_seconds)}"


def left_out_text(evidence: Evidence, left_out: LeftOutGroups) -> str:
    """Return the largest groups without an alert of their own: "process=a unit=-: 900 connects, user x, pid 7"."""
    shown = []
    for group in left_out.largest:
        labels = " ".join(f"{name}={value or '-'}" for name, value in group.labels)
        amount = f"{FORMATS[evidence.format](group.amount)} {evidence.metric.replace('_', ' ')}"
        account = [f"user {group.user}"] if group.user else []
        shown.append(", ".join([f"{labels}: {amount}", *account, *([f"pid {group.pid}"] if group.pid else [])]))
    return f"within {_span(evidence.tick_seconds)}: " + "; ".join(shown)


def peers_text(evidence: Evidence) -> str:
    """Return the peers that fit into one line, largest first, and the number of the others."""
    others = evidence.peer_count - len(evidence.peers)
    head = f"within {_span(evidence.tick_seconds)}: "
    shown: list[str] = []
    free = _MAX_LINE_LENGTH - len(head) - len("; and 1,000,000 more")
    for number, peer in enumerate(evidence.peers):
        text = _peer(peer, evidence)
        free -= len(text) + 2
        if free < 0:
            others += len(evidence.peers) - number
            break
        shown.append(text)
    return head + "; ".join(shown) + (f"; and {others:,} more" if others else "")


def history_text(evidence: Evidence) -> str:
    """Return the newest ticks as a sparkline: "▁▁▁▂▅█ 0/s to 640/s in 20 s"."""
    known = [value for value in evidence.history if value is not None]
    write = FORMATS[evidence.history_format]
    value_range = f" {write(min(known))} to {write(max(known))}" if known else ""
    return f"{sparkline(evidence.history)}{value_range} in {_span(evidence.history_seconds)}"


def sparkline(values: Sequence[float | None]) -> str:
    """Return one bar per value, scaled from zero to the maximum; a dot for a missing value.

    The scale starts at zero, not at the minimum, so that small changes look small.
    """
    known = [value for value in values if value is not None and abs(value) != float("inf")]
    low, high = min([0.0, *known]), max([0.0, *known])
    return "".join(_bar(value, low, high) for value in values)


def utc_text(wall: float) -> str:
    """Return a wall-clock time for people, in UTC: people on call can be in another time zone than the host."""
    return dt.datetime.fromtimestamp(wall, tz=dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration_text(seconds: float) -> str:
    """Return a duration for people, in its two largest units: "4 s", "7 min 6 s", "2 h 5 min", "3 d 1 h"."""
    whole = max(0, round(seconds))
    for unit, name, below, below_name in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // below} {below_name}"
    return f"{whole} s"


def _identity(top: TopProcess) -> Iterator[tuple[str, str]]:
    yield "exe", "" if top.program is not None else top.exe
    yield "user", top.user
    yield "unit", top.unit
    yield "container", top.container


def _span(seconds: float) -> str:
    return FORMATS["seconds"](round(seconds, 1) if seconds >= 1 else seconds)


def _peer(peer: Peer, evidence: Evidence) -> str:
    known = [_amount(peer, evidence)]
    known += [f"{count:,} {_FAILURE_WORDS.get(failure, failure)}" for failure, count in peer.failures[:_MAX_KINDS]]
    known += [f"{count:,} {state}" for state, count in peer.states[:_MAX_KINDS]]
    if not evidence.metric.startswith("bytes_"):
        known += [
            f"{FORMATS['bytes'](count)} {direction}"
            for direction, count in (("sent", peer.bytes_sent), ("received", peer.bytes_received))
            if count > 0
        ]
    elif peer.connections > 1:
        known.append(f"{peer.connections:,} connections")
    return f"{_peer_address(peer, evidence)}: {', '.join(known)}"


def _peer_address(peer: Peer, evidence: Evidence) -> str:
    endpoint = f"[{peer.address}]:{peer.port}" if ":" in peer.address else f"{peer.address}:{peer.port}"
    if "remote" in METRICS[evidence.metric].missing_dimensions:
        return f"at {endpoint}"
    return f"from {peer.address} to port {peer.port}" if peer.direction == "in" else f"to {endpoint}"


def _amount(peer: Peer, evidence: Evidence) -> str:
    share = ""
    if evidence.amount and evidence.peer_count > 1:
        share = f" ({FORMATS['percent'](round(min(peer.amount / evidence.amount, 1), 2))})"
    name = evidence.metric.replace("_", " ")
    amount = FORMATS[evidence.format](peer.amount)
    if evidence.metric.startswith("bytes_"):
        return f"{amount} {name.removeprefix('bytes ')}{share}"
    return f"{amount} {name.removesuffix('s') if amount == '1' else name}{share}"


def _bar(value: float | None, low: float, high: float) -> str:
    if value is None:
        return _NO_VALUE
    if value >= high:
        return _BARS[-1] if value > low else _BARS[0]
    return _BARS[min(int(max(value - low, 0.0) / (high - low) * len(_BARS)), len(_BARS) - 1)]
