"""Attribution: process, executable, user, unit and container of a connection, from the owner in its record."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from watchdog.clock import SECOND_NS
from watchdog.kernel.layout import OWNER
from watchdog.measure.catalogue import OTHER_CODE, UNATTRIBUTED, UNKNOWN_CODE
from watchdog.measure.cgroup import Cgroups
from watchdog.measure.cgroup_path import CgroupPlace, find_place
from watchdog.measure.interning import InternedNames
from watchdog.measure.slot_table import NEVER_NS, Slots, SlotTable
from watchdog.measure.snapshot import Codes
from watchdog.measure.users import UserNames

OWNER_DIMENSIONS = ("process", "exe", "user", "unit", "container")
"""Dimensions of a connection that are names of its owner."""

_USER = OWNER_DIMENSIONS.index("user")
_WORDS = OWNER.itemsize // 8
_UID_FIELD = (OWNER.names or ()).index("uid")
_START_WORD = 0
_UID_WORD = 2  # tgid in its lower half, uid in the upper one
_UNKNOWN_SLOT = 0  # for owners without a slot: all their names are unknown
_MAX_OWNERS = 1 << 17  # owners at a time, 20 MB
_CROWDED_OWNERS = _MAX_OWNERS // 2
_KEPT_TICKS = 8  # ticks without a connection after which an owner is forgotten; 1 where owners are crowded
_MAX_RETRIES = 256  # owners per tick that are resolved again, because a name was unknown before
_REFRESH_NS = 15 * SECOND_NS
_MAX_LOOK_UP_SECONDS = 0.2  # in files, of each of three steps of a tick: strangers choose the number of processes


class Attribution:
    """Resolves each owner once, and keeps the result while the owner has connections."""

    def __init__(self, names: InternedNames, cgroups: Cgroups, users: UserNames) -> None:
        """Resolve owners to codes of `names`."""
        self._names = names
        self._cgroups = cgroups
        self._users = users
        # The key is the whole struct owner, so that no process can be taken for another.
        self._owners = SlotTable([np.uint64] * _WORDS, reserved=_UNKNOWN_SLOT + 1, max_slots=_MAX_OWNERS)
        self._codes = np.full((_UNKNOWN_SLOT + 1, len(OWNER_DIMENSIONS)), UNKNOWN_CODE, np.uint32)
        self._shown = self._codes
        self._known = np.ones(_UNKNOWN_SLOT + 1, np.bool_)
        self._is_host_user = np.zeros(_UNKNOWN_SLOT + 1, np.bool_)
        self._ticks_ns = deque([NEVER_NS], maxlen=_KEPT_TICKS)
        self._refreshed_ns = NEVER_NS
        self._shown_users: dict[int, str] = {}

    def assign(self, owners: NDArray[np.void], live: Slots, at_ns: int) -> Slots:
        """Return the slot of each of `owners`, (n,) of `OWNER`. `live`: the slots of all other live connections."""
        self._owners.seen_ns[live] = at_ns
        words = np.ascontiguousarray(owners[:, np.newaxis].view("<u8").T)
        kept_since_ns = self._ticks_ns[-1 if self._owners.size > _CROWDED_OWNERS else 0]
        slots = self._owners.assign(list(words), at_ns, kept_since_ns)
        self._ticks_ns.append(at_ns)
        slots[slots < 0] = _UNKNOWN_SLOT
        self._grow()
        new = self._owners.new_slots
        self._known[new] = True
        self._resolve_again(slots, at_ns)
        self._resolve_again(live, at_ns)
        self._resolve(new, at_ns)
        if len(new) or at_ns - self._refreshed_ns >= _REFRESH_NS:
            self._refresh_users(at_ns)
        if at_ns - self._refreshed_ns >= _REFRESH_NS:
            self._mark_names_used(at_ns)
        self._shown = self._with_other_names()
        return slots

    def codes(self, name: str, slots: Slots) -> Codes:
        """Return the codes of the dimension `process`, `exe`, `user`, `unit` or `container`, (n,), of owners."""
        codes: Codes = self._shown[slots, OWNER_DIMENSIONS.index(name)]
        return codes

    def accounts(self, slots: Slots) -> Codes:
        """Return the uids of owners, (n,)."""
        return (self._owners.keys[_UID_WORD][slots] >> np.uint64(32)).astype(np.uint32)

    def find_nameless(self, slots: Slots) -> NDArray[np.intp]:
        """Return the indices of `slots` with an unknown name, because there are too many names."""
        nameless = (self._codes[: self._owners.size] == UNKNOWN_CODE).any(axis=1)
        return np.flatnonzero(nameless[slots])

    def process_start_ns(self, pid: int) -> int | None:
        """Return the start, CLOCK_BOOTTIME, of the newest process with this `pid`; None if it owned no connection."""
        slots = np.flatnonzero(self._owners.keys[_UID_WORD][: self._owners.size].astype(np.uint32) == np.uint32(pid))
        if not len(slots):
            return None
        return int(self._owners.keys[_START_WORD][slots[self._owners.seen_ns[slots].argmax()]])

    def _with_other_names(self) -> Codes:
        """Return the codes with all names without space as one.

        A name without space is not that of any group with a name: known names keep their code. Owners without a slot
        have no known name at all: these can be of any group.
        """
        codes = self._codes[: self._owners.size]
        without_space = codes == UNKNOWN_CODE
        return np.where(without_space, np.uint32(OTHER_CODE), codes) if without_space.any() else codes

    def _grow(self) -> None:
        grown = self._owners.capacity - len(self._codes)
        if grown:
            self._codes = np.concatenate((self._codes, np.zeros((grown, len(OWNER_DIMENSIONS)), np.uint32)))
            self._known = np.concatenate((self._known, np.zeros(grown, np.bool_)))
            self._is_host_user = np.concatenate((self._is_host_user, np.zeros(grown, np.bool_)))

    def _resolve_again(self, slots: Slots, at_ns: int) -> None:
        unknown = slots[~self._known[slots]]
        if len(unknown):
            self._resolve(np.unique(unknown)[:_MAX_RETRIES], at_ns)

    def _resolve(self, slots: Slots, at_ns: int) -> None:
        owners = np.stack([word[slots] for word in self._owners.keys], axis=1).view(OWNER).reshape(-1)
        end = time.perf_counter() + _MAX_LOOK_UP_SECONDS
        for slot, owner in zip(slots.tolist(), map(tuple, owners.tolist()), strict=True):
            texts, final = self._texts(slot, owner, at_ns, look_up=time.perf_counter() < end)
            named = zip(OWNER_DIMENSIONS, texts, strict=True)
            codes = [self._names.intern(name, text, owner[_UID_FIELD], at_ns) for name, text in named]
            self._codes[slot] = codes
            self._known[slot] = final and UNKNOWN_CODE not in codes

    def _texts(self, slot: int, owner: tuple[Any, ...], at_ns: int, *, look_up: bool) -> tuple[tuple[str, ...], bool]:
        """Return the texts of the owner in this slot, and whether they are final.

        Without `look_up` its group is left for a later tick.
        """
        start_ns, cgroup_id, tgid, uid, comm, exe = owner
        self._is_host_user[slot] = False
        if not tgid:
            return (UNATTRIBUTED, "", "", "", ""), True
        path = self._cgroups.find_path(tgid, start_ns, cgroup_id, at_ns) if look_up else None
        place = self._find_place(path or "")
        self._is_host_user[slot] = is_host_user = place.is_host_user(uid)
        return (
            decode_kernel_text(comm),
            decode_kernel_text(exe),
            self._users.name(uid) if is_host_user else str(uid),
            place.unit,
            place.container,
        ), path is not None

    def _find_place(self, path: str) -> CgroupPlace:
        place = find_place(path)
        service_user = self._cgroups.user_of(place.service) if place.service else 0
        return find_place(path, service_user) if service_user else place

    def _refresh_users(self, at_ns: int) -> None:
        """Request lookups of user names, and store the names that became known."""
        kept = self._owners.seen_ns[: self._owners.size] > self._ticks_ns[0]
        words = self._owners.keys[_UID_WORD][: self._owners.size]
        uids = words >> np.uint64(32)
        kept &= self._is_host_user[: self._owners.size]
        used = np.unique(uids[kept]).tolist()
        self._users.update(used, at_ns)
        names = {uid: self._users.name(uid) for uid in used}
        for uid, name in names.items():
            if self._shown_users.get(uid, name) != name:
                same = np.flatnonzero(kept & (uids == uid))
                self._codes[same, _USER] = code = self._names.intern("user", name, uid, at_ns)
                self._known[same] &= code != UNKNOWN_CODE
        self._shown_users = names

    def _mark_names_used(self, at_ns: int) -> None:
        """Mark the names in use, and forget the names that were unused for long."""
        used = self._owners.seen_ns[: self._owners.size] > self._refreshed_ns
        self._refreshed_ns = at_ns
        for column, name in enumerate(OWNER_DIMENSIONS):
            self._names.mark_used(name, np.unique(self._codes[: self._owners.size][used, column]).tolist(), at_ns)
        self._names.forget_unused(at_ns)


def decode_kernel_text(raw: bytes) -> str:
    """Return bytes of the kernel as text; bytes that are not UTF-8 become lone surrogates."""
    return raw.decode("utf-8", "surrogateescape")
