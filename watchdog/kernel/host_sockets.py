"""Counts of the kernel about TCP sockets that no process has, of the network namespace of this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from watchdog.kernel.time_wait import TimeWaitPorts

_ALL_PORTS = 1 << 16
_SYSCTLS = Path("/proc/sys/net/ipv4")


@dataclass(frozen=True, slots=True)
class HostSockets:
    """`netns`: inode of the namespace. `time_wait`, `orphans`: numbers of sockets, the second of the whole host.

    `is_ephemeral`: (65,536,), whether the kernel gives the port to connects (ip_local_port_range, without
    ip_local_reserved_ports). `time_wait_ports`: distinct ones of these that sockets in TIME_WAIT hold, None if unknown.
    """

    netns: int
    time_wait: int
    orphans: int
    is_ephemeral: NDArray[np.bool_]
    time_wait_ports: NDArray[np.uint16] | None


class HostSocketsReader:
    """Reads `HostSockets`, in bounded time."""

    def __init__(self, proc: Path = Path("/proc/self"), sysctls: Path = _SYSCTLS) -> None:
        """Read the files below `proc` and `sysctls`."""
        self._netns = (proc / "ns" / "net").stat().st_ino
        self._sockstat = proc / "net" / "sockstat"
        self._sysctls = sysctls
        self._port_texts: tuple[str, str] | None = None
        self._is_ephemeral = np.zeros(_ALL_PORTS, np.bool_)
        self._port_bounds: tuple[int, int] | None = None  # lowest and highest ephemeral port, None: there is none
        self._time_wait = TimeWaitPorts()

    def read(self) -> HostSockets | None:
        """Return the counts; None where the kernel does not show them."""
        try:
            counts = _tcp_counts(self._sockstat.read_text(encoding="ascii"))
            texts = (
                (self._sysctls / "ip_local_port_range").read_text(encoding="ascii"),
                (self._sysctls / "ip_local_reserved_ports").read_text(encoding="ascii"),
            )
            if texts != self._port_texts:
                self._is_ephemeral = ephemeral_ports(*texts)
                ports = np.flatnonzero(self._is_ephemeral)
                self._port_bounds = (int(ports[0]), int(ports[-1])) if len(ports) else None
                self._port_texts = texts
            if self._port_bounds is not None:
                self._time_wait.advance(*self._port_bounds)
            return HostSockets(self._netns, counts["tw"], counts["orphan"], self._is_ephemeral, self._time_wait.ports)
        except (OSError, KeyError, ValueError):
            return None

    @property
    def problem(self) -> str:
        """Return the reason why the ports of sockets in TIME_WAIT are unknown; "" while they can be read."""
        return self._time_wait.problem

    def close(self) -> None:
        """Close the descriptors."""
        self._time_wait.close()


def ephemeral_ports(port_range: str, reserved: str) -> NDArray[np.bool_]:
    """Return, (65,536,), whether a connect can get the port, from the texts of both sysctls.

    Raises:
        ValueError: the texts have another form.
    """
    low, high = map(int, port_range.split())
    ephemeral = np.zeros(_ALL_PORTS, np.bool_)
    ephemeral[low : high + 1] = True
    for part in filter(None, reserved.strip().split(",")):
        first, _, last = part.partition("-")
        ephemeral[int(first) : int(last or first) + 1] = False
    return ephemeral


def _tcp_counts(sockstat: str) -> dict[str, int]:
    """Return the numbers of the line "TCP: inuse 8 orphan 0 tw 3 …" of /proc/net/sockstat, by name."""
    line = next((line for line in sockstat.splitlines() if line.startswith("TCP:")), "")
    words = line.split()[1:]
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))
