"""The control group of a process, also of an ended process and of a group that is gone."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from watchdog.kernel.process_stat import PROC, read_process_stat

_MAX_CACHED_PATHS = 8192
_MAX_WALKED_GROUPS = 16_384  # users with a delegated group can create very many
_MAX_MADE_GROUPS = 16_384  # 5 MB; bpf/cgroup.bpf.c reports at most 64 a second of each user or container
_MAX_DEPTH = 64  # groups of one path that are followed: users can nest them some thousand deep
_ROOT_INODE = 1
_MIN_PAUSE = 20  # pause between two walks through all groups, as a multiple of the duration of a walk
_LEAF_LINKS = 2
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class _MadeGroup:
    parent: int  # inode
    maker: int  # effective user
    name: str


class Cgroups:
    """Finds the control group of a process by the inode number of the group.

    The kernel half reports the groups that are made, one walk finds those that exist at the start, and both are kept
    when the group is gone. The group of a live process is in /proc. Any other group is searched among all groups, in a
    limited share of the time. Paths of recently used groups are cached: the last connections of a process arrive after
    its end.
    """

    def __init__(self, proc: Path = PROC, root: Path = Path("/sys/fs/cgroup")) -> None:
        """Search in `proc` and below `root`, where cgroup v2 is mounted at the top or in `unified`."""
        self._proc = proc
        self._root = root / "unified" if (root / "unified").is_dir() else root
        self._made: dict[int, _MadeGroup] = {}  # by inode, oldest first
        self._walked: dict[int, str] = {}
        self._cached: dict[int, str] = {}  # the most recently used path is the last
        self._delegated: dict[str, int] = {}  # path of a group -> the user, not root, of a group made in it
        self._next_walk_ns: int | None = None

    def add(self, groups: NDArray[np.void], at_ns: int) -> None:
        """Take the groups made since the previous call, (n,) of `CGROUP`. The first call walks through all groups."""
        if self._next_walk_ns is None:
            self._walk(at_ns)
        for inode, parent, maker, _, name in groups.tolist():
            self._made[inode] = _MadeGroup(parent, maker, os.fsdecode(name))
        for inode in list(islice(self._made, max(0, len(self._made) - _MAX_MADE_GROUPS))):
            del self._made[inode]

    def find_path(self, pid: int, start_ns: int, inode: int, at_ns: int) -> str | None:
        """Return the path of the group with this inode, else of the process; "" if neither is known.

        None: not known yet, call again at a later tick. `start_ns`: start of the process, CLOCK_BOOTTIME. `inode`: id
        of the group at the time when the process became the owner of the socket; 0 and 1 (the root) identify no group,
        as on hosts with v1 controllers only.
        """
        if inode <= _ROOT_INODE:
            return self._of_process(pid, start_ns)
        path = self._cached.pop(inode, None)
        own = ""
        if path is None:
            path = self._made_path(inode)
        if path is None:
            own = self._of_process(pid, start_ns)
            path = own if own and self._is_inode(own, inode) else self._search_all(inode, at_ns)
        if path is None:
            return None
        _keep(self._cached, inode, path)
        return path or own or self._of_process(pid, start_ns)

    def user_of(self, path: str) -> int:
        """Return the user to whom the group with this path belongs; 0: root, or not known because the group is gone.

        A group that is gone belonged to the maker of the groups in it.
        """
        try:
            return (self._root / path.lstrip("/")).stat().st_uid
        except OSError:
            return self._delegated.get(path, 0)

    def _made_path(self, inode: int) -> str | None:
        """Return the path of a group that was reported by the kernel half; None if it or its parents are not known."""
        chain: list[_MadeGroup] = []
        while (made := self._made.get(inode)) and len(chain) < _MAX_DEPTH:
            chain.append(made)
            inode = made.parent
        top = "" if inode == _ROOT_INODE else self._cached.get(inode) or self._walked.get(inode)
        if top is None or not chain:
            return None
        path = top.rstrip("/")
        for made in reversed(chain):
            if made.maker:
                _keep(self._delegated, path, made.maker)
            path += f"/{made.name}"
        return path

    def _of_process(self, pid: int, start_ns: int) -> str:
        try:
            text = (self._proc / str(pid) / "cgroup").read_bytes().decode("utf-8", "replace")
        except OSError:
            return ""
        stat = read_process_stat(pid, self._proc)  # after the group: the pid still has the same process
        if stat is None or not stat.has_start(start_ns):
            return ""
        # A name can hold every line end that Python knows but the line feed (cgroup_mkdir(), kernel/cgroup/cgroup.c).
        paths = dict(line.split(":", 2)[1:] for line in text.split("\n") if line.count(":") > 1)
        # The line of v2 has no controllers. With v1, systemd's hierarchy has the units.
        candidates = [paths.get("", ""), paths.get("name=systemd", ""), *paths.values()]
        return next((path for path in candidates if path.strip("/")), "")

    def _is_inode(self, path: str, inode: int) -> bool:
        try:
            return (self._root / path.lstrip("/")).stat().st_ino == inode
        except OSError:
            return False

    def _search_all(self, inode: int, at_ns: int) -> str | None:
        if inode not in self._walked:
            if self._next_walk_ns is not None and at_ns < self._next_walk_ns:
                return None
            self._walk(at_ns)
        return self._walked.get(inode, "")

    def _walk(self, at_ns: int) -> None:
        began = time.perf_counter_ns()
        found = dict(islice(_groups(str(self._root)), _MAX_WALKED_GROUPS))
        gone = (item for item in self._walked.items() if item[0] not in found)
        self._walked = {**found, **dict(islice(gone, _MAX_WALKED_GROUPS))}
        self._next_walk_ns = at_ns + max((time.perf_counter_ns() - began) * _MIN_PAUSE, 1)


def _keep(cache: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    cache.pop(key, None)
    cache[key] = value
    if len(cache) > _MAX_CACHED_PATHS:
        del cache[next(iter(cache))]


def _groups(root: str) -> Iterator[tuple[int, str]]:
    """Yield inode number and path of the groups below `root`, upper ones first."""
    paths = deque([""])
    while paths:
        path = paths.popleft()
        try:
            found = os.stat(root + path)  # noqa: PTH116 - Path objects would take a quarter of the walk
            yield found.st_ino, path or "/"
            # kernfs counts subfolders in the links of a folder (fs/kernfs/inode.c): one without subfolders is not read.
            if found.st_nlink != _LEAF_LINKS:
                with os.scandir(root + path) as entries:
                    paths.extend(f"{path}/{one.name}" for one in entries if one.is_dir(follow_symlinks=False))
        except OSError:
            continue  # removed during the walk
