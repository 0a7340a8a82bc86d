"""Collecting needs no privilege after its start, adds nothing to the data path, and leaves nothing behind."""

import contextlib
import ctypes
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from bpf_links import links_of, program_of

from watchdog.kernel import libbpf
from watchdog.kernel.fexit_support import connect_errors_warning
from watchdog.kernel.programs import CONNECT_ERROR_PROBES, MESSAGE_PROBE_SETS

OURS = [
    b"inet_sock_set_s",
    b"fallback_inet_s",
    b"tcp_receive_res",
    b"tcp_send_reset",
    b"cgroup_mkdir",
    b"task_file",
    b"bpf_sk_storage_",
]
if not connect_errors_warning():
    OURS += [probe.name[:15].encode() for probe in CONNECT_ERROR_PROBES]


def programs():
    """Return (id, name) of every BPF program in the kernel."""
    lib, number, found = libbpf.library(), ctypes.c_uint32(0), set()
    while lib.bpf_prog_get_next_id(number, ctypes.byref(number)) == 0:
        with contextlib.suppress(OSError):  # unloaded in the meantime
            found.add((number.value, program_of(number.value).name))
    return found


def held(pid):
    """Return the ids of a process's links, and the number of links per program."""
    links = links_of(pid)
    return set(links), Counter(links.values())


def attached(pid):
    """Return the names of the programs that a process has attached by a link."""
    names = dict(programs())
    return Counter(names[program] for program in held(pid)[1].elements())


def links():
    """Return the ids of every BPF link in the kernel."""
    lib, number, found = libbpf.library(), ctypes.c_uint32(0), set()
    while lib.bpf_link_get_next_id(number, ctypes.byref(number)) == 0:
        found.add(number.value)
    return found


def status_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


@pytest.mark.everywhere
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


@pytest.mark.everywhere
def test_message_probes_are_attached_only_while_they_are_enabled(reader):
    pid = reader.process.pid
    at_rest = attached(pid)
    reader.request("enable")
    probing = attached(pid)
    reader.request("disable")
    again = attached(pid)

    assert at_rest == Counter(OURS)
    # Tracepoints, or the functions themselves on kernels without these tracepoints (before Linux 6.3).
    assert probing - Counter(OURS) in [
        Counter(probe.name[:15].encode() for probe in probes) for probes in MESSAGE_PROBE_SETS if probes
    ]
    assert again == at_rest


@pytest.mark.everywhere
def test_nothing_stays_in_the_kernel_when_the_process_is_killed(start_reader):
    reader = start_reader()
    ours, linked = held(reader.process.pid)
    assert len(ours) == len(OURS)
    os.kill(reader.process.pid, signal.SIGKILL)
    reader.process.wait(60)
    end = time.monotonic() + 60
    while (ours & links() or linked.keys() & dict(programs()).keys()) and time.monotonic() < end:
        time.sleep(0.05)  # the kernel frees programs after a grace period

    assert ours & links() == set()
    assert linked.keys() & dict(programs()).keys() == set()
