"""From a privileged start to a collector without privileges, in a safe order."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import numpy.ma  # noqa: F401 - np.unique imports it at its first call, when an upgrade can have replaced it

from watchdog.clock import Clock
from watchdog.config.map_sizes import DEFAULT_MAP_SIZES, MapSizes
from watchdog.errors import NotPermitted
from watchdog.kernel import handover, libbpf, privileges
from watchdog.kernel.collector import Collector

_log = logging.getLogger(__name__)


def require_privileges() -> None:
    """Check that this process can load programs and, as root, that the service account exists.

    Raises:
        NotPermitted: with the remedy.
    """
    privileges.require_capabilities(privileges.LOADER_CAPABILITIES)
    if os.geteuid() == 0:
        privileges.service_account()


def start_collector(
    clock: Clock,
    map_sizes: MapSizes = DEFAULT_MAP_SIZES,
    report_step: Callable[[handover.LoaderStep], object] = bool,
    *,
    count_runs: bool = False,
) -> Collector:
    """Run the loader, give up every capability (and root), attach the programs, and return the collector.

    `report_step`: is called when a step of the loader begins. `count_runs`: the kernel is to count the runs of BPF
    programs, of the whole host, while the collector is open.

    Before Linux 5.19 (commit c8644cd0efe7) the kernel refuses every bpf() call without CAP_BPF: there CAP_BPF is kept.

    Raises:
        KernelUnfit, NotPermitted, TemporaryFailure: with the remedy.
    """
    require_privileges()
    loaded = handover.run_loader(map_sizes, report_step, count_runs=count_runs)
    keep = set() if _works_without_capabilities(loaded.maps["losses"]) else {privileges.CAP_BPF}
    privileges.keep_only_capabilities(keep)
    if keep:
        _log.warning("CAP_BPF is kept, and no other capability: kernels before Linux 5.19 require it for reading maps")
    return Collector(loaded, clock)


def _works_without_capabilities(fd: int) -> bool:
    with privileges.without_capabilities():
        try:
            libbpf.map_info(fd)
        except NotPermitted:
            return False
    return True
