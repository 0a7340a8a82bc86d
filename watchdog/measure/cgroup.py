"""From a control group's path to the systemd unit and the container that it stands for.

Path forms: systemd's resource control (systemd.slice(5)); Docker, containerd, CRI-O and Podman with the systemd and the
cgroupfs driver; Kubernetes' kubepods; systemd-nspawn's machine scopes.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_UNIT = re.compile(r".+\.(service|scope|socket|mount|swap)$")
# docker-<id>.scope, cri-containerd-<id>.scope, crio-<id>.scope, libpod-<id>.scope, or the bare id with cgroupfs
_CONTAINER = re.compile(r"(?:^|[-:/])([0-9a-f]{64})(?:\.scope)?$")
_MACHINE = re.compile(r"^machine-(.+)\.scope$")
_CONTAINER_DIGITS = 12
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


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
    """Finds the control group of a process, also of one that is gone, by its group's inode number."""

    def __init__(self, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> None:
        """Look in `proc` and below `root`, where cgroup v2 is mounted at its top or in `unified`."""
        self._proc = proc
        self._root = root / "unified" if (root / "unified").is_dir() else root
        self._by_inode: dict[int, str] = {}

    def path(self, pid: int, inode: int) -> str:
        """Return the path of the group with this inode, else of the process; "" where neither is known.

        `inode`: the group's id as the kernel noted it when the process took its socket; 0 or 1 (the root) say nothing,
        as on hosts whose controllers are all v1.
        """
        if inode > 1:
            known = self._by_inode.get(inode)
            if known is None:
                self._walk()
                known = self._by_inode.setdefault(inode, "")
            if known:
                return known
        return self._of_process(pid)

    def _of_process(self, pid: int) -> str:
        try:
            text = (self._proc / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        paths = dict(line.split(":", 2)[1:] for line in text.splitlines() if line.count(":") > 1)
        # v2's own line has no controllers; systemd's hierarchy is where v1 has the units
        candidates = [paths.get("", ""), paths.get("name=systemd", ""), *paths.values()]
        return next((path for path in candidates if path.strip("/")), "")

    def _walk(self) -> None:
        # Names of groups that went are of use still: their processes' last connections may just have come in.
        for folder, _, _ in os.walk(self._root):
            try:
                self._by_inode[Path(folder).stat().st_ino] = "/" + os.path.relpath(folder, self._root)
            except OSError:
                continue  # removed meanwhile
