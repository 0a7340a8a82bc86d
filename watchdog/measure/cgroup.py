"""From a control group's path to the systemd unit and the container that it stands for.

Path forms: systemd's resource control (systemd.slice(5)); Docker, containerd, CRI-O and Podman with the systemd and the
cgroupfs driver; Kubernetes' kubepods; systemd-nspawn's machine scopes.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

from watchdog.clock import SECOND_NS

_UNIT = re.compile(r".+\.(service|scope|socket|mount|swap)$")
# docker-<id>.scope, cri-containerd-<id>.scope, crio-<id>.scope, libpod-<id>.scope, or the bare id with cgroupfs
_CONTAINER = re.compile(r"(?:^|[-:/])([0-9a-f]{64})(?:\.scope)?$")
_MACHINE = re.compile(r"^machine-(.+)\.scope$")
_CONTAINER_DIGITS = 12
_MAX_CACHED_PATHS = 8192
_MAX_WALKED_GROUPS = 16_384  # whoever may make groups may make very many
_REST = 20  # times as long as a walk through all groups took, no other begins
_TICKS = os.sysconf("SC_CLK_TCK")
_LINKS_OF_A_LEAF = 2
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


@lru_cache(4096)
def unit_and_container(path: str) -> tuple[str, str]:
    """Return systemd unit and container id (first 12 digits; a machine's name for nspawn), "" for what there is not."""
    unit = container = ""
    for part in path.strip("/").split("/"):
        if _UNIT.match(part):
            unit = part
        if match := _CONTAINER.search(part):
            container = match[1][:_CONTAINER_DIGITS]
        elif match := _MACHINE.match(part):
            container = _ESCAPED.sub(lambda code: chr(int(code[1], 16)), match[1])
    return unit, container


class Cgroups:
    """Finds the control group of a process, also of one that is gone, by its group's inode number.

    A process says its own group; that of one that is gone is looked for among all groups, for a small share of the time
    at most. What was found is kept for the groups used last: their processes' last connections come in after them.
    """

    def __init__(self, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> None:
        """Look in `proc` and below `root`, where cgroup v2 is mounted at its top or in `unified`."""
        self._proc = proc
        self._root = root / "unified" if (root / "unified").is_dir() else root
        self._walked: dict[int, str] = {}
        self._kept: dict[int, str] = {}  # the one used last is the last
        self._rest_until_ns = -(2**62)

    def find_path(self, pid: int, start_ns: int, inode: int, at_ns: int) -> str | None:
        """Return the path of the group with this inode, else of the process; "" where neither is known.

        None: not known yet, ask again at a later tick. `start_ns`: when the process began, by CLOCK_BOOTTIME.
        `inode`: the group's id as the kernel noted it when the process took its socket; 0 or 1 (the root) say nothing,
        as on hosts whose controllers are all v1.
        """
        if inode <= 1:
            return self._of_process(pid, start_ns)
        path = self._kept.pop(inode, None)
        own = ""
        if path is None:
            own = self._of_process(pid, start_ns)
            path = own if own and self._is_inode(own, inode) else self._among_all(inode, at_ns)
        if path is None:
            return None
        self._kept[inode] = path
        if len(self._kept) > _MAX_CACHED_PATHS:
            del self._kept[next(iter(self._kept))]
        return path or own or self._of_process(pid, start_ns)

    def _of_process(self, pid: int, start_ns: int) -> str:
        try:
            text = (self._proc / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace")
            stat = (self._proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        # Field 22 of proc_pid_stat(5); the name, field 2, may hold anything. Another start: the pid is another's now.
        if stat.rpartition(")")[2].split()[19:20] != [str(start_ns * _TICKS // SECOND_NS)]:
            return ""
        paths = dict(line.split(":", 2)[1:] for line in text.splitlines() if line.count(":") > 1)
        # v2's own line has no controllers; systemd's hierarchy is where v1 has the units
        candidates = [paths.get("", ""), paths.get("name=systemd", ""), *paths.values()]
        return next((path for path in candidates if path.strip("/")), "")

    def _is_inode(self, path: str, inode: int) -> bool:
        try:
            return (self._root / path.lstrip("/")).stat().st_ino == inode
        except OSError:
            return False

    def _among_all(self, inode: int, at_ns: int) -> str | None:
        if inode not in self._walked:
            if at_ns < self._rest_until_ns:
                return None
            began = time.perf_counter_ns()
            self._walked = dict(islice(_groups(str(self._root)), _MAX_WALKED_GROUPS))
            self._rest_until_ns = at_ns + max((time.perf_counter_ns() - began) * _REST, 1)
        return self._walked.get(inode, "")


def _groups(root: str) -> Iterator[tuple[int, str]]:
    """Yield inode number and path of the groups below `root`, upper ones first."""
    paths = deque([""])
    while paths:
        path = paths.popleft()
        try:
            found = os.stat(root + path)  # noqa: PTH116 - a quarter of a walk would go into making paths
            yield found.st_ino, path or "/"
            # kernfs counts a folder's folders in its links: one without any need not be read (fs/kernfs/inode.c).
            if found.st_nlink != _LINKS_OF_A_LEAF:
                with os.scandir(root + path) as entries:
                    paths.extend(f"{path}/{one.name}" for one in entries if one.is_dir(follow_symlinks=False))
        except OSError:
            continue  # removed meanwhile
