"""The account that the daemon runs as, and which files it shares with nobody."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat

ACCOUNT = "bpf-watchdog"


def other_readers(status: os.stat_result) -> str | None:
    """Say who but its owner can get at a file, for people; None if nobody can.

    The group of the daemon's account may read: so a file of root's is readable at a reload, when root has been given
    up. It counts as nobody else only where it has the account's name, for a shared one ("users") is everybody.
    """
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IRWXO:
        return "everyone on this host"
    if not mode & stat.S_IRWXG or (mode & stat.S_IRWXG == stat.S_IRGRP and status.st_gid in _own_groups()):
        return None
    return f"the group {_group(status.st_gid)}"


def restrict_command(path: str) -> str:
    """Return the command that makes the file at `path` the daemon's alone."""
    quoted = shlex.quote(path)
    return f"chown {_name()} {quoted} && chmod 600 {quoted}"


def _name() -> str:
    # Another only where a service of another account runs us, on a host that does not have the usual one.
    own = _entry(os.geteuid())
    return ACCOUNT if own is None or own.pw_uid == 0 or _entry(ACCOUNT) is not None else own.pw_name


def _own_groups() -> set[int]:
    entries = [_entry(ACCOUNT), _entry(os.geteuid()) if os.geteuid() != 0 else None]
    return {entry.pw_gid for entry in entries if entry is not None and _group(entry.pw_gid) == entry.pw_name}


def _entry(who: str | int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(who) if isinstance(who, str) else pwd.getpwuid(who)
    except KeyError:
        return None


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
