"""Files that decide about the daemon: only root, or an account that can act as root anyway, may change them.

A file is as safe as the weakest folder or link on the way to it. Trusted are root, the account of this process, the
account that called sudo, and for files of the configuration the daemon's account.

A folder with the sticky bit, like /tmp, is no flaw on the way: others cannot rename or remove what a trusted account
owns in it. A group may write if it is the private group of a trusted account (`umask 002`), or Debian's staff without
members, which owns /usr/local (Debian Policy 9.1.2).

A file system of a user (FUSE) shows any owner that its server wants: the user who has mounted it counts.

As StrictModes of sshd_config(5); the sshd of Debian and Ubuntu accepts private groups, too.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shlex
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from watchdog.config.access_list import WRITE, named_entries
from watchdog.config.permissions import ACCOUNT

_MAX_STEPS = 4_096  # names on the way to a file; links can form a circle
_ID_MAP = Path("/proc/self/uid_map")
_OVERFLOW_ID = Path("/proc/sys/kernel/overflowuid")
_MOUNTS = Path("/proc/self/mountinfo")
_USER_ID = re.compile(r"(?:^|,)user_id=(\d+)")
_STAFF, _STAFF_FOLDER = "staff", "/usr/local"


@dataclass(frozen=True, slots=True, order=True)
class Flaw:
    """A file, link or folder that an account other than the trusted ones can change; the command that repairs it.

    `is_recursive`: the command repairs all that is in the folder, too.
    """

    path: str
    reason: str
    remedy: str
    is_recursive: bool = False

    def __str__(self) -> str:
        """Format as `reason: remedy`."""
        return f"{self.reason}: {self.remedy}"


def sudo_caller() -> frozenset[int]:
    """Return the uid of the account that started this process by sudo(8), which sets the variable; {} without it."""
    caller = os.environ.get("SUDO_UID", "")
    return frozenset([int(caller)] if caller.isascii() and caller.isdigit() else [])


def code_owners() -> frozenset[int]:
    """Return the uids of accounts whose programs this process may run: root, its own, that of the caller of sudo."""
    return frozenset({0, os.geteuid()}) | sudo_caller()


def data_owners() -> frozenset[int]:
    """Return the uids of accounts that may own settings, rules, secrets: `code_owners`, and the daemon's account."""
    return code_owners() | _ids([ACCOUNT])


def flaws_on_path(path: str, owners: Collection[int]) -> list[Flaw]:
    """Return the flaws of the file or folder at `path` and of each folder and link on the way to it, outermost first.

    Nothing that this process cannot look at counts: what it cannot reach, it cannot read either.
    """
    steps = list(_steps(path))
    flaws = [flaw for one, status in steps if (flaw := find_flaw(one, status, owners)) is not None]
    return [*flaws, *_flaws_of_mounts(steps, owners)]


def find_flaw(path: str, status: os.stat_result, owners: Collection[int], *, recursive: bool = False) -> Flaw | None:
    """Return the flaw of the file, link or folder at `path` itself, None if it has none.

    `recursive`: the remedy for a folder is to be recursive.
    """
    quoted = shlex.quote(path)
    recursive = recursive and stat.S_ISDIR(status.st_mode)
    option = "-R " if recursive else ""
    if status.st_uid not in owners and status.st_uid != _unknown_owner():
        option = "-h " if stat.S_ISLNK(status.st_mode) else option
        reason = f"belongs to {_account_name(status.st_uid)}, who can change it"
        return Flaw(path, reason, f"chown {option}root {quoted}", recursive)
    if stat.S_ISLNK(status.st_mode) or _is_sticky_folder(status):
        return None
    everyone = bool(status.st_mode & stat.S_IWOTH)
    group = bool(status.st_mode & stat.S_IWGRP) and not _is_harmless_group(status.st_gid, path, owners)
    if not everyone and not group:
        return _flaw_of_access_list(path, status, owners)
    who = "everyone on this host" if everyone else f"the group {_group_name(status.st_gid)}"
    reason = f"writable by {who} (mode {stat.S_IMODE(status.st_mode):04o})"
    return Flaw(path, reason, f"chmod {option}{'g' * group}{'o' * everyone}-w {quoted}", recursive)


def _flaw_of_access_list(path: str, status: os.stat_result, owners: Collection[int]) -> Flaw | None:
    if not status.st_mode & stat.S_IWGRP:  # the mask of an access list
        return None
    for entry in named_entries(path, WRITE):
        harmless = _is_harmless_group(entry.number, path, owners) if entry.is_group else entry.number in owners
        if not harmless:
            name = f"the group {_group_name(entry.number)}" if entry.is_group else _account_name(entry.number)
            return Flaw(path, f"writable by {name} (access list)", f"setfacl -b {shlex.quote(path)}")
    return None


