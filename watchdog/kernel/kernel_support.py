"""Checks whether this host supports the kernel half; `doctor` shows the findings."""

from __future__ import annotations

import ctypes.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from watchdog.clock import SystemClock
from watchdog.config.trusted_files import code_owners, sudo_caller
from watchdog.errors import KernelUnfit, WatchdogError
from watchdog.kernel import libbpf, privileges
from watchdog.kernel.btf import Btf, message_probes_warning
from watchdog.kernel.finding import Finding
from watchdog.kernel.host_sockets import HostSocketsReader
from watchdog.kernel.kernel_headers import kernel_types_header
from watchdog.kernel.kernel_release import kernel_release
from watchdog.kernel.loader import import_bcc
from watchdog.kernel.process_stat import has_host_pids
from watchdog.kernel.programs import CONNECTION_PROBES
from watchdog.kernel.startup import start_collector
from watchdog.kernel.trusted_code import find_code_flaws

_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_OLDEST_TESTED = (6, 1)


def examine_host() -> Iterator[Finding]:
    """Run all checks, and load the programs for real. This process gives up its privileges on the way."""
    capable = _check("capabilities", _capabilities)
    yield capable  # first: without them no other check can succeed
    yield from _code()
    yield _kernel()
    for subject, look in (("BTF", _btf), ("tracepoints", _tracepoints), ("bcc", _bcc), ("libbpf", _libbpf)):
        yield _check(subject, look)
    yield _lockdown()
    yield _pid_namespace()
    yield _proc_mount()
    yield _cgroups()
    yield _time_wait()
    account = _check("account", _account)
    yield account
    if account.verdict == capable.verdict == "ok":
        yield from _load_for_real()


def _code() -> Iterator[Finding]:
    strict, owners = code_owners() - (sudo_caller() - {0}), code_owners()
    flaws = find_code_flaws(strict, thorough=True)
    accepted = set(flaws).difference(find_code_flaws(owners, thorough=True)) if strict != owners else set()
    for flaw in flaws:
        if flaw in accepted:
            detail = f"{flaw.path} {flaw.reason}: the service would refuse it, unlike a daemon that you start by sudo"
            yield Finding("note", "code", detail, flaw.remedy)
        else:
            yield Finding("missing", "code", f"{flaw.path}: {flaw.reason}", flaw.remedy)
    if not flaws:
        yield Finding("ok", "code", "only root can change the program")


def _time_wait() -> Finding:
    reader = HostSocketsReader()
    counts, problem = reader.read(), reader.problem
    reader.close()
    if counts is None:
        return Finding("note", "TIME_WAIT", "no time_wait, orphans, ports_in_use: /proc/net/sockstat cannot be read")
    if problem:
        remedy = "load the kernel modules inet_diag and tcp_diag"
        return Finding("note", "TIME_WAIT", f"its ports are not in ports_in_use: {problem}", remedy)
    return Finding("ok", "TIME_WAIT", "its sockets and their local ports are counted")


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
        "note", "kernel", f"Linux {release}, older than the tested kernels", "use Linux 6.1 or newer; 5.12 may work"
    )


def _btf() -> str:
    kernel_types_header(Btf())
    return "/sys/kernel/btf/vmlinux has the offset of every struct member that the programs read"


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
        return Finding("ok", "lockdown", "state not readable (securityfs is not mounted): see load below")
    state = text[text.index("[") + 1 : text.index("]")] if "[" in text else text.strip()
    if state == "confidentiality":
        return Finding(
            "missing", "lockdown", "confidentiality: the kernel refuses tracing", "boot with lockdown=integrity"
        )
    return Finding("ok", "lockdown", f"{state}: no kprobes are needed")


def _pid_namespace() -> Finding:
    if has_host_pids():
        return Finding("ok", "pid namespace", "the host's own")
    return Finding(
        "note",
        "pid namespace",
        "not the host's: sockets of processes outside have no owner until they close",
        "run outside of containers, or with the host's pid namespace (docker run --pid=host)",
    )


