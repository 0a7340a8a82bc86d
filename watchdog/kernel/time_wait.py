"""Local ports that sockets in TIME_WAIT hold, of the network namespace of this process, by NETLINK_SOCK_DIAG.

The kernel keeps small structures for these sockets: no process has them, and the pass does not visit them. A dump costs
as much as there are TCP sockets, and peers can make many; so a round is read in steps, and rounds are paced.
"""

from __future__ import annotations

import errno
import socket
import struct
import time

import numpy as np
from numpy.typing import NDArray

_NETLINK_SOCK_DIAG = 4  # include/uapi/linux/netlink.h
_SOCK_DIAG_BY_FAMILY = 20  # include/uapi/linux/sock_diag.h
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_DONE, _ERROR = 3, 2  # NLMSG_DONE, NLMSG_ERROR
_BYTECODE = 1  # INET_DIAG_REQ_BYTECODE, include/uapi/linux/inet_diag.h
_SPORT_AT_LEAST, _SPORT_AT_MOST = 2, 3  # INET_DIAG_BC_S_GE, INET_DIAG_BC_S_LE
_STATES = 1 << 6 | 1 << 5  # TIME_WAIT, and orphans in FIN_WAIT2, which the kernel keeps in the same structures
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
# The beginning of a message: struct nlmsghdr, then struct inet_diag_msg. By name: format, offset.
_FIELDS = {"length": ("<u4", 0), "kind": ("<u2", 4), "state": ("u1", 17), "port": (">u2", 20)}
_MIN_MESSAGE_BYTES = 88
_RECEIVE_BYTES = 1 << 16
_STEP_SECONDS = 0.005
_ROUND_PAUSES = 100  # rounds take 1 % of one CPU
_MAX_ROUND_SECONDS = 30.0


class TimeWaitPorts:
    """The local ports, within a range, of the newest complete round."""

    def __init__(self) -> None:
        """Start without a round."""
        self.ports: NDArray[np.uint16] | None = None
        """Distinct ports; None before the first round, and where the kernel has no inet_diag."""
        self.problem = ""
        """Error of the newest round; "" without one."""
        self._socket: socket.socket | None = None
        self._families: list[int] = []
        self._found: list[NDArray[np.uint16]] = []
        self._seconds = self._next_round = 0.0

    def advance(self, low: int, high: int) -> None:
        """Go on with the round for a few milliseconds, or begin one for the ports from `low` to `high` if it is due."""
        if self._socket is None and time.monotonic() < self._next_round:
            return
        began = time.thread_time()
        try:
            if self._socket is None:
                self._begin()
                self._request(low, high)
            while time.thread_time() - began < _STEP_SECONDS:
                if not self._read():
                    continue
                if not self._families:
                    self._finish(np.unique(np.concatenate(self._found)) if self._found else np.zeros(0, np.uint16))
                    break
                self._request(low, high)
        except OSError as error:
            self._finish(None)
            self.problem = str(error)
        self._seconds += time.thread_time() - began
        self._next_round = time.monotonic() + min(self._seconds * _ROUND_PAUSES, _MAX_ROUND_SECONDS)

    def _begin(self) -> None:
        self.problem = ""
        self._families, self._found, self._seconds = [socket.AF_INET, socket.AF_INET6], [], 0.0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
        self._socket.setblocking(False)  # each part of an answer is ready when the one before is taken

    def close(self) -> None:
        """End the round."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _finish(self, ports: NDArray[np.uint16] | None) -> None:
        self.ports = ports
        self.close()

    def _request(self, low: int, high: int) -> None:
        """Ask for the sockets of the next family in `_families`."""
        code = struct.pack("=BBHBBHBBHBBH", _SPORT_AT_LEAST, 8, 20, 0, 0, low, _SPORT_AT_MOST, 8, 12, 0, 0, high)
        request = struct.pack("=BBBBI48x", self._families.pop(0), socket.IPPROTO_TCP, 0, 0, _STATES)
        request += struct.pack("=HH", 4 + len(code), _BYTECODE) + code
        header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 0, 0)
        if self._socket is not None:
            self._socket.send(header + request)

    def _read(self) -> bool:
        """Take one part of the answer; return whether the answer of this family is complete.

        Raises:
            OSError: the kernel refuses the request, or lost a part of the answer.
        """
        data = self._socket.recv(_RECEIVE_BYTES) if self._socket is not None else b""
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, *_ = _HEADER.unpack_from(data, at)
            if kind == _DONE:
                return True
            if kind == _ERROR or length < _MIN_MESSAGE_BYTES:
                raise OSError(errno.EPROTO, "no answer of inet_diag")
            at += self._take_equal(data[at:], length)
        return False

    def _take_equal(self, data: bytes, length: int) -> int:
        """Take the messages at the beginning of `data` that have one `length`; return their bytes."""
        step = length + -length % 4
        formats, offsets = zip(*_FIELDS.values(), strict=True)
        message = np.dtype({"names": [*_FIELDS], "formats": formats, "offsets": offsets, "itemsize": step})
        messages = np.frombuffer(data, message, len(data) // step)
        same = (messages["length"] == length) & (messages["kind"] == _SOCK_DIAG_BY_FAMILY)
        count = len(same) if same.all() else int(same.argmin())
        self._found.append(messages["port"][:count].astype(np.uint16))
        return max(count, 1) * step
