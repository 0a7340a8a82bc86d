"""Who a connection belongs to: process, executable, user, unit and container, from the kernel's notes of its owner."""

from __future__ import annotations

import pwd
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from watchdog.clock import SECOND_NS
from watchdog.kernel.layout import OWNER
from watchdog.measure.catalogue import UNATTRIBUTED
from watchdog.measure.cgroup import Cgroups, unit_and_container
from watchdog.measure.names import HORIZON_NS, HostNames
from watchdog.measure.snapshot import Codes

_NAMED = ("process", "exe", "user", "unit", "container")
_WORDS = OWNER.itemsize // 8
# Odd multipliers of a multiply-and-add hash over the owner's words.
_MULTIPLIERS = np.array([pow(0x9E3779B97F4A7C15, 2 * word + 3, 1 << 64) for word in range(_WORDS)], np.uint64)
_REFRESH_NS = 60 * SECOND_NS


@dataclass(slots=True)
class _Process:
    codes: tuple[int, ...]
    texts: tuple[str, ...]
    used_ns: int


class Identity:
    """Resolves owners once each and remembers them."""

    def __init__(self, names: HostNames, cgroups: Cgroups) -> None:
        """Give codes out of `names`."""
        self._names = names
        self._cgroups = cgroups
        self._processes: dict[int, _Process] = {}
        self._cleaned_ns = 0

    def codes(self, owners: NDArray[np.void], at_ns: int) -> dict[str, Codes]:
        """Return the code columns `process exe pid user unit container`, each (n,), for `owners`, (n,) of `OWNER`."""
        words = np.ascontiguousarray(owners).view("<u8").reshape(-1, _WORDS)
        keys = (words * _MULTIPLIERS).sum(axis=1, dtype=np.uint64)
        unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        table = np.empty((len(unique), len(_NAMED)), np.uint32)
        for number, (key, index) in enumerate(zip(unique.tolist(), first.tolist(), strict=True)):
            table[number] = self._process(key, owners[index], at_ns).codes
        self._clean(at_ns)
        columns = {name: table[inverse, column] for column, name in enumerate(_NAMED)}
        columns["pid"] = owners["tgid"].astype(np.uint32)
        return columns

    def _process(self, key: int, owner: np.void, at_ns: int) -> _Process:
        process = self._processes.get(key)
        if process is None:
            texts = self._resolve(owner)
            process = self._processes[key] = _Process((), texts, 0)
        if at_ns - process.used_ns > _REFRESH_NS or not process.codes:
            process.codes = tuple(
                self._names.code(name, text, at_ns) for name, text in zip(_NAMED, process.texts, strict=True)
            )
            process.used_ns = at_ns
        return process

    def _resolve(self, owner: np.void) -> tuple[str, ...]:
        pid = int(owner["tgid"])
        if not pid:
            return (UNATTRIBUTED, "", "", "", "")
        comm, exe = os_text(bytes(owner["comm"])), os_text(bytes(owner["exe"]))
        unit, container = unit_and_container(self._cgroups.path(pid, int(owner["cgroup_id"])))
        return (comm, exe, _user(int(owner["uid"])), unit, container)

    def _clean(self, at_ns: int) -> None:
        if at_ns - self._cleaned_ns < HORIZON_NS // 12:
            return
        self._cleaned_ns = at_ns
        # Half the horizon: whoever comes back gets codes that are still known.
        gone = [key for key, process in self._processes.items() if process.used_ns < at_ns - HORIZON_NS // 2]
        for key in gone:
            del self._processes[key]
        self._names.forget(at_ns)


def os_text(raw: bytes) -> str:
    """Return bytes of the kernel as text; what is not UTF-8 is kept as lone surrogates."""
    return raw.decode("utf-8", "surrogateescape")


@lru_cache(4096)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
