"""The listening end of the control socket: a dead daemon's is replaced, a living one's is not; and who may speak."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path
from typing import Self

from watchdog.control.socket_path import OTHER_SOCKET, ControlError, is_socket, socket_address

BACKLOG = 16
_MODE = 0o660
_SO_PEERGROUPS = 59  # include/uapi/asm-generic/socket.h, since Linux 4.13
_MOST_BYTES = 1024  # of an option's value that Python asks for: 256 groups


class Listener:
    """A bound socket that listens; its file is removed by `close`."""

    def __init__(self, bound: socket.socket, path: Path, group: int) -> None:
        """Keep the socket, where it is, and the group that may speak on it."""
        self.socket = bound
        self.path = path
        self._group = group
        self._inode = path.lstat().st_ino

    @classmethod
    def at(cls, path: Path) -> Self:
        """Listen at `path`, with mode 0660 and the group of this process.

        Raises:
            ControlError: a daemon answers there, something else stands there, or it cannot be made.
        """
        try:
            folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return cls(_bind(path, folder), path, os.getegid())
            finally:
                os.close(folder)
        except OSError as error:
            raise ControlError(
                f"cannot listen on the control socket {path}: {error.strerror}", remedy=OTHER_SOCKET
            ) from error

    def allows(self, peer: socket.socket) -> bool:
        """Tell whether the other end is root, this account, or one of the socket's group.

        The kernel has asked the file's mode already; this holds even where somebody has changed that.
        """
        _, uid, gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        return uid in (0, os.geteuid()) or self._group in (gid, *_other_groups(peer))

    def close(self) -> None:
        """Stop to listen, and remove the file unless another's stands there by now."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if self.path.lstat().st_ino == self._inode:
                self.path.unlink()


def _bind(path: Path, folder: int) -> socket.socket:
    name = socket_address(path, folder)
    _clear(path, name)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.setblocking(False)
        os.fchmod(bound.fileno(), _MODE)  # what bind() makes the file with, the umask taken off: never more than it
        bound.bind(name)
        os.chmod(name, _MODE)  # noqa: PTH101 - as it was bound
        bound.listen(BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound


def _clear(path: Path, name: str) -> None:
    try:
        if not is_socket(path):
            raise ControlError(f"{path} is not a socket", remedy=f"move it away, or {OTHER_SOCKET}")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # somebody listens, with many waiting
            pass
    raise ControlError(f"another daemon listens on {path}", remedy=OTHER_SOCKET)


def _other_groups(peer: socket.socket) -> tuple[int, ...]:
    try:
        packed = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_BYTES)
    except OSError:  # too many for us to see: root can still ask
        return ()
    return struct.unpack(f"{len(packed) // 4}I", packed)
