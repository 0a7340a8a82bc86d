"""Facts of a process from /proc: a real process, and files of a fake /proc."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from watchdog.clock import SECOND_NS
from watchdog.measure.procfs import HIDDEN, MAX_PARENTS, Process, read_process

TICKS = os.sysconf("SC_CLK_TCK")


def start_ns(pid):
    """Return the start of a process as in the kernel's records: a time within its tick."""
    ticks = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    return ticks * SECOND_NS // TICKS + 1_234


@pytest.fixture
def child():
    process = subprocess.Popen([sys.executable, "-c", "input()", "a b", ""], stdin=subprocess.PIPE)
    while b"input" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():  # wait for the exec
        time.sleep(0.001)
    yield process
    process.communicate()


def test_a_process_is_known_by_name_and_parents(child):
    process = read_process(child.pid, start_ns(child.pid))

    assert process.comm == Path(f"/proc/{child.pid}/comm").read_text().strip()
    assert process.parents[0] == (os.getpid(), Path("/proc/self/comm").read_text().strip())
    assert len(process.parents) <= MAX_PARENTS


def test_an_ended_process_is_unknown(child):
    started_ns = start_ns(child.pid)
    child.communicate()
    assert read_process(child.pid, started_ns) is None
    assert read_process(child.pid) is None


def test_a_live_process_that_proc_does_not_show_is_hidden_and_not_ended(child, tmp_path):
    assert read_process(child.pid, start_ns(child.pid), tmp_path) == HIDDEN
    child.communicate()
    assert read_process(child.pid, None, tmp_path) is None


def test_a_process_with_a_reused_pid_is_unknown(child):
    assert read_process(child.pid, start_ns(child.pid) - SECOND_NS) is None


def write(proc, pid, name=b"name", parent=0):
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "stat").write_bytes(b"%d (%b) S %d " % (pid, name, parent) + b"0 " * 17 + b"100 0\n")


def test_names_can_contain_any_bytes(tmp_path):
    write(tmp_path, 7, b") S 1 (\xff\n")
    assert read_process(7, None, tmp_path) == Process(") S 1 (\udcff\n", ())


def test_parents_are_bounded_and_end_at_an_invisible_one(tmp_path):
    for pid in range(2, 20):
        write(tmp_path, pid, parent=pid - 1)
    assert [pid for pid, _ in read_process(19, None, tmp_path).parents] == [18, 17, 16, 15, 14]
    assert [pid for pid, _ in read_process(3, None, tmp_path).parents] == [2]
