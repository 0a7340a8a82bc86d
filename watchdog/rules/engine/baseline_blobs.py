"""The saved form of a baseline: parts of some thousand groups, each readable alone.

Columns are compressed: 33 bytes a group instead of 110 where groups share a rhythm, 76 where each has noise of its own.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from watchdog.errors import DocumentError, document_errors
from watchdog.rules.engine.baseline_groups import BaselineGroups
from watchdog.rules.engine.rule_baseline import RuleBaseline

PART_ROWS: Final = 8_192
_LEVEL = 3  # of zlib


@dataclass(frozen=True, slots=True)
class BaselinePart:
    """A part of the saved baseline of one rule; `digest`: of its definition. `number` counts from 0, below `parts`."""

    rule: str
    digest: str
    number: int
    parts: int
    content: bytes


def part_count(baseline: RuleBaseline) -> int:
    """Return the number of parts of `baseline`, at least 1."""
    return max(-(-len(baseline.groups) // PART_ROWS), 1)


def dump_part(rule: str, baseline: RuleBaseline, number: int) -> BaselinePart:
    """Return the part `number` of `baseline`."""
    rows = slice(number * PART_ROWS, min((number + 1) * PART_ROWS, len(baseline.groups)))
    header = {
        "groups": rows.stop - rows.start,
        "learnt_hours": baseline.learnt_hours,
        "hour": baseline.hour.number,
        "covered_seconds": baseline.hour.covered_seconds,
    }
    columns = b"".join(_packed(name, getattr(owner, name)[..., rows]) for owner, name in _columns(baseline))
    content = zlib.compress(json.dumps(header).encode() + b"\n" + columns, _LEVEL)
    return BaselinePart(rule, baseline.digest, number, part_count(baseline), content)


def load_parts(baseline: RuleBaseline, parts: Sequence[BaselinePart]) -> int:
    """Load `parts`, all of one rule, into the new `baseline`; return the number of unreadable ones, which are skipped.

    Parts can be of two hours, if the daemon died while it saved: the newest hour counts.
    """
    unreadable, newest = 0, -1
    for part in sorted(parts, key=lambda one: one.number):
        try:
            header, columns = _parse(baseline, part.content)
        except DocumentError:
            unreadable += 1
            continue
        _append(baseline, columns)
        baseline.learnt_hours = max(baseline.learnt_hours, header["learnt_hours"])
        if header["hour"] is not None and header["hour"] > newest:
            newest = header["hour"]
            baseline.hour.resume(newest, header["covered_seconds"])
    baseline.set_limits()
    return unreadable


@document_errors()
def _parse(baseline: RuleBaseline, content: bytes) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    try:
        head, _, rest = zlib.decompress(content).partition(b"\n")
    except zlib.error as error:
        raise ValueError(str(error)) from error
    header = json.loads(head)
    count, place, columns = int(header["groups"]), 0, []
    int(header["learnt_hours"]), float(header["covered_seconds"]), int(header["hour"] or 0)
    for owner, name in _columns(baseline):
        column = getattr(owner, name)
        shape = (*column.shape[:-1], count)
        size = int(np.prod(shape)) * column.dtype.itemsize
        columns.append(_unpacked(name, rest[place : place + size], column.dtype, shape))
        place += size
    if place != len(rest):
        raise ValueError("not as long as its columns")
    return header, columns


def _append(baseline: RuleBaseline, columns: Iterable[NDArray[Any]]) -> None:
    """Add the groups of a part; those that an earlier part has are skipped."""
    found = list(columns)
    keys = found[0]
    _, firsts = np.unique(keys, return_index=True)
    new = np.sort(firsts[baseline.groups.find(keys[firsts]) < 0])
    first = len(baseline.groups)
    baseline.groups.add(keys[new], np.zeros(len(new), np.int32))
    baseline.columns.add(len(new))
    for (owner, name), column in zip(_columns(baseline), found, strict=True):
        getattr(owner, name)[..., first : first + len(new)] = column[..., new]


def _columns(baseline: RuleBaseline) -> Iterator[tuple[Any, str]]:
    yield from ((baseline.groups, name) for name in BaselineGroups.SAVED)  # the keys first
    yield from baseline.columns.columns()


def _packed(name: str, column: NDArray[Any]) -> bytes:
    """Return the bytes of a column; hours as their difference to the hour before, which compresses better."""
    if name == "slots":
        column = column.copy()
        column[1:] -= column[:-1].copy()  # modulo 2^16
    return column.tobytes()


def _unpacked(name: str, data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    column = np.frombuffer(data, dtype).reshape(shape)
    return np.cumsum(column, axis=0, dtype=dtype) if name == "slots" else column
