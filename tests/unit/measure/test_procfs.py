"""What /proc says of a process: a real one, and those that a file stands for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from watchdog.clock import SECOND_NS
from watchdog.measure.procfs import MAX_PARENTS, Process, read_process

TICKS = os.sysconf("SC_CLK_TCK")


def start_ns(pid):
    """Return when a process began, as the kernel's rows have it: somewhere within its tick."""
    ticks = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    return ticks * SECOND_NS // TICKS + 1_234


@pytest.fixture
def child():
    process = subprocess.Popen([sys.executable, "-c", "input()", "a b", ""], stdin=subprocess.PIPE)
    while b"input" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():  # until it is no copy of ours any more
        time.sleep(0.001)
    yield process
    process.communicate()


def test_a_process_is_known_by_name_program_arguments_and_parents(child):
    found = read_process(child.pid, start_ns(child.pid))

    assert found.comm == Path(f"/proc/{child.pid}/comm").read_text().strip()
    assert found.exe == str(Path(sys.executable).resolve())
    assert found.arguments[:4] == (sys.executable, "-c", "input()", "a b")
    assert found.parents[0] == (os.getpid(), Path("/proc/self/comm").read_text().strip())
    assert len(found.parents) <= MAX_PARENTS


def test_one_that_is_gone_is_not_known(child):
    began_ns = start_ns(child.pid)
    child.communicate()
    assert read_process(child.pid, began_ns) is None
    assert read_process(child.pid) is None


def test_another_that_has_its_pid_now_is_not_taken_for_it(child):
    assert read_process(child.pid, start_ns(child.pid) - SECOND_NS) is None


def write(proc, pid, name=b"name", parent=0, command=b""):
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "stat").write_bytes(b"%d (%b) S %d " % (pid, name, parent) + b"0 " * 17 + b"100 0\n")
    (folder / "cmdline").write_bytes(command)


def test_names_may_hold_anything(tmp_path):
    write(tmp_path, 7, b") S 1 (\xff\n", command=b"\xff\x1b\0b\0")
    name = ") S 1 (\udcff\n"
    assert read_process(7, None, tmp_path) == Process(name, None, ("\udcff\x1b", "b"), ())


def test_parents_are_bounded_and_end_where_one_is_not_to_be_seen(tmp_path):
    for pid in range(2, 20):
        write(tmp_path, pid, parent=pid - 1)
    assert [pid for pid, _ in read_process(19, None, tmp_path).parents] == [18, 17, 16, 15, 14]
    assert [pid for pid, _ in read_process(3, None, tmp_path).parents] == [2]


def test_a_kernel_thread_has_no_arguments_and_long_ones_are_cut(tmp_path):
    write(tmp_path, 7)
    write(tmp_path, 8, command=b"x" * 100_000)
    assert read_process(7, None, tmp_path).arguments == ()
    assert len(read_process(8, None, tmp_path).arguments[0]) == 1_024