def _proc_mount(mounts: Path = Path("/proc/self/mountinfo")) -> Finding:
    options = _proc_options(mounts)
    mode = options.get("hidepid", "off")
    if mode in {"off", "0"}:
        return Finding("ok", "/proc", "shows the processes of all users")
    return Finding(
        "note",
        "/proc",
        f"mounted with hidepid={mode}: command line and parents of other users' processes are unknown in alerts, and"
        " units on hosts without cgroup v2",
        "mount /proc with gid= of a group, and add SupplementaryGroups= with this group to the unit"
        if "gid" not in options
        else f"check that the unit has SupplementaryGroups= with group {options['gid']}",
    )


def _proc_options(mounts: Path) -> dict[str, str]:
    """Return the options of the newest mount on /proc (proc_pid_mountinfo(5))."""
    options: dict[str, str] = {}
    # Of all line ends the kernel escapes the line feed only (seq_path_root(), fs/proc_namespace.c).
    for line in mounts.read_bytes().decode("utf-8", "replace").split("\n")[:-1]:
        mount, _, file_system = line.partition(" - ")
        if mount.split()[4] == "/proc" and file_system.startswith("proc "):
            options = dict(option.partition("=")[::2] for option in file_system.split()[-1].split(","))
    return options


def _cgroups() -> Finding:
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (root / "cgroup.procs").exists():
            return Finding(
                "ok", "cgroup v2", f"{root}: unit and container are known for ended processes and removed groups, too"
            )
    return Finding(
        "note", "cgroup v2", "not mounted: unit and container are unknown for processes that end within a tick",
        "boot with systemd.unified_cgroup_hierarchy=1",
    )  # fmt: skip


def _account() -> str:
    if os.geteuid() != 0 and privileges.effective_capabilities() >= privileges.LOADER_CAPABILITIES:
        return f"none is needed: this process runs as uid {os.geteuid()}, not as root"
    return f"root changes to {privileges.service_account().pw_name}"


def _connects(problem: str) -> Finding:
    if not problem:
        return Finding("ok", "connects", "attempts that fail before their first packet are counted, with their cause")
    return Finding(
        "note",
        "connects",
        "connects that fail before their first packet (no route, denied by a policy, no free port at bind) are not all"
        f" counted: {problem}",
        "use a kernel that allows fexit programs: Linux 6.1 or newer on x86_64, 6.4 on aarch64",
    )


def _load_for_real() -> Iterator[Finding]:
    clock = SystemClock()
    began = clock.boottime_ns()
    try:
        collector = start_collector(clock)
        try:
            reading = collector.read()
            message_probes_problem = collector.message_probes_problem
            socket_iterator_problem = collector.socket_iterator_problem
            task_iterator_problem = collector.task_iterator_problem
            connect_errors_problem = collector.connect_errors_problem
        finally:
            collector.close()
    except WatchdogError as error:
        yield Finding("missing", "load", error.text, error.remedy)
        return
    seconds = (clock.boottime_ns() - began) / 1e9
    yield Finding(
        "ok",
        "load",
        f"compiled, loaded, attached and read {len(reading.live)} live sockets in {seconds:.2f} s,"
        f" of which the pass over live sockets took {reading.quality.pass_seconds * 1e3:.2f} ms"
        + (", the walk over files not finished" if reading.quality.walk_unfinished else ""),
    )
    yield _connects(connect_errors_problem)
    if not Btf().traces_resets_without_socket():
        yield Finding(
            "note", "closed ports", "resets sent to a peer of a closed port are not counted", "use Linux 6.10 or newer"
        )
    if socket_iterator_problem:
        detail = f"files are read instead, slower, and sockets without a file not at all: {socket_iterator_problem}"
        yield Finding("note", "sockets", detail)
    if task_iterator_problem:
        yield Finding("note", "executables", f"alerts have no path of an executable: {task_iterator_problem}")
    if message_probes_problem:
        yield Finding("note", "on demand", f"no response latency, no UDP: {message_probes_problem}")
    elif message_probes_warning():
        yield Finding(
            "note", "on demand", "response latency and UDP can be measured while a rule uses them, except responses to"
            " sends through kernel TLS or a sockmap, and responses of urgent data", "use Linux 6.3 or newer",
        )  # fmt: skip
    else:
        yield Finding("ok", "on demand", "response latency and UDP can be measured while a rule uses them")
    if privileges.effective_capabilities():
        yield Finding("note", "privileges", "the daemon keeps CAP_BPF on this kernel", "use Linux 5.19 or newer")
    else:
        yield Finding("ok", "privileges", f"read as uid {os.getuid()} without any capability")
