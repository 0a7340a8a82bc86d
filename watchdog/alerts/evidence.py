"""Evidence: data about the cause of an alert, taken in the tick in which the alert began or got worse.

The process may have exited, and its sockets with it, before anyone looks. So the data are kept with the alert: at most
`MAX_EVIDENCE_BYTES` of JSON, for any names of processes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self

from watchdog.alerts import wording
from watchdog.alerts.masking import mask_secrets
from watchdog.measure.catalogue import METRICS, MetricKind
from watchdog.measure.procfs import CommandLine, Process, UnreadReason
from watchdog.measure.program_file import ProgramFile
from watchdog.rules.engine.contributor_values import Contributors, LeftOutGroup, LeftOutGroups, Peer
from watchdog.rules.language import formats
from watchdog.rules.language.rule import Rule

MAX_EVIDENCE_BYTES: Final = 4_096
MAX_COMMAND_BYTES: Final = 256
_MAX_PATH_BYTES = 128
_MAX_NAME_BYTES = 96
_MAX_UNKNOWN_RULES = 10
_ELLIPSIS = "…"

ProgramLookup = Callable[[int, str], ProgramFile | None]
"""Finds the executable of a process by its pid and the name of its container, "" on the host."""

NOT_TAKEN: Final = "not taken: too many alerts began at once, only the worst have evidence"


def number_to_json(value: float) -> float | str:
    """Return `value` for JSON, which has no infinities: an infinite ratio becomes a text that float() reads."""
    return value if math.isfinite(value) else str(value)


@dataclass(frozen=True, slots=True)
class TopProcess:
    """The process with the largest part of the value.

    `share`: its part of the value, None where values do not add up. `other_process_count`: number of other processes.
    `started`: wall-clock seconds, None if unknown. `command`: masked and cut, None if unknown. `parents`: pid and name,
    the nearest first. `has_exited`: the process had exited when it was last read; if it was never read alive, its names
    are the kernel's, and command and parents are unknown. `is_hidden`: /proc did not show it, and these are
    unknown. `unread`: why the command line of a live process is not known, None if it is, or is not wanted. `program`:
    its executable as the kernel knows it, None if unknown.
    """

    pid: int
    name: str
    exe: str
    user: str
    unit: str
    container: str
    share: float | None
    other_process_count: int
    started: float | None
    command: str | None
    parents: tuple[tuple[int, str], ...]
    has_exited: bool
    is_hidden: bool = False
    unread: UnreadReason | None = None
    program: ProgramFile | None = None

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the process that `Evidence.to_json` wrote."""
        parents = tuple((int(pid), str(name)) for pid, name in document["parents"])
        unread = document.get("unread")
        return cls(
            **{
                **document,
                "parents": parents,
                "unread": None if unread is None else UnreadReason(unread),
                "program": _program_from_json(document.get("program")),
            }
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """Data of the tick at `taken`, wall-clock seconds.

    `metric`: the metric of the amounts, `format`: their format. `amount`: that of all connections in `tick_seconds`,
    None where amounts do not add up. `peer_count`: number of all peers; `peers` has the largest. `history`: the
    value of each of the newest ticks alone, oldest first, None for a tick without one; it covers `history_seconds`, in
    `history_format`. `unknown_rules`: ids of rules that losses left unknown, for alerts about losses;
    `unknown_rule_count`: their number. `name_count` and `process_count`: numbers of the names and of the processes
    behind the amount. `left_out`: groups without an alert of their own, for an overflow. `missing_reason`: why there
    are no data, in words; "" if there are.
    """

    taken: float
    metric: str = ""
    format: str = "count"
    amount: float | None = None
    tick_seconds: float = 0.0
    peers: tuple[Peer, ...] = ()
    peer_count: int = 0
    top_process: TopProcess | None = None
    history: tuple[float | None, ...] = ()
    history_format: str = "count"
    history_seconds: float = 0.0
    unknown_rules: tuple[str, ...] = ()
    unknown_rule_count: int = 0
    missing_reason: str = ""
    name_count: int = 0
    process_count: int = 0
    left_out: LeftOutGroups | None = None

    def updated_with(self, newer: Evidence) -> Evidence:
        """Return `newer`, completed with the parts of this evidence that `newer` could not get any more.

        A window is longer than a tick: the event that put the value above the limit may lie in the tick that made the
        condition true, and not in the tick that makes the alert fire.
        """
        if newer.missing_reason:
            return self
        if self.has_amount and (not newer.has_amount or (self.peers and not newer.peers)):
            kept = replace(self, history=newer.history, history_seconds=newer.history_seconds)
        else:
            kept = newer
        return replace(kept, top_process=_better_known(self.top_process, newer.top_process, kept.top_process))

    def with_command_line(self, pid: int, found: CommandLine | UnreadReason | None) -> Evidence:
        """Return the evidence with the command line of its top process, if that is `pid` and its command line unknown.

        None: the process has ended meanwhile.
        """
        top = self.top_process
        if top is None or top.pid != pid or top.unread is None:
            return self
        if found is None:
            return replace(self, top_process=replace(top, unread=None, has_exited=True))
        if isinstance(found, UnreadReason):
            return replace(self, top_process=replace(top, unread=found))
        command = _cut(mask_secrets(found.arguments), MAX_COMMAND_BYTES) or None
        exe = _cut(found.exe, _MAX_PATH_BYTES, keep_end=True) if found.exe else top.exe
        return _cut_to_size(replace(self, top_process=replace(top, command=command, exe=exe, unread=None)))

    @property
    def unread_pid(self) -> int | None:
        """Return the top process if its command line is wanted and not known yet, else None."""
        return self.top_process.pid if self.top_process is not None and self.top_process.unread is not None else None

    @property
    def has_amount(self) -> bool:
        """Return whether its tick contributed to the value."""
        return bool(self.amount) or any(peer.amount for peer in self.peers)

    def to_json(self) -> dict[str, Any]:
        """Return a document for `json` and `from_json`; bytes that are not UTF-8 stay surrogate-escaped."""
        document = {name: getattr(self, name) for name in self.__slots__}
        return document | {
            "peers": [asdict(peer) for peer in self.peers],
            "top_process": None if self.top_process is None else asdict(self.top_process),
            "history": [None if value is None else number_to_json(value) for value in self.history],
            "left_out": None if self.left_out is None else asdict(self.left_out),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> Self | None:
        """Return the evidence that `to_json` wrote; None without one or if unreadable: an alert is valid without it."""
        try:
            if not document:
                return None
            top_process, history = document["top_process"], document["history"]
            if not document["missing_reason"] and document["metric"] not in METRICS:
                return None
            if not {document["format"], document["history_format"]} <= formats.FORMATS.keys():
                return None
            return cls(
                **{
                    **document,
                    "unknown_rules": tuple(map(str, document.get("unknown_rules", ()))),
                    "peers": tuple(map(_peer_from_json, document["peers"])),
                    "top_process": None if top_process is None else TopProcess.from_json(top_process),
                    "history": tuple(None if value is None else float(value) for value in history),
                    "left_out": _left_out_from_json(document.get("left_out")),
                }
            )
        except (AttributeError, LookupError, TypeError, ValueError):
            return None


def build_evidence(
    rule: Rule,
    contributors: Contributors,
    look_up_process: Callable[[int], tuple[float | None, Process | None]],
    wall: float,
    *,
    with_command: bool,
    unknown_rules: Sequence[str] = (),
    find_program: ProgramLookup | None = None,
) -> Evidence:
    """Return the evidence of an instance.

    `unknown_rules`: ids of the rules that losses leave unknown.

    `look_up_process(pid)`: start of the process in wall-clock seconds, and the process, each None if unknown or exited.
    The top process is the first of `contributors.processes` that is still alive, or else the first of all. Its command
    line is added later, by `with_command_line`, if it is wanted: `with_command`.
    """
    unit, adds_up = METRICS[contributors.metric].unit, METRICS[contributors.metric].kind is not MetricKind.DISTRIBUTION
    return _cut_to_size(
        Evidence(
            taken=wall,
            metric=contributors.metric,
            format=formats.natural_format(unit, per_second=False),
            amount=_none_if_nan(contributors.amount),
            tick_seconds=round(contributors.tick_seconds, 3),
            peers=contributors.peers,
            peer_count=contributors.peer_count,
            top_process=_with_program(
                _top_process(contributors, look_up_process, with_command=with_command, adds_up=adds_up), find_program
            ),
            history=tuple(_none_if_nan(float(f"{value:.4g}")) for value in contributors.history),
            history_format=wording.tick_value_format(rule),
            history_seconds=round(contributors.history_seconds, 3),
            unknown_rules=tuple(_cut(rule_id, _MAX_NAME_BYTES) for rule_id in unknown_rules[:_MAX_UNKNOWN_RULES]),
            unknown_rule_count=len(unknown_rules),
            name_count=contributors.name_count,
            process_count=contributors.process_count,
            left_out=None if contributors.left_out is None else _cut_groups(contributors.left_out),
        )
    )


def _top_process(
    contributors: Contributors,
    look_up_process: Callable[[int], tuple[float | None, Process | None]],
    *,
    with_command: bool,
    adds_up: bool,
) -> TopProcess | None:
    if not contributors.processes:
        return None
    chosen, (started, process) = contributors.processes[0], look_up_process(contributors.processes[0].pid)
    for other in contributors.processes[1:]:
        if process is not None:
            break
        other_started, process = look_up_process(other.pid)
        if process is not None:
            chosen, started = other, other_started
    is_wanted = with_command and process is not None and not process.is_hidden
    return TopProcess(
        pid=chosen.pid,
        name=_cut(chosen.process, _MAX_NAME_BYTES),
        exe=_cut(chosen.exe, _MAX_PATH_BYTES, keep_end=True),
        user=_cut(chosen.user, _MAX_NAME_BYTES),
        unit=_cut(chosen.unit, _MAX_NAME_BYTES),
        container=_cut(chosen.container, _MAX_NAME_BYTES),
        share=min(max(chosen.amount / contributors.amount, 0.0), 1.0) if adds_up and contributors.amount > 0 else None,
        other_process_count=contributors.process_count - 1,
        started=started,
        command=None,
        parents=() if process is None else tuple((pid, _cut(name, _MAX_NAME_BYTES)) for pid, name in process.parents),
        has_exited=process is None,
        is_hidden=process is not None and process.is_hidden,
        unread=UnreadReason.LATE if is_wanted else None,
    )


def _with_program(top: TopProcess | None, find_program: ProgramLookup | None) -> TopProcess | None:
    if top is None or top.has_exited or find_program is None:
        return top
    found = find_program(top.pid, top.container)
    if found is None:
        return top
    program = replace(
        found,
        path=_cut(found.path, _MAX_PATH_BYTES, keep_end=True),
        notes=tuple(_cut(note, _MAX_PATH_BYTES) for note in found.notes),
    )
    return replace(top, program=program)


def _better_known(before: TopProcess | None, now: TopProcess | None, chosen: TopProcess | None) -> TopProcess | None:
    """Return the process of which more is known: `before` has the command of a process that has exited `now`."""
    if before is None or chosen is None or before.has_exited:
        return chosen or before
    if now is not None and now.has_exited:
        return replace(before, has_exited=True, unread=None) if now.pid == before.pid else before
    if chosen.unread is not None and chosen.pid == before.pid and before.unread is None:
        return replace(chosen, command=before.command, exe=before.exe, unread=None)
    return chosen


def _cut_to_size(evidence: Evidence) -> Evidence:
    """Return `evidence` cut to `MAX_EVIDENCE_BYTES`: first the command line is cut, then the smallest peers."""
    while _size(evidence) > MAX_EVIDENCE_BYTES:
        process = evidence.top_process
        if process is not None and process.command is not None and len(process.command) > len(_ELLIPSIS):
            command = _cut(process.command, len(_utf8(process.command)) // 2)
            evidence = replace(evidence, top_process=replace(process, command=command))
        elif evidence.peers:
            evidence = replace(evidence, peers=evidence.peers[:-1])
        elif evidence.left_out is not None and evidence.left_out.largest:
            left_out = replace(evidence.left_out, largest=evidence.left_out.largest[:-1])
            evidence = replace(evidence, left_out=left_out)
        elif process is not None:
            evidence = replace(evidence, top_process=None)
        else:
            evidence = replace(evidence, history=())
    return evidence


def _size(evidence: Evidence) -> int:
    return len(json.dumps(evidence.to_json(), separators=(",", ":")))


def _cut(text: str, max_bytes: int, *, keep_end: bool = False) -> str:
    """Return `text` cut to `max_bytes` of UTF-8: its beginning, or with `keep_end` its end, for paths."""
    if len(_utf8(text)) <= max_bytes:
        return text
    room = max_bytes - len(_utf8(_ELLIPSIS))
    pieces: Sequence[str] = text[::-1] if keep_end else text
    kept: list[str] = []
    for piece in pieces:
        room -= len(_utf8(piece))
        if room < 0:
            break
        kept.append(piece)
    return _ELLIPSIS + "".join(reversed(kept)) if keep_end else "".join(kept) + _ELLIPSIS


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _cut_groups(found: LeftOutGroups) -> LeftOutGroups:
    def cut(text: str) -> str:
        return _cut(text, _MAX_NAME_BYTES)

    largest = tuple(
        replace(one, labels=tuple((name, cut(value)) for name, value in one.labels), user=cut(one.user))
        for one in found.largest
    )
    return replace(found, largest=largest, by_user=tuple((cut(user), count) for user, count in found.by_user))


def _left_out_from_json(document: Mapping[str, Any] | None) -> LeftOutGroups | None:
    if document is None:
        return None
    largest = tuple(
        LeftOutGroup(
            tuple((str(name), str(value)) for name, value in one["labels"]),
            float(one["amount"]),
            str(one["user"]),
            int(one["pid"]),
        )
        for one in document["largest"]
    )
    by_user = tuple((str(user), int(count)) for user, count in document["by_user"])
    return LeftOutGroups(largest, by_user, int(document["user_count"]))


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _program_from_json(document: Mapping[str, Any] | None) -> ProgramFile | None:
    if document is None:
        return None
    notes = tuple(map(str, document["notes"]))
    return ProgramFile(str(document["path"]), str(document["device"]), int(document["inode"]), notes)


def _peer_from_json(document: Mapping[str, Any]) -> Peer:
    counted = {name: tuple((str(one), int(count)) for one, count in document[name]) for name in ("states", "failures")}
    numbers = {name: int(document[name]) for name in ("port", "connections", "bytes_sent", "bytes_received")}
    return Peer(**{**document, **counted, **numbers, "amount": float(document["amount"])})
