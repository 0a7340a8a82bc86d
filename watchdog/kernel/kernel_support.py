"""What this host offers the kernel half, point by point."""

from __future__ import annotations

import ctypes.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from watchdog.clock import SystemClock
from watchdog.errors import KernelUnfit, WatchdogError
from watchdog.kernel import libbpf, privileges
from watchdog.kernel.btf import Btf
from watchdog.kernel.kernel_headers import kernel_types_header
from watchdog.kernel.kernel_release import kernel_release
from watchdog.kernel.loader import import_bcc
from watchdog.kernel.programs import CONNECTION_PROBES
from watchdog.kernel.startup import start_collector

_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_OLDEST_TESTED = (6, 1)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `verdict`: "ok", "note" (works, with less) or "missing"; `remedy`: what to do."""

    verdict: str
    subject: str
    detail: str
    remedy: str = ""


def examine_host() -> Iterator[Finding]:
    """Look at everything, and load the programs for real. Gives up this process's privileges on its way."""
    capable = _check("capabilities", _capabilities)
    yield capable  # first: without them all the rest is of no use
    yield _kernel()
    for subject, look in (("BTF", _btf), ("tracepoints", _tracepoints), ("bcc", _bcc), ("libbpf", _libbpf)):
        yield _check(subject, look)
    yield _lockdown()
    yield _pid_namespace()
    yield _cgroups()
    account = _check("account", _account)
    yield account
    if account.verdict == capable.verdict == "ok":
        yield from _load_for_real()


def _check(subject: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding("ok", subject, look())
    except WatchdogError as error:
        return Finding("missing", subject, error.text, error.remedy)


def _kernel() -> Finding:
    release = os.uname().release
    if kernel_release() >= _OLDEST_TESTED:
        return Finding("ok", "kernel", f"Linux {release}")
    return Finding(
        "note", "kernel", f"Linux {release}, older than what is tested", "use Linux 6.1 or newer; 5.12 may work"
    )


def _btf() -> str:
    kernel_types_header(Btf())
    return "every struct member that is read has its offset in /sys/kernel/btf/vmlinux"


def _tracepoints() -> str:
    btf = Btf()
    names = list(dict.fromkeys(probe.target for probe in CONNECTION_PROBES))
    missing = [name for name in names if not btf.has_tracepoint(name)]
    if missing:
        raise KernelUnfit(f"no {', '.join(missing)}", remedy="use Linux 6.1 or newer")
    return ", ".join(names)


def _bcc() -> str:
    return f"iovisor's bcc {import_bcc().__version__}"


def _libbpf() -> str:
    libbpf.library()
    return ctypes.util.find_library("bpf") or "libbpf.so.1"


def _capabilities() -> str:
    privileges.require_capabilities(privileges.LOADER_CAPABILITIES)
    return "CAP_BPF and CAP_PERFMON"


def _lockdown() -> Finding:
    try:
        text = _LOCKDOWN.read_text(encoding="ascii")
    except OSError:
        return Finding(
            "ok", "lockdown", "state not readable (securityfs is not mounted): the rehearsal below will tell"
        )
    state = text[text.index("[") + 1 : text.index("]")] if "[" in text else text.strip()
    if state == "confidentiality":
        return Finding(
            "missing", "lockdown", "confidentiality: the kernel refuses tracing", "boot with lockdown=integrity"
        )
    return Finding("ok", "lockdown", f"{state}: no kprobes are needed")


def _pid_namespace() -> Finding:
    if os.readlink("/proc/self/ns/pid") == _INITIAL_PID_NAMESPACE:
        return Finding("ok", "pid namespace", "the host's own: all processes are seen")
    return Finding(
        "note",
        "pid namespace",
        "not the host's: sockets of processes outside have no owner until they close",
        "run outside of containers, or with the host's pid namespace (docker run --pid=host)",
    )


def _cgroups() -> Finding:
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (root / "cgroup.procs").exists():
            return Finding("ok", "cgroup v2", f"{root}: unit and container are known of processes that are gone, too")
    return Finding(
        "note", "cgroup v2", "not mounted: unit and container are unknown of processes that end within a tick",
        "boot with systemd.unified_cgroup_hierarchy=1",
    )  # fmt: skip


def _account() -> str:
    if os.geteuid() != 0 and privileges.effective_capabilities() >= privileges.LOADER_CAPABILITIES:
        return f"none is needed: not root, but uid {os.geteuid()}"
    return f"root gives way to {privileges.service_account().pw_name}"


def _load_for_real() -> Iterator[Finding]:
    clock = SystemClock()
    began = clock.boottime_ns()
    try:
        collector = start_collector(clock)
        try:
            reading = collector.read()
            message_probes_problem = collector.message_probes_problem
        finally:
            collector.close()
    except WatchdogError as error:
        yield Finding("missing", "rehearsal", error.text, error.remedy)
        return
    seconds = (clock.boottime_ns() - began) / 1e9
    yield Finding(
        "ok",
        "rehearsal",
        f"compiled, loaded, attached and read {len(reading.live)} live sockets in {seconds:.2f} s,"
        f" the pass itself in {reading.quality.pass_seconds * 1e3:.2f} ms"
        + (f", resumed {reading.quality.pass_retries} times" if reading.quality.pass_retries else ""),
    )
    if message_probes_problem:
        yield Finding("note", "on demand", f"no response latency, no UDP: {message_probes_problem}")
    else:
        yield Finding("ok", "on demand", "response latency and UDP can be measured while a rule reads them")
    if privileges.effective_capabilities():
        yield Finding("note", "privileges", "the daemon keeps CAP_BPF on this kernel", "use Linux 5.19 or newer")
    else:
        yield Finding("ok", "privileges", f"all of that as uid {os.getuid()} without any capability")
