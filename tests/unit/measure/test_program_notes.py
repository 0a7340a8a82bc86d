"""Notes on the executable of a process: who can replace it, and whether it is the host's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchdog.kernel.executables import Executable
from watchdog.measure.program_notes import describe_executable

USERS = {1000: "alice", 65534: "nobody"}


@pytest.fixture
def folder(tmp_path):
    """Return a folder with the program `sshd`, and the link `awk` to the program `mawk`."""
    (tmp_path / "sshd").touch()
    (tmp_path / "mawk").touch()
    (tmp_path / "awk").symlink_to("mawk")
    return tmp_path


def notes(path, folder, *, is_in_container=False, **facts):
    """Return the notes on the executable at `path`, with the inode of the file that the host has there."""
    inode = facts.pop("inode", Path(path).stat().st_ino if Path(path).exists() else 5)
    found = Executable(str(path), "8:1", inode, is_deleted=facts.pop("is_deleted", False), **facts)
    return describe_executable(found, USERS.get, is_in_container=is_in_container, folders=[str(folder)]).notes


def test_a_program_of_the_host_has_no_notes(folder):
    assert notes(folder / "sshd", folder) == notes(folder / "mawk", folder) == notes("/opt/x/none", folder) == ()


def test_another_file_with_the_name_of_a_program_of_the_host_is_noted(folder):
    assert notes("/var/tmp/x/sshd", folder) == (f"not the host's {folder}/sshd",)
    assert notes("/home/alice/awk", folder) == (f"not the host's {folder}/awk",)


def test_a_file_that_is_mounted_over_a_program_of_the_host_is_noted(folder):
    other = (folder / "sshd").stat().st_ino
    assert notes(folder / "mawk", folder, inode=other) == (f"not the host's {folder}/mawk",)
    assert notes(folder / "mawk", folder, inode=other, is_in_container=True) == ()
    assert notes(folder / "mawk", folder, inode=other, is_deleted=True) == ("deleted",)


def test_programs_of_a_container_are_not_compared_with_those_of_the_host(folder):
    assert notes("/opt/sshd", folder, is_in_container=True, is_deleted=True) == ("deleted",)


def test_files_that_others_than_root_can_change_are_noted(folder):
    assert notes("/x", folder, owners=frozenset((65534, 1000))) == ("user alice and nobody can replace it",)
    assert notes("/dev/shm/x", folder, is_in_shared_folder=True) == ("below a folder that every user can write to",)
    assert notes("/x", folder, is_writable=True, is_deleted=True) == ("deleted", "every user can write to it")


def test_a_path_that_the_kernel_could_not_give_is_not_compared(folder):
    assert notes("", folder) == ()


@pytest.mark.parametrize("name", ["ld-linux-x86-64.so.2", "ld-musl-aarch64.so.1", "ld-2.31.so", "ld.so", "ld64.so.2"])
def test_the_dynamic_linker_hides_a_program(folder, name):
    assert notes(f"/usr/lib/{name}", folder) == ("runs a program that only its command line names",)
    assert notes(f"/usr/lib/{name}x", folder) == notes("/usr/bin/ld", folder) == ()
