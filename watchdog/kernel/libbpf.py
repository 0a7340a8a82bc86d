"""libbpf through ctypes: the few calls that bcc's Python module does not have, or that must work without bcc.

The daemon uses this module and not bcc, so that no compiler is mapped into its memory.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
from functools import cache

from watchdog.errors import TEMPORARY_ERRNOS, KernelUnfit, NotPermitted, TemporaryFailure

BPF_PROG_TYPE_TRACING = 26  # enum bpf_prog_type
_BPF_TRACE_RAW_TP, _BPF_TRACE_ITER = 23, 28  # enum bpf_attach_type
_BTF_TYPEDEF, _BTF_FUNCTION = 8, 12  # kinds of types
_BPF_STATS_RUN_TIME = 0  # enum bpf_stats_type


class _ProgramLoadOptions(ct.Structure):
    """struct bpf_prog_load_opts of libbpf 1.x; libbpf accepts any prefix, by `sz`."""

    _fields_ = [
        ("sz", ct.c_size_t),
        ("attempts", ct.c_int),
        ("expected_attach_type", ct.c_int),
        ("prog_btf_fd", ct.c_uint32),
        ("prog_flags", ct.c_uint32),
        ("prog_ifindex", ct.c_uint32),
        ("kern_version", ct.c_uint32),
        ("attach_btf_id", ct.c_uint32),
        ("attach_prog_fd", ct.c_uint32),
        ("attach_btf_obj_fd", ct.c_uint32),
        ("fd_array", ct.c_void_p),
        ("func_info", ct.c_void_p),
        ("func_info_cnt", ct.c_uint32),
        ("func_info_rec_size", ct.c_uint32),
        ("line_info", ct.c_void_p),
        ("line_info_cnt", ct.c_uint32),
        ("line_info_rec_size", ct.c_uint32),
        ("log_level", ct.c_uint32),
        ("log_size", ct.c_uint32),
        ("log_buf", ct.c_void_p),
    ]


class _TaskIteratorInfo(ct.Structure):
    """Member `task` of union bpf_iter_link_info (include/uapi/linux/bpf.h, Linux 6.1)."""

    _fields_ = [("tid", ct.c_uint32), ("pid", ct.c_uint32), ("pid_fd", ct.c_uint32)]


class _LinkOptions(ct.Structure):
    """struct bpf_link_create_opts of libbpf, up to the last member that is used."""

    _fields_ = [
        ("sz", ct.c_size_t),
        ("flags", ct.c_uint32),
        ("iter_info", ct.c_void_p),
        ("iter_info_len", ct.c_uint32),
    ]


class MapInfo(ct.Structure):
    """struct bpf_map_info (include/uapi/linux/bpf.h), up to the last member that is read."""

    _fields_ = [
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("key_size", ct.c_uint32),
        ("value_size", ct.c_uint32),
        ("max_entries", ct.c_uint32),
        ("map_flags", ct.c_uint32),
        ("name", ct.c_char * 16),
    ]


class ProgramInfo(ct.Structure):
    """struct bpf_prog_info (include/uapi/linux/bpf.h), up to `recursion_misses` (Linux 5.12)."""

    _fields_ = [
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("tag", ct.c_uint8 * 8),
        ("jited_prog_len", ct.c_uint32),
        ("xlated_prog_len", ct.c_uint32),
        ("jited_prog_insns", ct.c_uint64),
        ("xlated_prog_insns", ct.c_uint64),
        ("load_time", ct.c_uint64),
        ("created_by_uid", ct.c_uint32),
        ("nr_map_ids", ct.c_uint32),
        ("map_ids", ct.c_uint64),
        ("name", ct.c_char * 16),
        ("ifindex", ct.c_uint32),
        ("gpl_compatible", ct.c_uint32),
        ("netns_dev", ct.c_uint64),
        ("netns_ino", ct.c_uint64),
        ("nr_jited_ksyms", ct.c_uint32),
        ("nr_jited_func_lens", ct.c_uint32),
        ("jited_ksyms", ct.c_uint64),
        ("jited_func_lens", ct.c_uint64),
        ("btf_id", ct.c_uint32),
        ("func_info_rec_size", ct.c_uint32),
        ("func_info", ct.c_uint64),
        ("nr_func_info", ct.c_uint32),
        ("nr_line_info", ct.c_uint32),
        ("line_info", ct.c_uint64),
        ("jited_line_info", ct.c_uint64),
        ("nr_jited_line_info", ct.c_uint32),
        ("line_info_rec_size", ct.c_uint32),
        ("jited_line_info_rec_size", ct.c_uint32),
        ("nr_prog_tags", ct.c_uint32),
        ("prog_tags", ct.c_uint64),
        ("run_time_ns", ct.c_uint64),
        ("run_cnt", ct.c_uint64),
        ("recursion_misses", ct.c_uint64),
    ]


@cache
def library() -> ct.CDLL:
    """Return libbpf 1.x with the signatures that this module uses.

    Raises:
        KernelUnfit: libbpf is not installed.
    """
    try:
        lib = ct.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise KernelUnfit(f"cannot load libbpf: {error}", remedy="install Debian's package libbpf1") from error
    pointer, u32 = ct.c_void_p, ct.c_uint32
    lib.bpf_prog_load.argtypes = [ct.c_int, ct.c_char_p, ct.c_char_p, pointer, ct.c_size_t, pointer]
    lib.bpf_raw_tracepoint_open.argtypes = [ct.c_char_p, ct.c_int]
    lib.bpf_iter_create.argtypes = [ct.c_int]
    lib.bpf_enable_stats.argtypes = [ct.c_int]
    lib.bpf_link_create.argtypes = [ct.c_int, ct.c_int, ct.c_int, pointer]
    lib.bpf_map_lookup_elem.argtypes = [ct.c_int, pointer, pointer]
    lib.bpf_map_update_elem.argtypes = [ct.c_int, pointer, pointer, ct.c_uint64]
    lib.bpf_map_lookup_and_delete_elem.argtypes = [ct.c_int, pointer, pointer]
    lib.bpf_map_lookup_batch.argtypes = [ct.c_int, pointer, pointer, pointer, pointer, ct.POINTER(u32), pointer]
    lib.bpf_obj_get_info_by_fd.argtypes = [ct.c_int, pointer, ct.POINTER(u32)]
    lib.btf__load_vmlinux_btf.restype = pointer
    lib.btf__find_by_name_kind.argtypes = [pointer, ct.c_char_p, u32]
    lib.btf__type_by_id.argtypes = [pointer, u32]
    lib.btf__type_by_id.restype = pointer
    lib.btf__name_by_offset.argtypes = [pointer, u32]
    lib.btf__name_by_offset.restype = ct.c_char_p
    return lib


@cache
def kernel_btf() -> int:
    """Return libbpf's handle of the running kernel's types, which is read once (5 ms) and never freed.

    Raises:
        KernelUnfit: the kernel has no BTF.
        TemporaryFailure: there is no memory for it.
    """
    btf: int | None = library().btf__load_vmlinux_btf()
    if btf:
        return btf
    if ct.get_errno() in TEMPORARY_ERRNOS:
        raise TemporaryFailure(f"cannot read the kernel's BTF: {os.strerror(ct.get_errno())}")
    raise KernelUnfit(
        "the kernel has no BTF (/sys/kernel/btf/vmlinux)", remedy="boot one built with CONFIG_DEBUG_INFO_BTF=y"
    )


def check_result(result: int, action: str) -> int:
    """Return `result` of a libbpf call unless it is negative.

    Raises:
        NotPermitted: on EPERM and EACCES.
        OSError: on any other errno.
    """
    if result >= 0:
        return result
    code = -result if result < -1 else ct.get_errno()
    if code in (errno.EPERM, errno.EACCES):
        raise NotPermitted(f"{action}: {os.strerror(code)}", remedy="CAP_BPF and CAP_PERFMON are needed")
    raise OSError(code, f"{action}: {os.strerror(code)}")


def load_program(name: str, target: str, attach_type: int, code: bytes) -> int:
    """Load BPF instructions for a tracepoint or function, without attaching; return the fd of the program.

    `attach_type`: of enum bpf_attach_type, one with BTF-typed arguments.

    Raises:
        KernelUnfit: the target does not exist, or the verifier refuses; the text has the end of its log.
        TemporaryFailure: there is no memory for the kernel's types.
        NotPermitted: without CAP_BPF and CAP_PERFMON.
        OSError: on another errno, such as ENOMEM.
    """
    lib = library()
    name_of_type, kind = target, _BTF_FUNCTION
    if attach_type == _BPF_TRACE_RAW_TP:
        name_of_type, kind = f"btf_trace_{target}", _BTF_TYPEDEF
    btf_id = lib.btf__find_by_name_kind(kernel_btf(), name_of_type.encode(), kind)
    if btf_id <= 0:
        raise KernelUnfit(f"this kernel has no {target} to attach to", remedy="Linux 5.12 or newer with BTF is needed")
    log = ct.create_string_buffer(1 << 20)
    opts = _ProgramLoadOptions(
        sz=ct.sizeof(_ProgramLoadOptions), expected_attach_type=attach_type, attach_btf_id=btf_id
    )
    args = (BPF_PROG_TYPE_TRACING, name.encode()[:15], b"GPL", code, len(code) // 8, ct.byref(opts))
    fd = lib.bpf_prog_load(*args)
    if fd >= 0:
        return int(fd)
    load_errno = ct.get_errno()
    if load_errno in TEMPORARY_ERRNOS:
        check_result(-load_errno, f"cannot load the program on {target}")
    opts.log_level, opts.log_size, opts.log_buf = 1, len(log), ct.cast(log, ct.c_void_p)
    fd = lib.bpf_prog_load(*args)
    if fd >= 0:
        return int(fd)
    if not log.value:
        check_result(-load_errno, f"cannot load the program on {target}")
    raise KernelUnfit(f"the kernel refuses the program on {target}:\n{log.value.decode(errors='replace')[-2000:]}")


def attach(program: int) -> int:
    """Attach a loaded program to its target; return the fd that keeps it attached."""
    return check_result(library().bpf_raw_tracepoint_open(None, program), "cannot attach a program")


def link_task_iterator(program: int, pid: int) -> int:
    """Return the fd of a link of the task iterator `program` that visits the main thread of `pid` alone.

    Raises:
        NotPermitted, OSError: as `check_result`; ESRCH: there is no such process.
    """
    info = _TaskIteratorInfo(tid=pid)
    options = _LinkOptions(
        sz=ct.sizeof(_LinkOptions), iter_info=ct.cast(ct.byref(info), ct.c_void_p), iter_info_len=ct.sizeof(info)
    )
    link = library().bpf_link_create(program, 0, _BPF_TRACE_ITER, ct.byref(options))
    return check_result(link, "cannot read the executable of a process")


def open_iterator(link: int) -> int:
    """Return the fd of one pass of the iterator behind `link`."""
    return check_result(library().bpf_iter_create(link), "cannot start a pass over sockets")


def map_info(fd: int) -> MapInfo:
    """Return the kernel's description of a map."""
    info = MapInfo()
    _query_object(fd, info, "cannot query a BPF map")
    return info


