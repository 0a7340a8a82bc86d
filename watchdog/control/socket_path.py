"""Where the control socket is, and the folder that the service manager makes for it where there is one."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path

from watchdog.errors import WatchdogError

DEFAULT_STATE_FOLDER = "/var/lib/bpf-watchdog"
DEFAULT_RUNTIME_FOLDER = "/run/bpf-watchdog"
SOCKET_FILE_NAME = "control.sock"
OTHER_SOCKET = "choose another socket with --control"


class ControlError(WatchdogError):
    """The control socket cannot be had; the text names it and the remedy."""


def control_socket_path(state_folder: str | Path, environment: Mapping[str, str]) -> Path:
    """Return the socket of the daemon that keeps its state in `state_folder`.

    The usual one has the usual socket, or the one that the service manager's RUNTIME_DIRECTORY says. Any other has it
    beside its state, so that several can run and each is found by its folder.
    """
    usual = environment.get("STATE_DIRECTORY") or DEFAULT_STATE_FOLDER
    if os.path.abspath(state_folder) != os.path.abspath(usual):  # noqa: PTH100 - links are followed by nobody
        return Path(state_folder, SOCKET_FILE_NAME)
    return Path(environment.get("RUNTIME_DIRECTORY") or DEFAULT_RUNTIME_FOLDER, SOCKET_FILE_NAME)


def prepare_socket_folder(path: Path, account: pwd.struct_passwd) -> None:
    """Make the usual folder of sockets, as root, and let it belong to `account`; of any other, touch nothing.

    Raises:
        ControlError: it cannot be made.
    """
    folder = path.parent
    if folder != Path(DEFAULT_RUNTIME_FOLDER):
        return
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(descriptor, account.pw_uid, account.pw_gid)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ControlError(f"cannot create {folder}: {error.strerror}", remedy=OTHER_SOCKET) from error


def is_socket(path: Path) -> bool:
    """Tell whether `path` is a socket, and not what a link leads to.

    Raises:
        OSError: it is not there, or cannot be looked at.
    """
    return stat.S_ISSOCK(path.lstat().st_mode)


def socket_address(path: Path, folder: int) -> str:
    """Return how to name `path` to bind() and connect(), which take 107 bytes at most; `folder` is its folder, open.

    Source: unix(7).
    """
    most = 107
    plain = str(path)
    return plain if len(os.fsencode(plain)) <= most else f"/proc/self/fd/{folder}/{path.name}"
