"""From a privileged start to a collector without privileges, in the order that gives none away."""

from __future__ import annotations

import logging

from watchdog.clock import Clock
from watchdog.errors import NotPermitted
from watchdog.kernel import handover, libbpf, privileges
from watchdog.kernel.collector import Collector

LEDGER_CAPACITY = 65536
"""Connections that may end between two ticks before their detail is lost: 16 MB of kernel memory."""

_log = logging.getLogger(__name__)


def start_collector(clock: Clock, ledger_capacity: int = LEDGER_CAPACITY) -> Collector:
    """Run the loader, give up every capability (and root), attach the programs, and return the collector.

    Before Linux 5.19 (commit c8644cd0efe7) the kernel refuses every bpf() call without CAP_BPF: then that one is kept.

    Raises:
        KernelUnfit, NotPermitted, HandoverError: with the remedy.
    """
    privileges.require({privileges.CAP_BPF, privileges.CAP_PERFMON})
    loaded = handover.load(ledger_capacity)
    keep = set() if _works_without(loaded.maps["losses"]) else {privileges.CAP_BPF}
    privileges.keep_only(keep)
    if keep:
        _log.warning("this kernel wants CAP_BPF for reading maps (before Linux 5.19): keeping CAP_BPF, nothing else")
    return Collector(loaded, clock)


def _works_without(fd: int) -> bool:
    with privileges.suspended():
        try:
            libbpf.map_info(fd)
        except NotPermitted:
            return False
    return True
