"""The account of the daemon, and the check that a file is readable by this account only."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from pathlib import Path

from watchdog.config.access_list import READ, named_entries

ACCOUNT = "bpf-watchdog"
_FOLDER = "/etc/bpf-watchdog"


def other_readers(status: os.stat_result, path: str) -> str | None:
    """Describe the users with access to the file at `path`, other than its owner; None if there are none.

    The group of the daemon's account may read it: after the daemon has given up root, it reads files of root at a
    reload through this group. The group must have the account's name, because shared groups ("users") have others.
    """
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IRWXO:
        return "everyone on this host"
    if not mode & stat.S_IRWXG:
        return None
    if mode & stat.S_IRWXG == stat.S_IRGRP and status.st_gid in _own_groups():
        return _named_reader(path)
    return f"the group {_group_name(status.st_gid)}"


def _named_reader(path: str) -> str | None:
    account = _entry(ACCOUNT)
    users = {0, os.geteuid(), *(() if account is None else (account.pw_uid,))}
    for entry in named_entries(path, READ):
        if entry.number not in (_own_groups() if entry.is_group else users):
            name = f"the group {_group_name(entry.number)}" if entry.is_group else _user_name(entry.number)
            return f"{name} (access list)"
    return None


def restrict_command(path: str) -> str:
    """Return the command that makes the file at `path` readable by the daemon only."""
    quoted = shlex.quote(path)
    return f"chown {_account_name()} {quoted} && chmod 600 {quoted}"


def access_remedy(path: str) -> str:
    """Return the way to make the file or folder at `path`, to which this account has no access, readable to it."""
    entry = _entry(os.geteuid())
    name = str(os.geteuid()) if entry is None else entry.pw_name
    closed = _closed_folder(path)
    if closed is not None:
        cause, command = f"cannot enter the folder {closed}", f"chgrp {name} {shlex.quote(closed)} && chmod g+x"
        return f"the account {name} {cause}: {command} {shlex.quote(closed)}, or keep the file in {_FOLDER}"
    quoted = shlex.quote(path)
    rights = "g+rx" if os.path.isdir(path) else "g+r"  # noqa: PTH112 - Path's raises without permission
    command = f"chgrp {name} {quoted} && chmod {rights} {quoted}"
    return f"it must be readable to the account {name}: {command}, or keep it in {_FOLDER}"


def _closed_folder(path: str) -> str | None:
    """Return the outermost folder of `path` that this account cannot enter."""
    folders = reversed(Path(os.path.abspath(path)).parents)  # noqa: PTH100 - links stay as they are
    return next((str(folder) for folder in folders if not os.access(folder, os.X_OK, effective_ids=True)), None)


def _account_name() -> str:
    # The current account counts where a service runs the daemon as another account and ACCOUNT does not exist.
    own = _entry(os.geteuid())
    return ACCOUNT if own is None or own.pw_uid == 0 or _entry(ACCOUNT) is not None else own.pw_name


def _own_groups() -> set[int]:
    entries = [_entry(ACCOUNT), _entry(os.geteuid()) if os.geteuid() != 0 else None]
    return {entry.pw_gid for entry in entries if entry is not None and _group_name(entry.pw_gid) == entry.pw_name}


def _user_name(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return f"uid {user_id}"


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
