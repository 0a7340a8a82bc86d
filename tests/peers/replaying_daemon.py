"""A whole daemon that reads replayed measurements instead of BPF, as a process of its own with its own host name.

Settings, rules, evaluation, alerts, state file, delivery and receivers are those of `bpf-watchdog run`. One process
imports the code and forks every daemon, so that hundreds share its memory. Needs root, for the host names.
"""

from __future__ import annotations

import ctypes
import gc
import math
import mmap
import os
import socket
import subprocess
import time
from dataclasses import dataclass

import numpy as np

from watchdog.clock import SECOND_NS
from watchdog.daemon import daemon
from watchdog.kernel import privileges
from watchdog.kernel.collector import Reading
from watchdog.kernel.layout import (
    CGROUP,
    CONNECTION,
    DATAGRAMS,
    DATAGRAMS_KEY,
    FLAG_ACCEPTED,
    FLAG_CONNECT,
    RESPONSE,
    SUMS,
    SUMS_KEY,
)
from watchdog.kernel.quality import Quality
from watchdog.kernel.totals_map import Totals
from watchdog.measure.catalogue import DIRECTIONS

STORM_RATE = 150  # connects a second of each process in a storm: a warning of the shipped rule …
STORM_RULE = "outbound-connection-storm"
READY = "SIGHUP reads the files again"
MAX_STORMS = 255  # processes of one host
_DAY_SECONDS = 300  # of the simulated load, which rises and falls by a half
_FIRST_PID = 2**22 + 1  # above every possible pid
_FIRST_CGROUP = 2**40
_ROOT_CGROUP = 1
_MAX_DESCRIPTORS = 65_536
_CLONE_NEWUTS, _CLONE_NEWNET = 0x04000000, 0x40000000
_ESTABLISHED, _CLOSED = 1, 7


@dataclass(frozen=True)
class Service:
    """A process of the simulated hosts: connections that stay, connections that end, and bytes, per second."""

    name: str
    direction: str
    open_connections: int
    ended: float
    bytes_sent: int


SERVICES = (
    Service("nginx", "in", 40, 8.0, 400_000),
    Service("app", "out", 20, 2.0, 90_000),
    Service("postgres", "in", 20, 0.5, 60_000),
    Service("node_exporter", "in", 1, 0.1, 3_000),
    Service("sshd", "in", 2, 0.05, 200),
    Service("chronyd", "out", 1, 0.02, 50),
)


class Storms:
    """The number of storming processes of each host, in memory that all forked daemons read."""

    def __init__(self, hosts):
        self._levels = mmap.mmap(-1, hosts)

    def __getitem__(self, index):
        return self._levels[index]

    def __setitem__(self, index, processes):
        self._levels[index] = processes


