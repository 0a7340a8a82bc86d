"""Command lines of real processes, read by a real child; children that wait, end, or are slow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from leftovers import descriptors_left, open_descriptors

from watchdog.clock import SECOND_NS
from watchdog.measure.process_reader import MAX_KILLS_PER_MINUTE, ProcessReader
from watchdog.measure.process_reader_child import MAX_BYTES
from watchdog.measure.procfs import UnreadReason

PATIENCE = 60.0
TICKS = os.sysconf("SC_CLK_TCK")
PROGRAM = "import os, time; os.write(1, b'0\\n'); time.sleep(60)"
NEVER_ANSWERS = (os.path.realpath(sys.executable), "-I", "-S", "-c", PROGRAM)
NEVER_STARTS = (*NEVER_ANSWERS[:-1], "import time; time.sleep(60)")


def start_ns(pid):
    """Return the start of a process as in the kernel's records: a time within its tick."""
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19]) * SECOND_NS // TICKS + 1_234


@pytest.fixture
def processes():
    """Return a function that starts processes, which end with the test."""
    started = []

    def start(*arguments, **options):
        process = subprocess.Popen([sys.executable, "-c", "input()", *arguments], stdin=subprocess.PIPE, **options)
        started.append(process)
        while b"input" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():  # wait for the exec
            time.sleep(0.001)
        return process

    yield start
    for process in started:
        process.communicate()


@pytest.fixture
def reader():
    reader = ProcessReader(read_seconds=PATIENCE)
    yield reader
    reader.close()


def children():
    """Return the live children of this process."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def patient(reader, pid, started_ns=None):
    """Return the answer, asking again while a loaded host makes the child slow."""
    end = time.monotonic() + PATIENCE
    while (found := reader.read(pid, started_ns, 5.0)) is UnreadReason.LATE and time.monotonic() < end:
        pass
    return found


def test_a_live_process_is_known_by_its_arguments_and_program(processes, reader):
    process = processes("a b", "")

    found = patient(reader, process.pid, start_ns(process.pid))

    assert found.arguments[:4] == (sys.executable, "-c", "input()", "a b")
    assert found.exe == str(Path(sys.executable).resolve())


def test_arguments_can_have_any_bytes_and_long_ones_are_truncated(processes, reader):
    process = processes(b"\xff\x1b")
    assert patient(reader, process.pid).arguments[3] == "\udcff\x1b"
    process = processes("x" * 100_000)
    arguments = patient(reader, process.pid).arguments
    assert len("\0".join(arguments)) == MAX_BYTES


def test_a_process_without_memory_has_no_arguments(reader):
    zombie = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert patient(reader, zombie.pid).arguments == ()
    zombie.wait()


def test_an_ended_process_and_a_reused_pid_are_unknown(processes, reader):
    process = processes()
    started_ns = start_ns(process.pid)
    assert patient(reader, process.pid, started_ns - SECOND_NS) is None
    process.communicate()
    assert patient(reader, process.pid, started_ns) is None


def test_one_child_reads_all_and_ends_with_the_reader(processes, reader):
    before = children()
    process = processes()
    for _ in range(3):
        patient(reader, process.pid)
    [child] = children() - before - {process.pid}
    assert reader.is_running
    reader.close()
    assert not reader.is_running
    assert child not in children()


def test_a_child_that_ends_is_replaced(processes, reader):
    process = processes()
    patient(reader, process.pid)
    [child] = children() - {process.pid}
    os.kill(child, signal.SIGKILL)
    assert patient(reader, process.pid).arguments[2] == "input()"


def test_a_child_that_waits_for_the_process_is_killed_and_that_process_not_asked_again():
    reader = ProcessReader(NEVER_ANSWERS)
    before = children()
    assert patient(reader, 4711) is UnreadReason.HELD
    assert (reader.kill_count, reader.is_running, children()) == (1, False, before)
    assert reader.read(4711, None, 5.0) is UnreadReason.HELD
    assert reader.kill_count == 1
    assert patient(reader, 4712) is UnreadReason.HELD
    assert reader.kill_count == 2


def test_after_many_killed_children_reading_pauses():
    reader = ProcessReader(NEVER_ANSWERS)
    answers = [patient(reader, pid) for pid in range(1, MAX_KILLS_PER_MINUTE + 3)]
    assert answers == [UnreadReason.HELD] * MAX_KILLS_PER_MINUTE + [UnreadReason.PAUSED] * 2
    assert reader.kill_count == MAX_KILLS_PER_MINUTE


def test_a_child_that_starts_slowly_is_late_and_no_process_is_blamed():
    reader = ProcessReader(NEVER_STARTS)
    began = time.monotonic()
    assert reader.read(4711, None, 0.2) is UnreadReason.LATE
    assert 0.2 <= time.monotonic() - began < PATIENCE
    assert (reader.kill_count, reader.is_running) == (0, True)
    reader.close()


def test_a_child_without_cpu_time_is_late_and_its_late_answer_is_not_taken_for_another(processes):
    # It works for half a second before each answer.
    slow = (
        "import os, time\nos.write(1, b'0\\n')\nwhile chunk := os.read(0, 99):\n"
        " for line in chunk.splitlines():\n"
        "  end = time.monotonic() + 0.5\n  while time.monotonic() < end: pass\n"
        "  number, pid = line.decode().split()\n"
        "  os.write(1, f'{number} {pid.encode().hex()} -\\n'.encode())\n"
    )
    reader = ProcessReader((*NEVER_ANSWERS[:-1], slow))
    process = processes()
    assert reader.read(process.pid, None, PATIENCE) is UnreadReason.LATE
    other = processes()
    found = reader.read(other.pid, None, PATIENCE)
    assert found is UnreadReason.LATE or found.arguments == (str(other.pid),)
    assert reader.kill_count == 0
    reader.close()


@pytest.mark.parametrize("left", [0, 2, 3])
def test_a_child_that_cannot_be_started_leaves_no_descriptor_behind(reader, left):
    before = open_descriptors()
    with descriptors_left(left):
        assert reader.read(os.getpid(), None, PATIENCE) is UnreadReason.LATE
    assert open_descriptors() == before
