"""Path of the control socket, and its folder where no service manager creates it."""

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
_MAX_ADDRESS_BYTES = 107


class ControlError(WatchdogError):
    """The control socket cannot be created or used."""


def control_socket_path(state_folder: str | Path, environment: Mapping[str, str]) -> Path:
    """Return the socket of the daemon with the state folder `state_folder`.

    The default state folder has the default socket, or the one in the service manager's RUNTIME_DIRECTORY. For any
    other state folder the socket is inside it, so that several daemons can run and each is found by its folder.
    """
    default_folder = environment.get("STATE_DIRECTORY") or DEFAULT_STATE_FOLDER
    if os.path.abspath(state_folder) != os.path.abspath(default_folder):  # noqa: PTH100 - does not follow links
        return Path(state_folder, SOCKET_FILE_NAME)
    return Path(environment.get("RUNTIME_DIRECTORY") or DEFAULT_RUNTIME_FOLDER, SOCKET_FILE_NAME)


def prepare_socket_folder(path: Path, account: pwd.struct_passwd) -> None:
    """Create the default folder of the socket as root, owned by `account`. Other folders are not changed.

    Raises:
        ControlError: the folder cannot be created.
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
    """Return whether `path` itself, not the target of a link, is a socket.

    Raises:
        OSError: `path` does not exist or cannot be read.
    """
    return stat.S_ISSOCK(path.lstat().st_mode)


def socket_address(path: Path, folder: int) -> str:
    """Return the address of `path` for bind() and connect(), which accept at most 107 bytes.

    `folder`: a descriptor of the folder of `path`.

    Source: unix(7).
    """
    text = str(path)
    return text if len(os.fsencode(text)) <= _MAX_ADDRESS_BYTES else f"/proc/self/fd/{folder}/{path.name}"
