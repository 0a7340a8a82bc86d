"""The loader as a child process: its failures reach the caller with their remedy, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from watchdog.config.map_sizes import DEFAULT_MAP_SIZES
from watchdog.errors import HandoverError, KernelUnfit, TemporaryFailure
from watchdog.kernel import handover

CHECKOUT = Path(__file__).parents[2]
PATIENCE_SECONDS = int(os.environ.get("WATCHDOG_PATIENCE_SECONDS", "60"))
PLACES = ["/run", "/dev/shm", "/tmp", "/var/tmp"]


def test_a_failed_load_keeps_its_remedy(monkeypatch):
    def fail(_channel, _report_step):
        raise KernelUnfit("no BTF", remedy="boot another kernel")

    monkeypatch.setattr(handover, "receive", fail)
    with pytest.raises(KernelUnfit) as caught:
        handover.run_loader(DEFAULT_MAP_SIZES)

    assert caught.value.text.startswith("no BTF")
    assert caught.value.remedy == "boot another kernel"


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """Return a function that replaces the loader by a shell script; systemd has given it a folder."""

    def replace(script):
        file = tmp_path / "python"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(file))

    (tmp_path / "runtime").mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path}/runtime")
    yield replace
    assert list((tmp_path / "runtime").iterdir()) == []


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo no memory >&2; kill -KILL $$", "the loader ended without a message: killed by SIGKILL"),
        ("echo no memory >&2; kill -ABRT $$", "the loader ended without a message: killed by SIGABRT\nno memory"),
        ("echo defect >&2; exit 3", "the loader ended without a message: exit code 3\ndefect"),
        ("exit 0", "the loader ended without a message"),
    ],
)
def test_a_loader_that_ends_early_is_described_and_tried_again_later(interpreter, script, text):
    interpreter(script)
    with pytest.raises(HandoverError) as caught:
        handover.run_loader(DEFAULT_MAP_SIZES)

    assert caught.value.text == text
    assert caught.value.exit_code == os.EX_TEMPFAIL
    assert ("free 300 MB" in caught.value.remedy) == ("KILL" in script)
    # The remedy follows its message; the output of the compiler is below both.
    assert str(caught.value).endswith("no memory") == ("no memory" in script)


def test_a_loader_that_cannot_be_started_is_tried_again_later(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(TemporaryFailure, match="cannot run the loader of the BPF programs: No such file or directory"):
        handover.run_loader(DEFAULT_MAP_SIZES)


def sample(*, full):
    """Run `sample` where the places of `full` are full file systems of their own; return exit code and errors."""
    mounts = " && ".join(f"mount -t tmpfs -o size=64k,nr_inodes=40 none {place}" for place in full)
    # The checkout can be in one of these places.
    keep = f"mount --bind {CHECKOUT} /mnt && {mounts} && mkdir -p {CHECKOUT} && mount --move /mnt {CHECKOUT} || exit 99"
    fill = "; ".join(f"cat /dev/zero >{place}/full" for place in full)
    command = f"{sys.executable} -m watchdog sample --for 100ms --json"
    script = f"{keep}; ({fill}) 2>/dev/null; exec {command}"
    unshared = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(unshared, capture_output=True, text=True, check=False, cwd="/", env=environment)
    return done.returncode, done.stderr


def test_places_that_every_user_can_fill_are_not_needed():
    code, errors = sample(full=PLACES[1:])

    assert (code, "Traceback" in errors) == (0, False), errors


def test_without_room_anywhere_the_start_is_tried_again_later():
    code, errors = sample(full=PLACES)

    assert (code, "Traceback" in errors) == (os.EX_TEMPFAIL, False), errors
    assert "bpf-watchdog: no room for the sources of the BPF programs: /run/bpf-watchdog-" in errors
    assert errors.endswith("No space left on device: free 1 MB in one of these places\n")


@pytest.fixture
def open_folder():
    """Return a folder that every account can enter; pytest's own are root's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_the_next_start_removes_the_sources_of_a_killed_one(open_folder):
    environment = {"PATH": os.environ["PATH"], "RUNTIME_DIRECTORY": str(open_folder)}
    command = [sys.executable, "-m", "watchdog", "sample", "--for", "100ms"]
    options = {"cwd": "/", "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, start_new_session=True, **options) as killed:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not list(open_folder.rglob("layout_assertions.h")) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(killed.pid, signal.SIGKILL)  # its loader too
    abandoned = list(open_folder.iterdir())
    done = subprocess.run(command, check=False, **options)

    assert len(abandoned) == 1
    assert (done.returncode, list(open_folder.iterdir())) == (0, [])


@pytest.mark.parametrize(
    ("number", "parts"),
    [("12", "CONNECTION_PROBES"), ("11", "MESSAGE_PROBES")],
    ids=["ENOMEM of a required program", "EAGAIN of an optional one"],
)
def test_a_load_without_memory_is_no_fault_of_the_kernel(number, parts):
    # Each load of one of these programs fails with this errno, like the kernel's own.
    script = f"""
import os, socket, sys
from pathlib import Path
from watchdog.config.map_sizes import DEFAULT_MAP_SIZES
from watchdog.kernel import handover, libbpf, loader, programs
load, refused = libbpf.load_program, [probe.target for probe in programs.{parts}]
def fail(name, target, *more):
    if target in refused:
        libbpf.check_result(-{number}, f"cannot load the program on {{target}}")
    return load(name, target, *more)
libbpf.load_program = fail
here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
code = loader.main(there.detach(), [Path(sys.argv[1])], DEFAULT_MAP_SIZES)
try:
    handover.receive(here)
except Exception as error:
    print(code, type(error).__name__, error)
"""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are root's alone
        command = [sys.executable, "-c", script, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    reason = os.strerror(int(number))

    assert done.stdout.startswith(f"{os.EX_TEMPFAIL} TemporaryFailure cannot load the program on "), done.stderr
    assert done.stdout.strip().endswith(f": {reason}: stop what uses them up; another start can succeed")
