"""Evidence: what an alert was about, taken in the tick in which it began or got worse.

The process will be gone when someone looks, and its sockets with it. So what can be known of them is kept with the
alert: it is never more than `MOST_BYTES` of JSON, whatever names processes give themselves.
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
from watchdog.measure.procfs import Process
from watchdog.rules.engine.contributors import Contributors, Peer
from watchdog.rules.language import formats
from watchdog.rules.language.rule import Rule

MAX_EVIDENCE_BYTES: Final = 4_096
MAX_COMMAND_BYTES: Final = 256
_MOST_PATH_BYTES = 128
_MOST_NAME_BYTES = 96
_CUT = "…"

NOT_TAKEN: Final = "not taken: too many alerts began at once, the worst of them have it"


def number_to_json(value: float) -> float | str:
    """Return a form of `value` that JSON has: it knows no infinities, which a share of nothing is; float() reads it."""
    return value if math.isfinite(value) else str(value)


@dataclass(frozen=True, slots=True)
class TopProcess:
    """The process that had most of the value.

    `share`: of the value, None where values do not add up. `others`: how many more processes there were. `started`:
    wall-clock seconds, None where it is not known. `command` is masked and cut, None where there is none to be had;
    `parents`: pid and name, the nearest first. `gone`: it had ended when it was last looked at; where nobody saw it
    alive, names are the kernel's, and of command and parents there is nothing.
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

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return what `Evidence.to_json` wrote."""
        return cls(**{**document, "parents": tuple((int(pid), str(name)) for pid, name in document["parents"])})


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen in the tick at `taken`, wall-clock seconds.

    `metric`: what the peers' amounts are of, written in `format`; `amount` is that of all connections, None where
    amounts do not add up, and `seconds` the time that they were measured in. `peer_count`: how many peers there were,
    told or not. `history`: what each of the newest ticks measured alone, the oldest first, None for nothing, over
    `history_seconds`, written in `history_format`. `missing`: why there is nothing, in words.
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
    missing_reason: str = ""

    def updated_with(self, newer: Evidence) -> Evidence:
        """Return `newer`, and what this one still has and `newer` could not get any more.

        A window is longer than a tick: what put the value above the limit may have been in the tick that began it, and
        nothing of it in the one that fires.
        """
        if newer.missing_reason:
            return self
        if self.has_amount and (not newer.has_amount or (self.peers and not newer.peers)):
            kept = replace(self, history=newer.history, history_seconds=newer.history_seconds)
        else:
            kept = newer
        return replace(kept, top_process=_better(self.top_process, newer.top_process, kept.top_process))

    @property
    def has_amount(self) -> bool:
        """Tell whether anything of the value was in its tick."""
        return bool(self.amount) or any(peer.amount for peer in self.peers)

    def to_json(self) -> dict[str, Any]:
        """Return what `json` can write and `from_json` reads; bytes that are no UTF-8 stay surrogate-escaped."""
        document = {name: getattr(self, name) for name in self.__slots__}
        return document | {
            "peers": [asdict(peer) for peer in self.peers],
            "top_process": None if self.top_process is None else asdict(self.top_process),
            "history": [None if value is None else number_to_json(value) for value in self.history],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> Self | None:
        """Return what `to_json` wrote; None where there is none, or none that can be read: an alert is one without."""
        try:
            if not document:
                return None
            culprit, history = document["top_process"], document["history"]
            if not document["missing_reason"] and document["metric"] not in METRICS:
                return None
            if not {document["format"], document["history_format"]} <= formats.FORMATS.keys():
                return None
            return cls(
                **{
                    **document,
                    "peers": tuple(map(_peer_from_json, document["peers"])),
                    "top_process": None if culprit is None else TopProcess.from_json(culprit),
                    "history": tuple(None if value is None else float(value) for value in history),
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
) -> Evidence:
    """Return the evidence of an instance.

    `look` tells of a pid when the process started, wall-clock seconds, and what it is, None where it is gone. Of the
    processes in `trace`, the greatest that still lives is told, for of the others there is least to be told.
    """
    unit, adds_up = METRICS[contributors.metric].unit, METRICS[contributors.metric].kind is not MetricKind.DISTRIBUTION
    return _fitted(
        Evidence(
            taken=wall,
            metric=contributors.metric,
            format=formats.natural_format(unit, per_second=False),
            amount=_known(contributors.amount),
            tick_seconds=round(contributors.tick_seconds, 3),
            peers=contributors.peers,
            peer_count=contributors.peer_count,
            top_process=_culprit(contributors, look_up_process, with_command=with_command, adds_up=adds_up),
            history=tuple(_known(float(f"{value:.4g}")) for value in contributors.history),
            history_format=wording.tick_value_format(rule),
            history_seconds=round(contributors.history_seconds, 3),
        )
    )


def _culprit(
    trace: Contributors,
    look_up_process: Callable[[int], tuple[float | None, Process | None]],
    *,
    with_command: bool,
    adds_up: bool,
) -> TopProcess | None:
    if not trace.processes:
        return None
    chosen, (started, process) = trace.processes[0], look_up_process(trace.processes[0].pid)
    for other in trace.processes[1:]:
        if process is not None:
            break
        other_started, process = look_up_process(other.pid)
        if process is not None:
            chosen, started = other, other_started
    command = mask_secrets(process.arguments) if process is not None and with_command else ""
    exe = (process.exe if process is not None else None) or chosen.exe
    return TopProcess(
        pid=chosen.pid,
        name=_cut(chosen.process, _MOST_NAME_BYTES),
        exe=_cut(exe, _MOST_PATH_BYTES, keep_end=True),
        user=_cut(chosen.user, _MOST_NAME_BYTES),
        unit=_cut(chosen.unit, _MOST_NAME_BYTES),
        container=_cut(chosen.container, _MOST_NAME_BYTES),
        share=min(max(chosen.amount / trace.amount, 0.0), 1.0) if adds_up and trace.amount > 0 else None,
        other_process_count=trace.process_count - 1,
        started=started,
        command=_cut(command, MAX_COMMAND_BYTES) or None,
        parents=() if process is None else tuple((pid, _cut(name, _MOST_NAME_BYTES)) for pid, name in process.parents),
        has_exited=process is None,
    )


def _better(before: TopProcess | None, now: TopProcess | None, chosen: TopProcess | None) -> TopProcess | None:
    """Return the one of which more is known: who is gone now was alive `before`."""
    if before is None or chosen is None or before.has_exited:
        return chosen or before
    if now is not None and now.has_exited:
        return replace(before, has_exited=True) if now.pid == before.pid else before
    return chosen


def _fitted(evidence: Evidence) -> Evidence:
    """Return as much of `evidence` as has room: the command line gives way first, then the least of the peers."""
    while _size(evidence) > MAX_EVIDENCE_BYTES:
        culprit = evidence.top_process
        if culprit is not None and culprit.command is not None and len(culprit.command) > len(_CUT):
            command = _cut(culprit.command, len(_octets(culprit.command)) // 2)
            evidence = replace(evidence, top_process=replace(culprit, command=command))
        elif evidence.peers:
            evidence = replace(evidence, peers=evidence.peers[:-1])
        elif culprit is not None:
            evidence = replace(evidence, top_process=None)
        else:
            evidence = replace(evidence, history=())
    return evidence


def _size(evidence: Evidence) -> int:
    return len(json.dumps(evidence.to_json(), separators=(",", ":")))


def _cut(text: str, most: int, *, keep_end: bool = False) -> str:
    """Return as much of `text` as fits into `most` bytes of UTF-8: its beginning, or its end, as of paths."""
    if len(_octets(text)) <= most:
        return text
    room = most - len(_octets(_CUT))
    pieces: Sequence[str] = text[::-1] if keep_end else text
    kept: list[str] = []
    for piece in pieces:
        room -= len(_octets(piece))
        if room < 0:
            break
        kept.append(piece)
    return _CUT + "".join(reversed(kept)) if keep_end else "".join(kept) + _CUT


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _peer_from_json(document: Mapping[str, Any]) -> Peer:
    counted = {name: tuple((str(one), int(count)) for one, count in document[name]) for name in ("states", "failures")}
    numbers = {name: int(document[name]) for name in ("port", "connections", "bytes_sent", "bytes_received")}
    return Peer(**{**document, **counted, **numbers, "amount": float(document["amount"])})
