"""The loader: a short-lived child process with CAP_BPF and CAP_PERFMON, the only process that maps LLVM.

It compiles bpf/ with bcc against headers from the running kernel's BTF, loads every program, attaches the iterator,
sends the descriptors to its parent, and exits. Each step is reported to the parent as it begins. bcc does not support
tp_btf programs: their bytecode is compiled as bcc's "kfunc" and loaded through libbpf with the attach type and BTF id
of the tracepoint.
"""

from __future__ import annotations

import ctypes as ct
import json
import mmap
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watchdog.config.map_sizes import MapSizes
from watchdog.errors import TEMPORARY_ERRNOS, KernelUnfit, NotPermitted, TemporaryFailure, WatchdogError
from watchdog.kernel import handover, layout, libbpf, privileges
from watchdog.kernel.kernel_headers import write_header_tree
from watchdog.kernel.kfuncs import VARIANT, Kfuncs, set_variant
from watchdog.kernel.live_sockets import RECORDS_PER_READ
from watchdog.kernel.programs import (
    CONNECT_ERROR_PROBES,
    CONNECTION_PROBES,
    FILE_ITERATOR,
    LEGACY_MESSAGE_PROBES,
    MESSAGE_PROBES,
    OPTIONAL_LEGACY_MESSAGE_PROBES,
    SOCKET_ITERATOR,
    TASK_ITERATOR,
    Probe,
)
from watchdog.kernel.ring_buffer import ring_size
from watchdog.resources import bpf_folder

if TYPE_CHECKING:
    import types

_UNIT = (
    *("acceptors.bpf.c", "connection.bpf.c", "connect_error.bpf.c", "reset.bpf.c", "latency.bpf.c", "cgroup.bpf.c"),
    "executable.bpf.c",
)
_SOURCES = ("connection.h", "tracked_socket.h", "owner.bpf.h", "record.bpf.h", *_UNIT)
_INSTALL_BCC = (
    "install Debian's package python3-bpfcc and make the environment with"
    " /usr/bin/python3 -m venv --system-site-packages"
)
_RUN_TIMES_SETTING = Path("/proc/sys/kernel/bpf_stats_enabled")
_LOAD_AGAIN = "stop what uses them up; another start can succeed"
_REPLACE_BCC = "pip uninstall bcc, and install Debian's package python3-bpfcc"


