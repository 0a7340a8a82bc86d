"""The control group of a process, also of an ended process."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from watchdog.kernel.process_stat import PROC, read_process_stat

_MAX_CACHED_PATHS = 8192
_MAX_WALKED_GROUPS = 16_384  # users with a delegated group can create very many
_MIN_PAUSE = 20  # pause between two walks through all groups, as a multiple of the duration of a walk
_LEAF_LINKS = 2


class Cgroups:
    """Finds the control group of a process, also of an ended process, by the inode number of the group.

    The group of a live process is in /proc. The group of an ended process is searched among all groups, in a limited
    share of the time. Paths of recently used groups are cached: the last connections of a process arrive after its end.
    """

    def __init__(self, proc: Path = PROC, root: Path = Path("/sys/fs/cgroup")) -> None:
        """Search in `proc` and below `root`, where cgroup v2 is mounted at the top or in `unified`."""
        self._proc = proc
        self._root = root / "unified" if (root / "unified").is_dir() else root
        self._walked: dict[int, str] = {}
        self._cached: dict[int, str] = {}  # the most recently used path is the last
        self._next_walk_ns = -(2**62)

    def find_path(self, pid: int, start_ns: int, inode: int, at_ns: int) -> str | None:
        """Return the path of the group with this inode, else of the process; "" if neither is known.

        None: not known yet, call again at a later tick. `start_ns`: start of the process, CLOCK_BOOTTIME. `inode`: id
        of the group at the time when the process became the owner of the socket; 0 and 1 (the root) identify no group,
        as on hosts with v1 controllers only.
        """
        if inode <= 1:
            return self._of_process(pid, start_ns)
        path = self._cached.pop(inode, None)
        own = ""
        if path is None:
            own = self._of_process(pid, start_ns)
            path = own if own and self._is_inode(own, inode) else self._search_all(inode, at_ns)
        if path is None:
            return None
        self._cached[inode] = path
        if len(self._cached) > _MAX_CACHED_PATHS:
            del self._cached[next(iter(self._cached))]
        return path or own or self._of_process(pid, start_ns)

    def user_of(self, path: str) -> int:
        """Return the user to whom the group with this path belongs; 0, root, if the group is gone."""
        try:
            return (self._root / path.lstrip("/")).stat().st_uid
        except OSError:
            return 0

    def _of_process(self, pid: int, start_ns: int) -> str:
        try:
            text = (self._proc / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        stat = read_process_stat(pid, self._proc)  # after the group: the pid still has the same process
        if stat is None or not stat.has_start(start_ns):
            return ""
        paths = dict(line.split(":", 2)[1:] for line in text.splitlines() if line.count(":") > 1)
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
            if at_ns < self._next_walk_ns:
                return None
            began = time.perf_counter_ns()
            self._walked = dict(islice(_groups(str(self._root)), _MAX_WALKED_GROUPS))
            self._next_walk_ns = at_ns + max((time.perf_counter_ns() - began) * _MIN_PAUSE, 1)
        return self._walked.get(inode, "")


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
