"""Collecting needs no privilege once it has begun, puts nothing on the data path, and leaves nothing behind."""

import ctypes
import os
import signal
import time
from collections import Counter
from pathlib import Path

from watchdog.kernel import libbpf
from watchdog.kernel.libbpf import ProgramInfo

ON_DEMAND = {b"sock_send_lengt", b"sock_recv_lengt"}
OURS = {b"inet_sock_set_s", b"tcp_receive_res", b"tcp_send_reset", b"task_file"}


def programs():
    """Return (id, name) of every BPF program in the kernel."""
    lib, number, found = libbpf.library(), ctypes.c_uint32(0), set()
    while lib.bpf_prog_get_next_id(number, ctypes.byref(number)) == 0:
        fd = lib.bpf_prog_get_fd_by_id(number)
        if fd < 0:
            continue
        info, size = ProgramInfo(), ctypes.c_uint32(ctypes.sizeof(ProgramInfo))
        lib.bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size))
        os.close(fd)
        found.add((number.value, info.name))
    return found


class LinkInfo(ctypes.Structure):
    """struct bpf_link_info (include/uapi/linux/bpf.h), as far as all types of links share it."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("rest", ctypes.c_char * 128),
    ]


def links():
    """Return (id, id of its program) of every BPF link in the kernel."""
    lib, number, found = libbpf.library(), ctypes.c_uint32(0), set()
    while lib.bpf_link_get_next_id(number, ctypes.byref(number)) == 0:
        fd = lib.bpf_link_get_fd_by_id(number)
        if fd < 0:
            continue
        info, size = LinkInfo(), ctypes.c_uint32(ctypes.sizeof(LinkInfo))
        lib.bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size))
        os.close(fd)
        found.add((info.id, info.prog_id))
    return found


def attached():
    """Return the names of all programs that are attached by a link."""
    names = dict(programs())
    return [names.get(program) for _, program in links()]


def status_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_the_collecting_process_has_no_capability_and_is_not_root(reader):
    status = status_of(reader.process.pid)

    assert {status[name].strip() for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
    assert "0" not in status["Uid"].split()
    assert status["NoNewPrivs"].strip() == "1"


def test_no_compiler_is_mapped_into_the_collecting_process(reader):
    maps = Path(f"/proc/{reader.process.pid}/maps").read_text()

    assert "libbpf" in maps
    assert "LLVM" not in maps
    assert "libbcc" not in maps


def test_programs_run_at_messages_only_while_somebody_wants_what_they_measure(start_reader):
    before = attached()
    reader = start_reader()
    at_rest = Counter(attached()) - Counter(before)
    reader.ask("follow")
    following = Counter(attached()) - Counter(before)
    reader.ask("unfollow")
    again = Counter(attached()) - Counter(before)

    assert at_rest == Counter(OURS)
    assert following == Counter(OURS | ON_DEMAND)
    assert again == at_rest


def test_nothing_is_left_when_the_process_is_killed(start_reader):
    programs_before, links_before = programs(), links()
    reader = start_reader()
    assert programs() - programs_before
    assert links() - links_before
    os.kill(reader.process.pid, signal.SIGKILL)
    reader.process.wait(10)
    end = time.monotonic() + 10
    while (programs() - programs_before or links() - links_before) and time.monotonic() < end:
        time.sleep(0.05)  # the kernel frees programs after a grace period

    assert programs() - programs_before == set()
    assert links() - links_before == set()
