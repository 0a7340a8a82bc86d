"""Selection of the rows of a snapshot by a rule's `where`, vectorised over the rows.

A pattern is matched once against each distinct value: the result is kept by the value's code, which keeps its meaning
while the daemon runs. Addresses are compared as numbers, IPv4 as ::ffff:a.b.c.d.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from watchdog.measure.catalogue import ABSENT_CODE, DIMENSIONS, OTHER_CODE, UNKNOWN_CODE, DimensionKind
from watchdog.measure.snapshot import AddressHalves, Codes, Snapshot
from watchdog.rules.language.rule import Condition, Labels

Mask = NDArray[np.bool_]
Exclusion = tuple[Condition, ...]
"""Conditions of an exception: a row that meets all of them does not count."""

_ALL_ONES = 2**64 - 1
_MAX_RESULTS = 1 << 17
_MAPPED = 0xFFFF << 32  # ::ffff:0:0/96, RFC 4291 section 2.5.5.2


class _Matcher(Protocol):
    """Decides one condition for every row."""

    def mask(self, snapshot: Snapshot) -> Mask: ...


class Selection:
    """The conditions of all rules: each decided once a tick, however many rules share it."""

    def __init__(self) -> None:
        """Start without conditions."""
        self._matchers: dict[Condition, _Matcher] = {}
        self._masks: dict[Condition, Mask] = {}
        self._snapshot: Snapshot | None = None

    def mask(self, snapshot: Snapshot, where: Sequence[Condition]) -> Mask | None:
        """Return a mask of the rows that meet every condition, (n,) of bool; None without conditions."""
        self._take(snapshot)
        result: Mask | None = None
        for condition in where:
            one = self._condition(snapshot, condition)
            result = one if result is None else result & one
        return result

    def counted(self, snapshot: Snapshot, where: Sequence[Condition], exclusions: Iterable[Exclusion]) -> Mask | None:
        """Return a mask of the rows that meet `where` and not all conditions of any exclusion; None: every row."""
        result = self.mask(snapshot, where)
        for exclusion in exclusions:
            excluded = self.mask(snapshot, exclusion)
            if excluded is not None:
                result = ~excluded if result is None else result & ~excluded
        return result

    def possible(
        self,
        snapshot: Snapshot,
        where: Sequence[Condition],
        rows: NDArray[np.intp],
        exclusions: Iterable[Exclusion] = (),
    ) -> Mask:
        """Return a mask of `rows`: those that are counted, or may be because their value is lost."""
        self._take(snapshot)
        result = np.ones(len(rows), np.bool_)
        for condition in where:
            result &= self._condition(snapshot, condition)[rows] | _is_lost(snapshot, condition.dimension, rows)
        for exclusion in exclusions:
            certain = np.ones(len(rows), np.bool_)  # a lost value meets no condition
            for condition in exclusion:
                certain &= self._condition(snapshot, condition)[rows]
            result &= ~certain
        return result

    def release(self) -> None:
        """Release the newest snapshot and its masks."""
        self._snapshot, self._masks = None, {}

    def retain_only(self, conditions: Iterable[Condition]) -> None:
        """Forget every condition that is not among `conditions`."""
        wanted = set(conditions)
        self._matchers = {condition: matcher for condition, matcher in self._matchers.items() if condition in wanted}

    def _take(self, snapshot: Snapshot) -> None:
        if snapshot is not self._snapshot:
            self._snapshot, self._masks = snapshot, {}

    def _condition(self, snapshot: Snapshot, condition: Condition) -> Mask:
        if condition not in self._masks:
            if condition not in self._matchers:
                self._matchers[condition] = _matcher(condition)
            self._masks[condition] = self._matchers[condition].mask(snapshot)
        return self._masks[condition]


def _is_lost(snapshot: Snapshot, dimension: str, rows: NDArray[np.intp]) -> Mask:
    """Return a mask of `rows`: those without their value of `dimension`, which is lost."""
    if DIMENSIONS[dimension].kind is not DimensionKind.ADDRESS:
        return np.isin(snapshot.dimensions[dimension][rows], (UNKNOWN_CODE, OTHER_CODE))
    # The codes of addresses are made on demand, at a cost: an address is lost together with its port.
    without = (snapshot.addresses[dimension][rows] == _ALL_ONES).all(axis=1)
    port = "local_port" if dimension == "local" else "remote_port"
    return np.asarray(without & (snapshot.dimensions[port][rows] == UNKNOWN_CODE))


def _matcher(condition: Condition) -> _Matcher:
    match DIMENSIONS[condition.dimension].kind:
        case DimensionKind.NUMBER:
            return _NumberMatcher(condition)
        case DimensionKind.ADDRESS:
            return _AddressMatcher(condition)
        case _:
            return _GlobMatcher(condition)


def can_select(where: Iterable[Condition], labels: Labels) -> bool:
    """Return whether rows of the group with `labels` can meet `where`: conditions on other dimensions are open.

    A label that is no value of its dimension, of a damaged file, meets no condition.
    """
    values = dict(labels)
    try:
        return all(_text_meets(one, values[one.dimension]) for one in where if one.dimension in values)
    except (OverflowError, ValueError):
        return False


def is_excluded(exclusions: Iterable[Exclusion], labels: Labels) -> bool:
    """Return whether an exclusion is certain to exclude all rows of the group with `labels`."""
    names = dict(labels).keys()
    return any({one.dimension for one in each} <= names and can_select(each, labels) for each in exclusions)


def _text_meets(condition: Condition, text: str) -> bool:
    match DIMENSIONS[condition.dimension].kind:
        case DimensionKind.NUMBER:
            number = np.frombuffer(int(text).to_bytes(4, "little"), "<u4")  # numpy 1 lets greater numbers wrap
            found = [bool(_within(number, map(_bounds, patterns)).any()) for patterns in _pattern_lists(condition)]
        case DimensionKind.ADDRESS:
            (upper, lower), _ = parse_address_block(text)
            halves = np.array([[upper, lower]], dtype=np.uint64)
            blocks = [map(parse_address_block, patterns) for patterns in _pattern_lists(condition)]
            found = [bool(_inside(halves, one).any()) for one in blocks]
        case _:
            globs = [_globs(patterns) for patterns in _pattern_lists(condition)]
            found = [one is not None and one.match(text) is not None for one in globs]
    return (found[0] or not condition.any_of) and not found[1]


def _pattern_lists(condition: Condition) -> tuple[Sequence[str], Sequence[str]]:
    return condition.any_of, condition.none_of


class _GlobMatcher:
    """Globs over names and choices: `_results[i]` is the result for the code `_codes[i]`.

    A code's index is its lower bits, for codes are counted up: there is room for as many names as there can be.
    """

    def __init__(self, condition: Condition) -> None:
        self._condition = condition
        self._any_of = _globs(condition.any_of)
        self._none_of = _globs(condition.none_of)
        self._reset(64)

    def mask(self, snapshot: Snapshot) -> Mask:
        codes = snapshot.dimensions[self._condition.dimension]
        indices = codes & np.uint32(len(self._codes) - 1)
        new = self._codes[indices] != codes
        if not new.any():
            return np.take(self._results, indices)
        unmatched = np.unique(codes[new])
        self._matched += len(unmatched)
        if self._matched > len(self._codes) // 2 and len(self._codes) < _MAX_RESULTS:
            self._reset(min(1 << (2 * self._matched).bit_length(), _MAX_RESULTS))
            return self.mask(snapshot)
        results = np.fromiter((self._matches(snapshot, code) for code in unmatched.tolist()), np.bool_, len(unmatched))
        mask: Mask = self._results[indices]
        mask[new] = results[unmatched.searchsorted(codes[new])]
        indices = unmatched & np.uint32(len(self._codes) - 1)
        # Of two codes that share an index, one stays: the one that numpy writes last, with its own result.
        self._codes[indices] = unmatched
        kept = self._codes[indices] == unmatched
        self._results[indices[kept]] = results[kept]
        return mask

    def _reset(self, size: int) -> None:
        self._codes = np.full(size, UNKNOWN_CODE, dtype=np.uint32)
        self._results = np.zeros(size, dtype=np.bool_)
        self._matched = 0

    def _matches(self, snapshot: Snapshot, code: int) -> bool:
        if code >= OTHER_CODE:
            return False
        text = snapshot.names.text(self._condition.dimension, code)
        wanted = self._any_of is None or self._any_of.match(text) is not None
        return wanted and (self._none_of is None or self._none_of.match(text) is None)


def _globs(patterns: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns)) if patterns else None


class _NumberMatcher:
    """Numbers and ranges, both ends included."""

    def __init__(self, condition: Condition) -> None:
        self._condition = condition
        self._any_of = [_bounds(pattern) for pattern in condition.any_of]
        self._none_of = [_bounds(pattern) for pattern in condition.none_of]

    def mask(self, snapshot: Snapshot) -> Mask:
        numbers = snapshot.dimensions[self._condition.dimension]
        result = _within(numbers, self._any_of) if self._any_of else numbers < ABSENT_CODE
        return result & ~_within(numbers, self._none_of) if self._none_of else result


def _bounds(pattern: str) -> tuple[int, int]:
    low, _, high = pattern.partition("-")
    return int(low), int(high or low)


def _within(numbers: Codes, ranges: Iterable[tuple[int, int]]) -> Mask:
    result = np.zeros(len(numbers), dtype=np.bool_)
    for low, high in ranges:
        result |= (numbers >= low) & (numbers <= high)
    return result


class _AddressMatcher:
    """CIDR blocks and single addresses, each as (network, mask) of two 64-bit halves."""

    def __init__(self, condition: Condition) -> None:
        self._condition = condition
        self._any_of = [parse_address_block(pattern) for pattern in condition.any_of]
        self._none_of = [parse_address_block(pattern) for pattern in condition.none_of]

    def mask(self, snapshot: Snapshot) -> Mask:
        halves = snapshot.addresses[self._condition.dimension]
        # All ones: no address (RFC 4291 section 2.7 has none such); it is in no block, excluding ones included.
        result: Mask = (halves != _ALL_ONES).any(axis=1)
        if self._any_of:
            result &= _inside(halves, self._any_of)
        return result & ~_inside(halves, self._none_of) if self._none_of else result


AddressBlock = tuple[tuple[int, int], tuple[int, int]]  # (network, mask), each as (upper, lower) half


def parse_address_block(pattern: str) -> AddressBlock:
    """Read an address or CIDR block; the mask of a single address is all ones.

    Raises:
        ValueError: it is neither.
    """
    network = ipaddress.ip_network(pattern, strict=False)
    address, length = int(network.network_address), network.prefixlen
    if network.version == 4:  # noqa: PLR2004 - the version of IPv4 is 4
        address, length = address | _MAPPED, length + 96
    mask = (1 << 128) - (1 << (128 - length))
    return (address >> 64, address & _ALL_ONES), (mask >> 64, mask & _ALL_ONES)


def _inside(halves: AddressHalves, blocks: Iterable[AddressBlock]) -> Mask:
    result = np.zeros(len(halves), dtype=np.bool_)
    for network, mask in blocks:
        inside = np.ones(len(halves), dtype=np.bool_)
        for half in (0, 1):
            if mask[half]:
                inside &= (halves[:, half] & np.uint64(mask[half])) == np.uint64(network[half])
        result |= inside
    return result