def import_bcc() -> types.ModuleType:
    """Return iovisor's bcc module.

    Raises:
        KernelUnfit: it is missing, or another package has its name; with the remedy.
        TemporaryFailure: its library or LLVM cannot be mapped.
    """
    try:
        import bcc
    except ImportError as error:
        raise KernelUnfit(f"iovisor's bcc is missing for {sys.executable}", remedy=_INSTALL_BCC) from error
    except OSError as error:  # of dlopen(3), without an errno
        remedy = "free 300 MB, or install Debian's package libbpfcc again"
        raise TemporaryFailure(f"cannot load the library of bcc: {error}", remedy=remedy) from error
    if not hasattr(bcc, "BPF"):
        path = getattr(bcc, "__file__", "?")
        raise KernelUnfit(
            f"the module bcc at {path} is not iovisor's (PyPI's bcc is an unrelated package)", remedy=_REPLACE_BCC
        )
    return bcc


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Loaded programs and maps: descriptors by manifest name, and the optional parts among them."""

    fds: dict[str, int]
    optional: handover.OptionalParts


def write_sources(folder: Path) -> None:
    """Write all sources into the empty `folder`. Later, only the present account can change them.

    The loader does this as root, so that not even other processes of the service account can change the programs.

    Raises:
        KernelUnfit: the kernel lacks a helper, struct or member.
    """
    os.umask(0o022)
    for name in _SOURCES:
        (folder / name).write_text((bpf_folder() / name).read_text(encoding="ascii"), encoding="ascii")
    write_header_tree(folder / "kernel")
    (folder / "layout_assertions.h").write_text(layout.layout_assertions(), encoding="ascii")
    if os.geteuid() == 0:
        folder.chmod(0o711)  # the compiler reads as another account; without 0o044 that cannot hold the lock


def write_sources_to_any(folders: Sequence[Path]) -> Path:
    """Write all sources into the first of the empty `folders` that has room for them, and return it.

    Raises:
        KernelUnfit: as `write_sources`.
        TemporaryFailure: none has room.
    """
    problems = []
    for folder in folders:
        try:
            write_sources(folder)
        except OSError as error:
            problems.append(f"{error.filename or folder}: {error.strerror}")
        else:
            return folder
    raise TemporaryFailure(
        f"no room for the sources of the BPF programs: {', '.join(problems)}", remedy="free 1 MB in one of these places"
    )


def compile_and_load(
    folder: Path, map_sizes: MapSizes, report_step: Callable[[handover.LoaderStep], object] = bool
) -> LoadResult:
    """Compile the sources that `write_sources` wrote to `folder`, and load all programs.

    `folder` becomes the current folder: bcc has that on its include path. `report_step`: is called when a step begins.

    Raises:
        KernelUnfit: the kernel or bcc cannot compile or load a program.
        TemporaryFailure: memory or descriptors are used up.
    """
    os.chdir(folder)
    os.environ["BCC_KERNEL_SOURCE"] = str(folder / "kernel")
    bcc = import_bcc()
    bcc.BPF._trace_autoload = lambda _self: None  # noqa: SLF001 - it attaches by function name
    kfuncs = Kfuncs()
    cflags = _cflags(folder, map_sizes, kfuncs)
    report_step(handover.LoaderStep.COMPILE)
    module, problem = _compile(bcc, folder, cflags), ""
    fds: dict[str, int] = {}
    report_step(handover.LoaderStep.ITERATORS)
    try:
        _attach_socket_iterator(bcc.lib, module, fds)
    except (KernelUnfit, OSError) as error:
        _raise_temporary(error)
        problem = str(error).splitlines()[0]
        report_step(handover.LoaderStep.COMPILE)
        module = _compile(bcc, folder, [*cflags, "-DREPORT_FILES"])
        report_step(handover.LoaderStep.ITERATORS)
    iterator = fds[f"program:{FILE_ITERATOR}"] = _load_iterator(module, FILE_ITERATOR)
    fds[f"link:{FILE_ITERATOR}"] = libbpf.check_result(
        bcc.lib.bcc_iter_attach(iterator, None, 0), "cannot attach the iterator over files"
    )
    report_step(handover.LoaderStep.CONNECTIONS)
    fds.update({f"program:{probe.name}": _load(bcc.lib, module.module, kfuncs, probe) for probe in CONNECTION_PROBES})
    fds.update({f"map:{name}": module[name].map_fd for name in handover.MAPS})
    report_step(handover.LoaderStep.CONNECT_ERRORS)
    connect_errors = _load_connect_error_probes(bcc.lib, module.module, kfuncs, fds)
    report_step(handover.LoaderStep.MESSAGES)
    messages = _load_message_probes(bcc.lib, module.module, kfuncs, fds)
    task_problem = _load_task_iterator(module, fds)
    return LoadResult(fds, handover.OptionalParts(*connect_errors, *messages, problem, task_problem))


def _cflags(folder: Path, map_sizes: MapSizes, kfuncs: Kfuncs) -> list[str]:
    return [
        *("-Xclang", "-disable-llvm-passes"),  # bcc optimizes what clang hands over, whether or not clang did before
        f"-I{folder}",
        f"-DLEDGER_BYTES={ring_size(map_sizes.ledger, layout.CONNECTION)}",
        f"-DLIVE_BYTES={ring_size(RECORDS_PER_READ, layout.CONNECTION)}",
        f"-DRECORDS_PER_READ={RECORDS_PER_READ}",
        f"-DRESPONSES_BYTES={ring_size(map_sizes.responses, layout.RESPONSE)}",
        f"-DSUMS_CAPACITY={map_sizes.processes}",
        f"-DDATAGRAMS_CAPACITY={map_sizes.processes}",
        f"-DPAGE_SIZE={mmap.PAGESIZE}",
        f"-DVARIANT={VARIANT:#x}",
        *kfuncs.cflags,
    ]


def _compile(bcc: types.ModuleType, folder: Path, cflags: list[str]) -> Any:
    # One unit: bcc translates map calls in its main file only.
    sources = [(folder / name).read_text(encoding="ascii") for name in _UNIT]
    try:
        return bcc.BPF(text="".join([*sources, '#include "layout_assertions.h"\n']), cflags=cflags)
    except Exception as error:  # bcc raises Exception itself
        raise _bcc_error(f"bcc cannot compile the programs: {error}") from error


def _load_iterator(module: Any, name: str) -> int:
    try:
        return int(module.load_func(f"bpf_iter__{name}", libbpf.BPF_PROG_TYPE_TRACING).fd)
    except Exception as error:  # bcc raises Exception itself
        raise _bcc_error(f"bcc cannot load the iterator {name}: {error}") from error


def _bcc_error(text: str) -> WatchdogError:
    # bcc loads its library so that ctypes keeps errno.
    return TemporaryFailure(text, remedy=_LOAD_AGAIN) if ct.get_errno() in TEMPORARY_ERRNOS else KernelUnfit(text)


def _raise_temporary(error: WatchdogError | OSError) -> None:
    """Raise TemporaryFailure if an optional part is missing for want of memory only: the kernel itself supports it."""
    if isinstance(error, OSError) and error.errno in TEMPORARY_ERRNOS:
        raise TemporaryFailure(str(error.strerror), remedy=_LOAD_AGAIN) from error


def _attach_socket_iterator(lib: Any, module: Any, fds: dict[str, int]) -> None:
    """Attach the iterator over sockets and add program and link to `fds`."""
    iterator = _load_iterator(module, SOCKET_ITERATOR)
    map_fd = lib.bpf_table_fd(module.module, b"tracked_sockets")
    link_info = ct.create_string_buffer(struct.pack("<I12x", map_fd), 16)  # union bpf_iter_link_info: map.map_fd
    lib.bcc_iter_attach.argtypes = [ct.c_int, ct.c_void_p, ct.c_uint]
    link = lib.bcc_iter_attach(iterator, ct.addressof(link_info), len(link_info))
    fds[f"link:{SOCKET_ITERATOR}"] = libbpf.check_result(link, "cannot attach the iterator over sockets")
    fds[f"program:{SOCKET_ITERATOR}"] = iterator


def _load_task_iterator(module: Any, fds: dict[str, int]) -> str:
    """Load the iterator over tasks and add it to `fds`; return the reason if this kernel cannot run it, else ""."""
    try:
        fds[f"program:{TASK_ITERATOR}"] = _load_iterator(module, TASK_ITERATOR)
        link = libbpf.link_task_iterator(fds[f"program:{TASK_ITERATOR}"], os.getpid())
    except (KernelUnfit, NotPermitted, OSError) as error:
        fds.pop(f"program:{TASK_ITERATOR}", None)
        return str(error).splitlines()[0]
    os.close(link)
    return ""


def _load_connect_error_probes(
    lib: Any, module: Any, kfuncs: Kfuncs, fds: dict[str, int]
) -> tuple[tuple[Probe, ...], str]:
    loaded, refused = [], {}
    for probe in CONNECT_ERROR_PROBES:
        try:
            program = _load(lib, module, kfuncs, probe)
            os.close(libbpf.attach(program))  # some kernels load fexit programs and cannot attach them (arm64 to 6.3)
        except (KernelUnfit, NotPermitted, OSError) as error:
            _raise_temporary(error)
            refused[probe.target] = error.text if isinstance(error, WatchdogError) else str(error)
        else:
            fds[f"program:{probe.name}"] = program
            loaded.append(probe)
    if not refused:
        return tuple(loaded), ""
    reason = next(iter(refused.values())).splitlines()[0]
    return tuple(loaded), f"no fexit program on {', '.join(refused)}: {reason}"


def _load_message_probes(lib: Any, module: Any, kfuncs: Kfuncs, fds: dict[str, int]) -> tuple[tuple[Probe, ...], str]:
    refusals = []
    for probes, optional in ((MESSAGE_PROBES, ()), (LEGACY_MESSAGE_PROBES, OPTIONAL_LEGACY_MESSAGE_PROBES)):
        try:
            fds.update({f"program:{probe.name}": _load(lib, module, kfuncs, probe) for probe in probes})
        except (KernelUnfit, NotPermitted, OSError) as error:  # refused by policy: the other programs are loaded
            _raise_temporary(error)
            refusals.append(str(error).splitlines()[0])
        else:
            return (*probes, *_load_optional(lib, module, kfuncs, optional, fds)), ""
    return (), f"{'; '.join(refusals)}: use Linux 6.3 or newer"


def _load_optional(
    lib: Any, module: Any, kfuncs: Kfuncs, probes: Iterable[Probe], fds: dict[str, int]
) -> tuple[Probe, ...]:
    """Load those of `probes` whose target this kernel has, add them to `fds`, and return them."""
    loaded = []
    for probe in probes:
        try:
            fds[f"program:{probe.name}"] = _load(lib, module, kfuncs, probe)
        except (KernelUnfit, NotPermitted, OSError) as error:
            _raise_temporary(error)
        else:
            loaded.append(probe)
    return tuple(loaded)


def _load(lib: Any, module: Any, kfuncs: Kfuncs, probe: Probe) -> int:
    attach_type, prefix = probe.attach_type.value
    # The symbol is kfunc__NAME up to bcc 0.26, kfunc__vmlinux__NAME later.
    function = (probe.function or probe.name).encode()
    symbols = {prefix + middle + function for middle in (b"", b"vmlinux__")}
    names = [lib.bpf_function_name(module, number) for number in range(lib.bpf_num_functions(module))]
    for symbol in names:
        if symbol in symbols:
            start, size = lib.bpf_function_start(module, symbol), lib.bpf_function_size(module, symbol)
            code = set_variant(ct.string_at(start, size), probe.variant)
            return libbpf.load_program(probe.name, probe.target, attach_type, kfuncs.link_calls(code))
    raise KernelUnfit(f"this version of bcc has no known symbol for the function {function.decode()}: symbols={names}")


def _enable_run_times(fds: dict[str, int]) -> str:
    """Let the kernel count runs and add the descriptor to `fds`; return the reason if it is not permitted, else ""."""
    try:
        if _RUN_TIMES_SETTING.read_text(encoding="ascii").strip() != "0":
            return ""
    except OSError:  # a sandbox hides it
        pass
    try:
        fds[handover.RUN_TIMES] = libbpf.enable_run_times()
    except (NotPermitted, OSError) as error:
        return error.text if isinstance(error, WatchdogError) else str(error.strerror)
    return ""


def main(channel_fd: int, folders: Sequence[Path], map_sizes: MapSizes, *, count_runs: bool = False) -> int:
    """Compile in one of the empty `folders`, load, send the descriptors to `channel_fd`; return the exit code.

    `count_runs`: the kernel is to count the runs of BPF programs, for which this process has CAP_SYS_ADMIN or not.
    """
    with socket.socket(fileno=channel_fd) as channel:
        try:
            privileges.require_capabilities(privileges.LOADER_CAPABILITIES)
            folder = write_sources_to_any(folders)
            run_times: dict[str, int] = {}
            problem = _enable_run_times(run_times) if count_runs else ""
            privileges.keep_only_capabilities(privileges.LOADER_CAPABILITIES)
            loaded = compile_and_load(folder, map_sizes, lambda step: handover.send_step(channel, step))
            handover.send(channel, loaded.fds | run_times, replace(loaded.optional, run_times_problem=problem))
        except (WatchdogError, OSError, MemoryError) as error:
            reported = _as_watchdog_error(error)
            handover.send_error(channel, reported)
            return reported.exit_code
    return 0


def _as_watchdog_error(error: WatchdogError | OSError | MemoryError) -> WatchdogError:
    if isinstance(error, WatchdogError):
        return error
    if isinstance(error, MemoryError):
        return TemporaryFailure("the loader has no memory", remedy=_LOAD_AGAIN)
    if error.errno in TEMPORARY_ERRNOS:
        return TemporaryFailure(str(error.strerror), remedy=_LOAD_AGAIN)
    return KernelUnfit(str(error))


if __name__ == "__main__":
    given_folders = [Path(folder) for folder in json.loads(sys.argv[2])]
    sizes = MapSizes(*map(int, sys.argv[4:]))
    sys.exit(main(int(sys.argv[1]), given_folders, sizes, count_runs=sys.argv[3] == "1"))
