"""Listening side of the control socket. It replaces the socket of a dead daemon, and checks the client's account."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from pathlib import Path
from typing import Self

from watchdog.control.socket_path import OTHER_SOCKET, ControlError, is_socket, socket_address

BACKLOG = 16
_MODE = 0o660
_SO_PEERGROUPS = 59  # include/uapi/asm-generic/socket.h, since Linux 4.13
_MAX_OPTION_BYTES = 1024  # Python's limit for a socket option: 256 groups
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})  # accept(2)
_SHORTAGE_SECONDS = 0.1


class Listener:
    """A bound socket that listens; `close` removes its file."""

    def __init__(self, bound: socket.socket, path: Path, group: int, name: str) -> None:
        """Keep the socket, its path, the group with access to it, and its name in errors."""
        self.socket = bound
        self._name = name
        self.path = path
        self._group = group
        self._inode = path.lstat().st_ino

    @classmethod
    def at(cls, path: Path, name: str = "control socket") -> Self:
        """Listen at `path`, with mode 0660 and the group of this process. `name`: of the socket, for errors.

        Raises:
            ControlError: another daemon listens there, `path` is not a socket, or it cannot be created.
        """
        try:
            folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return cls(_bind(path, folder), path, os.getegid(), name)
            finally:
                os.close(folder)
        except OSError as error:
            raise ControlError(f"cannot listen on the {name} {path}: {error.strerror}", remedy=OTHER_SOCKET) from error

    def renewed(self) -> Self | None:
        """Return a new listener in place of this one if somebody has removed its file: clients find it by that.

        Raises:
            ControlError: it cannot be created.
        """
        if os.path.lexists(self.path):
            return None
        renewed = type(self).at(self.path, self._name)
        self.close()
        return renewed

    def allows(self, peer: socket.socket) -> bool:
        """Return whether the client is root, this account, or a member of the socket's group.

        The kernel has checked the mode of the file already. This check holds even if the mode has been changed.
        """
        uid, gid = client_account(peer)
        return uid in (0, os.geteuid()) or self._group in (gid, *_other_groups(peer))

    def close(self) -> None:
        """Stop listening, and remove the file unless another daemon has replaced it."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if self.path.lstat().st_ino == self._inode:
                self.path.unlink()


def accept_client(bound: socket.socket) -> socket.socket | None:
    """Return the next connection to a socket that is ready, None if there is none.

    Without a free descriptor the connection stays in the queue, and the socket ready: the call takes a tenth of a
    second then, so that a server that tries again and again leaves the CPU to others.
    """
    try:
        return bound.accept()[0]
    except OSError as error:  # the client has disconnected, or there is a shortage
        if error.errno in _SHORTAGES:
            time.sleep(_SHORTAGE_SECONDS)
        return None


def client_account(peer: socket.socket) -> tuple[int, int]:
    """Return user and group id of the process that connected."""
    _, uid, gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return uid, gid


def _bind(path: Path, folder: int) -> socket.socket:
    name = socket_address(path, folder)
    _remove_stale_socket(path, name)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.setblocking(False)
        os.fchmod(
            bound.fileno(), _MODE
        )  # bind() creates the file with this mode minus the umask, never with a wider one
        bound.bind(name)
        os.chmod(name, _MODE)  # noqa: PTH101 - the address used by bind()
        bound.listen(BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound


def _remove_stale_socket(path: Path, name: str) -> None:
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
        except BlockingIOError:  # a daemon listens, and its queue is full
            pass
    raise ControlError(f"another daemon listens on {path}", remedy=OTHER_SOCKET)


def _other_groups(peer: socket.socket) -> tuple[int, ...]:
    try:
        packed = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_OPTION_BYTES)
    except OSError:  # more groups than fit: the client is refused unless it is root
        return ()
    return struct.unpack(f"{len(packed) // 4}I", packed)