def store_number(array: int, number: int, action: str) -> None:
    """Store `number` in the only entry of an array map of u64; `action` is for the error.

    Raises:
        NotPermitted, OSError: as `check_result`.
    """
    result = library().bpf_map_update_elem(array, ct.byref(ct.c_uint32(0)), ct.byref(ct.c_uint64(number)), 0)
    check_result(result, action)


def program_info(fd: int) -> ProgramInfo:
    """Return the kernel's description of a program."""
    info = ProgramInfo()
    _query_object(fd, info, "cannot query a BPF program")
    return info


def enable_run_times() -> int:
    """Return the fd with which the kernel counts runs and run time of all BPF programs of the host, while it is open.

    Raises:
        NotPermitted: without CAP_SYS_ADMIN (kernel/bpf/syscall.c, bpf_enable_stats).
        OSError: on another errno.
    """
    return check_result(library().bpf_enable_stats(_BPF_STATS_RUN_TIME), "cannot count the run time of BPF programs")


def recursion_misses(program: int) -> int:
    """Return how often the kernel skipped the program because it was already running on that CPU."""
    return int(program_info(program).recursion_misses)


def _query_object(fd: int, info: ct.Structure, action: str) -> None:
    size = ct.c_uint32(ct.sizeof(info))
    check_result(library().bpf_obj_get_info_by_fd(fd, ct.byref(info), ct.byref(size)), action)