class ReplayedCollector:
    """Replaces the collector: hosts have the same services, each at another phase of its day.

    `storms[index]` processes of the host open `STORM_RATE` connections a second each.
    """

    connect_errors_problem = run_times_problem = message_probes_problem = ""

    def __init__(self, clock, storms, index):
        self._clock, self._storms, self._index = clock, storms, index
        self._phase = index * 0.618 % 1
        self._last_ns = clock.boottime_ns()
        self._last_cookie = 0
        self._owed = np.zeros(len(SERVICES))  # parts of connections
        self._cgroups = _made_groups()
        self._live = np.concatenate([self._rows(place, one.open_connections) for place, one in enumerate(SERVICES)])
        self._places = np.repeat(np.arange(len(SERVICES)), [one.open_connections for one in SERVICES])
        self._live["established_ns"] = self._live["born_ns"] + 1_000_000
        self._live["state"] = _ESTABLISHED

    def request_complete_pass(self):
        """Do nothing: each reading has all sockets."""

    def read(self):
        """Return the reading of the time since the last one."""
        now_ns = self._clock.boottime_ns()
        seconds = (now_ns - self._last_ns) / SECOND_NS
        self._last_ns = now_ns
        load = 1 + math.sin(2 * math.pi * (time.time() / _DAY_SECONDS + self._phase)) / 2
        share = np.array([one.bytes_sent / one.open_connections for one in SERVICES])[self._places]
        for column, factor in (("bytes_sent", 1.0), ("bytes_received", 0.3)):
            self._live[column] += (share * factor * load * seconds).astype(np.uint64)
        self._live["packets_sent"] += np.uint32(10 * seconds + 1)
        self._live["packets_received"] += np.uint32(10 * seconds + 1)
        self._live["srtt_us"] = 300
        cgroups, self._cgroups = self._cgroups, np.empty(0, CGROUP)
        return Reading(
            at_ns=now_ns,
            live=self._live.copy(),
            closed=np.concatenate(self._ended(seconds, load, now_ns)),
            sums=Totals(np.empty(0, SUMS_KEY), np.empty(0, SUMS)),
            responses=np.empty(0, RESPONSE),
            datagrams=Totals(np.empty(0, DATAGRAMS_KEY), np.empty(0, DATAGRAMS)),
            quality=Quality(),
            cgroups=cgroups,
        )

    def find_executable(self, _pid, _start_ns):
        """Return None: the processes do not exist."""

    def enable_message_probes(self):
        """Return True: no message is replayed."""
        return True

    def disable_message_probes(self):
        """Do nothing."""

    def program_runs(self):
        """Return no program."""
        return {}

    def close(self):
        """Do nothing."""

    def _ended(self, seconds, load, now_ns):
        """Return the rows of connections that ended in this time."""
        self._owed += np.array([one.ended for one in SERVICES]) * seconds * load
        counts = self._owed.astype(int)
        self._owed -= counts
        storms = [(len(SERVICES) + number, round(STORM_RATE * seconds)) for number in range(self._storms[self._index])]
        parts = [self._rows(place, count) for place, count in [*enumerate(counts), *storms]]
        for rows in parts:
            rows["ended_ns"] = now_ns
            rows["established_ns"] = rows["born_ns"]
            rows["bytes_sent"], rows["bytes_received"] = 512, 128
            rows["packets_sent"] = rows["packets_received"] = 5
            rows["srtt_us"], rows["state"] = 300, _CLOSED
        return parts

    def _rows(self, place, count):
        rows = np.zeros(count, CONNECTION)
        is_in = place < len(SERVICES) and SERVICES[place].direction == "in"
        rows["cookie"] = self._last_cookie + 1 + np.arange(count)
        self._last_cookie += count
        rows["born_ns"] = self._clock.boottime_ns()
        rows["flags"] = FLAG_ACCEPTED if is_in else FLAG_CONNECT
        rows["direction"], rows["family"] = DIRECTIONS.index("in" if is_in else "out"), 2
        rows["local"][:, 10:] = 255, 255, 192, 0, 2, 1
        rows["remote"][:, 10:] = 255, 255, 192, 0, 2, 7
        rows["local_port"], rows["remote_port"] = (443, 40_000) if is_in else (40_000, 443)
        rows["owner"]["tgid"], rows["owner"]["cgroup_id"] = _FIRST_PID + place, _FIRST_CGROUP + 1 + place
        rows["owner"]["comm"] = rows["owner"]["exe"] = _process(place)
        return rows


def storm_process(number):
    """Return the name of storming process `number`, from 0."""
    return _process(len(SERVICES) + number).decode()


def enter_own_network():
    """Move this process to a network namespace of its own, with a loopback. Call it before any thread starts."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise SystemExit("root is needed, for a network namespace and host names")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def import_everything():
    """Import what daemons import when they run, so that forked ones share it. Call it before any thread starts."""
    from watchdog.cli import main, run
    from watchdog.daemon import metrics_endpoint
    from watchdog.receivers import alertmanager

    gc.collect()
    gc.freeze()
    return main, run, metrics_endpoint, alertmanager


def fork_daemon(host, arguments, log, storms, index):
    """Start `bpf-watchdog run` with `arguments` as host `host`, which writes to the file `log`; return its pid."""
    with log.open("wb") as output:
        if pid := os.fork():
            return pid
        code = 1
        try:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os.closerange(3, _MAX_DESCRIPTORS)
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUTS):
                raise OSError(ctypes.get_errno(), "a host name of its own needs root")
            socket.sethostname(host)
            code = _run(arguments, storms, index)
        finally:
            os._exit(code)


def _run(arguments, storms, index):
    from watchdog.cli.main import main

    def start_collector(clock, *_, **__):
        privileges.keep_only_capabilities(())
        return ReplayedCollector(clock, storms, index)

    daemon.start_collector = start_collector
    return main(["run", *map(str, arguments)])


def _process(place):
    return SERVICES[place].name.encode() if place < len(SERVICES) else b"batch-%d" % (place - len(SERVICES) + 1)


def _made_groups():
    """Return the control groups of all processes, below /system.slice."""
    rows = np.zeros(1 + len(SERVICES) + MAX_STORMS, CGROUP)
    rows["id"] = _FIRST_CGROUP + np.arange(len(rows))
    rows["parent_id"] = _FIRST_CGROUP
    rows[0]["parent_id"], rows[0]["name"] = _ROOT_CGROUP, b"system.slice"
    rows["name"][1:] = [_process(place) + b".service" for place in range(len(rows) - 1)]
    return rows
