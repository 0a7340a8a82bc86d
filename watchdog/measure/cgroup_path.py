r"""From the path of a control group to its systemd unit, its container, and the owner of its user numbers.

A path is read from its root, because only names near the root are chosen by the system. A unit has the path of its
slices and its own name, and systemd puts no unit below a service or a scope (systemd.slice(5),
https://systemd.io/CGROUP_DELEGATION). Below them a delegation may begin: `user@N.service`, or the payload of a
container. Names below a delegation carry the name of its owner: `user@1000/app.service`.

Sources of the path forms:
- ids of 64 digits: Docker, containerd, CRI-O and Podman with the systemd and the cgroupfs driver, Kubernetes' kubepods
- `lxc.payload.NAME`, `lxc.payload/NAME`, `lxc/NAME`: LXC 4 (also Incus), 3.1, and older (also Proxmox);
  lxc.container.conf(5), src/lxc/cgroups/cgfsng.c
- `machine-NAME.scope`, `systemd-nspawn@NAME.service`: systemd-machined, also libvirt with NAME `qemu\x2d1\x2dNAME`;
  `NAME.libvirt-qemu`: libvirt without it (https://libvirt.org/cgroups.html)
- `ALLOCATION.TASK.scope`, `ALLOCATION.TASK`: Nomad on cgroup v2 and v1 (client/lib/cgroupslib)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from watchdog.measure.catalogue import CONTAINER_DIGITS

_UNIT = re.compile(r"_?(.+\.(?:service|scope|socket|mount|swap))")  # systemd escapes names by "_" (cg_escape)
_USER_SLICE = re.compile(r"user-(\d+)\.slice")
_USER_MANAGER = re.compile(r"user@(\d+)\.service")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
_MAX_OWNERS = 3  # user manager, its container, that container's own user manager or container
_MAX_DEPTH = 32  # components that are read: users can nest their groups some thousand deep

# Each pattern is applied to two components of the path, "parent/name".
# The monitor of a container (conmon) runs outside it. `libpod_parent/<id>` is a pod of containers (Podman, cgroupfs).
_WITH_ID = re.compile(r"(?:(?<!^libpod_parent)/|/.*[-:_.])(?<!conmon-)([0-9a-f]{64})(?:\.scope)?$")
_BUILD = re.compile(r"^buildkit/([a-z0-9]{25})$")
_WITH_NAME = re.compile(
    r"/lxc\.payload\.(?P<lxc>.+)$|^lxc(?:\.payload)?/(?P<old_lxc>.+)$|/machine-(?!qemu\\x2d)(?P<machine>.+)\.scope$"
    r"|/systemd-nspawn@(?P<nspawn>.+)\.service$|/(?P<libvirt>.+)\.libvirt-lxc$"
)
# Virtual machines, and tasks of Nomad's exec driver, run as users of the host.
_MACHINE = re.compile(r"/machine-(?P<machined>qemu\\x2d.+)\.scope$|/(?P<libvirt>.+)\.libvirt-qemu$")
_NOMAD = re.compile(r"/([0-9a-f]{8})(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(\..+?)(?:\.scope)?$")


@dataclass(frozen=True, slots=True)
class CgroupPlace:
    """Systemd unit and container of a control group, "" if there is none, and the host users among its numbers.

    `service`: path of the host's service below which the container lies. A service with `Delegate=` and `User=` lets
    that user choose the names (systemd.resource-control(5)): the group of the service belongs to that user then.
    """

    unit: str = ""
    container: str = ""
    has_own_users: bool = False
    user: int | None = None
    service: str = ""

    def is_host_user(self, uid: int) -> bool:
        """Return whether `uid` is a user of the host here: outside containers, the superuser, or a container's owner.

        A container has its own table of users. A container below the manager of a user runs in a user namespace: its
        root has the number of that user, and its other users have numbers that belong to no account.
        """
        return not self.has_own_users or uid in (0, self.user)


@dataclass(frozen=True, slots=True)
class _Container:
    name: str
    has_own_users: bool = True
    is_random: bool = False  # the name was drawn by the runtime


@dataclass(slots=True)
class _Walk:
    """Reads a path component by component. `service_user`: user to whom the host's service is delegated, 0 if none."""

    service_user: int = 0
    owners: list[str] = field(default_factory=list)  # of the delegations so far, outermost first
    unit: str = ""
    container: str = ""
    has_own_users: bool = False
    user: int | None = None
    in_manager: bool = True  # an instance of systemd may have named this level: the host's, a user's, a container's
    path: str = ""
    parent: str = ""
    slice_user: str = ""
    service: str = ""

    def enter(self, part: str) -> None:
        """Take the next component of the path."""
        self.path += f"/{part}"
        unit = _UNIT.fullmatch(part) if self.in_manager else None
        if unit:
            self.unit = self._owned(unit[1])
        if match := _USER_SLICE.fullmatch(part):
            self.slice_user = match[1]
        if container := _find_container(f"{self.parent}/{part}"):
            self._enter_container(container, is_unit=unit is not None)
        elif unit:
            self._enter_unit(unit[1])
        self.parent = part

    def _enter_container(self, container: _Container, *, is_unit: bool) -> None:
        if not (self.in_manager or is_unit or container.is_random or self.owners):
            self.owners.append(self.unit)  # the service chose the name
        self.container = self._owned(container.name)
        self.has_own_users |= container.has_own_users
        self._delegate(container.name, has_manager=True)

    def _enter_unit(self, unit: str) -> None:
        self.in_manager = False
        manager = _USER_MANAGER.fullmatch(unit)
        uid = manager[1] if manager else self.slice_user
        if uid:
            if not self.owners:
                self.user = int(uid)
            self._delegate(f"user@{uid}", has_manager=manager is not None)
        elif not self.owners:
            self.service = self.path
            if self.service_user:
                self.user = self.service_user
                self._delegate(unit, has_manager=False)

    def _delegate(self, owner: str, *, has_manager: bool) -> None:
        self.owners.append(owner)
        self.in_manager = has_manager
        self.slice_user = ""

    def _owned(self, name: str) -> str:
        return "/".join([*self.owners, name])


@lru_cache(4096)
def find_place(path: str, service_user: int = 0) -> CgroupPlace:
    """Return unit and container of the control group with this path below the root of all groups.

    A container has the first digits of its id, or its name. `service_user`: user to whom the group of the host's
    service on this path belongs; root's is not delegated to a user.
    """
    walk = _Walk(service_user)
    for part in path.strip("/").split("/", _MAX_DEPTH)[:_MAX_DEPTH]:
        if part == "..":  # this process is in a cgroup namespace, the other one outside it (cgroup_namespaces(7))
            continue
        walk.enter(part)
        if len(walk.owners) >= _MAX_OWNERS:
            break
    service = walk.service if walk.container else ""
    return CgroupPlace(walk.unit, walk.container, walk.has_own_users, walk.user, service)


def _find_container(components: str) -> _Container | None:
    if match := _WITH_ID.search(components) or _BUILD.search(components):
        return _Container(match[1][:CONTAINER_DIGITS], is_random=True)
    if match := _WITH_NAME.search(components):
        return _Container(_unescape(match[match.lastgroup or 0]))
    if match := _MACHINE.search(components):
        return _Container(_unescape(match[match.lastgroup or 0]), has_own_users=False)
    if match := _NOMAD.search(components):
        return _Container(_unescape(match[1] + match[2]), has_own_users=False)
    return None


def _unescape(name: str) -> str:
    return _ESCAPED.sub(lambda code: chr(int(code[1], 16)), name)
