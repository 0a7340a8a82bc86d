"""The account of the daemon, and the check that a file is readable by this account only."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat

ACCOUNT = "bpf-watchdog"


def other_readers(status: os.stat_result) -> str | None:
    """Describe the users with access to a file, other than its owner; None if there are none.

    The group of the daemon's account may read it: after the daemon has given up root, it reads files of root at a
    reload through this group. The group must have the account's name, because shared groups ("users") have others.
    """
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IRWXO:
        return "everyone on this host"
    if not mode & stat.S_IRWXG or (mode & stat.S_IRWXG == stat.S_IRGRP and status.st_gid in _own_groups()):
        return None
    return f"the group {_group_name(status.st_gid)}"


def restrict_command(path: str) -> str:
    """Return the command that makes the file at `path` readable by the daemon only."""
    quoted = shlex.quote(path)
    return f"chown {_account_name()} {quoted} && chmod 600 {quoted}"


def _account_name() -> str:
    # The current account counts where a service runs the daemon as another account and ACCOUNT does not exist.
    own = _entry(os.geteuid())
    return ACCOUNT if own is None or own.pw_uid == 0 or _entry(ACCOUNT) is not None else own.pw_name


def _own_groups() -> set[int]:
    entries = [_entry(ACCOUNT), _entry(os.geteuid()) if os.geteuid() != 0 else None]
    return {entry.pw_gid for entry in entries if entry is not None and _group_name(entry.pw_gid) == entry.pw_name}


def _entry(account: str | int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(account) if isinstance(account, str) else pwd.getpwuid(account)
    except KeyError:
        return None


def _group_name(group_id: int) -> str:
    try:
        return grp.getgrgid(group_id).gr_name
    except KeyError:
        return str(group_id)
