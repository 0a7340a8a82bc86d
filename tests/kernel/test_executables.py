"""The executable of a process, as the kernel knows it: its path, its file, and the users that can replace it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# For each line with a pid and an error of its start, prints the executable of the process: the daemon's collector reads
# it, for a process with a listener.
READER = """
import json, sys
from dataclasses import asdict
from watchdog.clock import SystemClock
from watchdog.kernel.startup import start_collector
collector = start_collector(SystemClock())
print(json.dumps(collector.task_iterator_problem), flush=True)
starts = {}
for line in sys.stdin:
    pid, error = json.loads(line)
    owners = collector.read(complete=True).live["owner"]
    starts.update(zip(owners["tgid"].tolist(), owners["start_ns"].tolist()))
    found = collector.find_executable(pid, starts[pid] + error)
    print(json.dumps(found and asdict(found) | {"owners": sorted(found.owners)}), flush=True)
collector.close()
"""
LISTENER = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(flush=True); sys.stdin.read()"
PYTHON = Path(sys.executable).resolve()
NOBODY = 65534


class Executables:
    """A reader of executables, and processes with a listener."""

    def __init__(self, reader, problem):
        self.reader, self.problem = reader, problem
        self.processes = []

    def run(self, program, **options):
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [str(program), "-c", LISTENER], stdin=pipe, stdout=pipe, text=True, cwd="/", **options
        )
        self.processes.append(process)
        process.stdout.readline()
        return process

    def read(self, process, start_error_ns=0):
        self.reader.stdin.write(json.dumps([process.pid, start_error_ns]) + "\n")
        self.reader.stdin.flush()
        return json.loads(self.reader.stdout.readline())

    def end(self):
        for process in self.processes:
            process.communicate()


@pytest.fixture(scope="module")
def executable_reader():
    """Return a process that reads executables, and the problem of its iterator over files, or ""."""
    pipe = subprocess.PIPE
    reader = subprocess.Popen([sys.executable, "-c", READER], stdin=pipe, stdout=pipe, text=True)
    yield reader, json.loads(reader.stdout.readline())
    reader.communicate()


@pytest.fixture
def executables(executable_reader):
    found = Executables(*executable_reader)
    yield found
    found.end()


@pytest.fixture
def folder(tmp_path_factory):
    """Return a folder of the user nobody, below folders of root."""
    folder = Path("/var/tmp") / f"watchdog-executables-{os.getpid()}"  # pytest's own folders are root's, mode 0700
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.everywhere
def test_path_and_file_are_the_kernels_however_the_process_calls_itself(executables):
    assert executables.problem == ""
    found = executables.read(executables.run(PYTHON))
    file = PYTHON.stat()
    assert (found["path"], found["inode"], found["is_deleted"]) == (str(PYTHON), file.st_ino, False)
    assert found["device"] == f"{os.major(file.st_dev)}:{os.minor(file.st_dev)}"
    assert (found["owners"], found["is_writable"], found["is_in_shared_folder"]) == ([], False, False)


@pytest.mark.everywhere
def test_a_copy_in_a_folder_of_a_user_is_that_file_also_when_it_is_deleted(executables, folder):
    program = folder / "sshd"
    shutil.copy2(PYTHON, program)
    process = executables.run(program, user=NOBODY, group=NOBODY, extra_groups=[])
    found = executables.read(process)
    assert (found["path"], found["owners"], found["is_deleted"]) == (str(program), [NOBODY], False)
    program.unlink()
    found = executables.read(process)
    assert (found["path"], found["is_deleted"]) == (str(program), True)


def test_a_file_in_a_folder_of_all_users_is_marked(executables, folder):
    os.chown(folder, 0, 0)
    folder.chmod(0o1777)
    (folder / "below").mkdir()
    program = folder / "below" / "job"
    shutil.copy2(PYTHON, program)
    program.chmod(0o757)
    found = executables.read(executables.run(program))
    assert (found["is_in_shared_folder"], found["is_writable"], found["owners"]) == (True, True, [])


def test_a_process_with_another_start_or_that_ended_has_no_executable(executables):
    process = executables.run(PYTHON)
    assert executables.read(process, start_error_ns=1) is None
    assert executables.read(process) is not None
    process.communicate()
    assert executables.read(process) is None