def _flaws_of_mounts(steps: Sequence[tuple[str, os.stat_result]], owners: Collection[int]) -> Iterator[Flaw]:
    first_on = {status.st_dev: one for one, status in reversed(steps)}
    others = [device for device in reversed(first_on) if device != steps[0][1].st_dev]  # than that of /
    users = _mounting_users() if others else {}
    for device in others:
        if (user := users.get(device, 0)) not in owners:
            one = first_on[device]
            reason = f"on a file system of {_account_name(user)}, who can change it"
            yield Flaw(one, reason, f"umount {shlex.quote(one)}, or keep the file elsewhere")


def _mounting_users() -> dict[int, int]:
    """Return the uid of the user who has mounted each FUSE file system, by device; proc_pid_mountinfo(5)."""
    try:
        # Of all line ends the kernel escapes the line feed only (seq_path_root(), fs/proc_namespace.c).
        lines = _MOUNTS.read_bytes().decode("utf-8", "surrogateescape").split("\n")[:-1]
    except OSError:
        return {}
    users = {}
    for line in lines:
        mount, _, file_system = line.partition(" - ")
        kind, _, options = file_system.split(" ", 2)
        if kind.startswith("fuse") and (match := _USER_ID.search(options)):
            major, _, minor = mount.split()[2].partition(":")
            users[os.makedev(int(major), int(minor))] = int(match[1])
    return users


def flaw_of_open_folder(folder: str) -> Flaw | None:
    """Return the flaw of a folder to which others can add files, although they cannot replace those that are there."""
    try:
        status = os.stat(folder)  # noqa: PTH116 - the path is a text
    except OSError:
        return None
    if not _is_sticky_folder(status) or not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return None
    return Flaw(folder, "other users can add files to it", f"chmod go-w {shlex.quote(folder)}, or use another folder")


def _steps(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield each folder and link on the way to `path`, then `path` itself, with its status."""
    try:
        yield from _walk(path)
    except (OSError, ValueError):  # missing, out of reach, or a path that no file can have: opening it fails, too
        return


def _walk(path: str) -> Iterator[tuple[str, os.stat_result]]:
    current = "/"
    # Not normalized: "LINK/.." is the folder above the target of the link.
    pending = _parts(os.path.join(os.getcwd(), path))  # noqa: PTH109, PTH118
    yield current, os.lstat(current)
    for _ in range(_MAX_STEPS):
        if not pending:
            return
        name = pending.pop()
        if name == "..":
            current = os.path.dirname(current)  # noqa: PTH120
            continue
        one = os.path.join(current, name)  # noqa: PTH118
        status = os.lstat(one)
        yield one, status
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(one)
            current = "/" if target.startswith("/") else current
            pending += _parts(target)
        else:
            current = one


def _parts(path: str) -> list[str]:
    return [part for part in reversed(path.split("/")) if part not in {"", "."}]


def _is_sticky_folder(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) and bool(status.st_mode & stat.S_ISVTX)


def _is_harmless_group(group_id: int, path: str, owners: Collection[int]) -> bool:
    if group_id == 0:  # services and containers run as other users with this group
        return False
    try:
        group = grp.getgrgid(group_id)
    except KeyError:
        return False
    is_staff = group.gr_name == _STAFF and Path(path).is_relative_to(_STAFF_FOLDER)
    if not is_staff and not any(_account_name(owner) == group.gr_name for owner in owners):
        return False
    members = _ids(group.gr_mem) | {entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid == group_id}
    return members <= set(owners)


def _unknown_owner() -> int | None:
    """Return the uid that stands for all accounts outside of this process's user namespace, None in the host's own.

    Root's files look as if they belonged to it: in such a container their owner is unknown (user_namespaces(7)).
    """
    try:
        maps = [tuple(map(int, line.split())) for line in _ID_MAP.read_text(encoding="ascii").splitlines()]
        overflow = int(_OVERFLOW_ID.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    is_mapped = any(first <= overflow < first + count for first, _, count in maps)
    return None if is_mapped else overflow


def _ids(names: Collection[str]) -> frozenset[int]:
    found = set()
    for name in names:
        try:
            found.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    return frozenset(found)


def _account_name(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return f"uid {user_id}"


def _group_name(group_id: int) -> str:
    try:
        return grp.getgrgid(group_id).gr_name
    except KeyError:
        return str(group_id)
