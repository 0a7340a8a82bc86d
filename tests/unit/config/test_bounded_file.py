"""Files of every kind are read or refused, without waiting and without filling the memory."""

import os
import socket
import time

import pytest

from watchdog.config import bounded_file
from watchdog.config.bounded_file import UnusableFile, read_regular_file

MAX_BYTES = 100_000


def link(path, target):
    path.symlink_to(target)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def sparse(path, size):
    with path.open("wb") as file:
        file.truncate(size)


KINDS = {
    "a link to its own memory": (lambda path: link(path, "/proc/self/mem"), "Input/output error"),
    "a link to the memory map of the kernel": (lambda path: link(path, "/proc/self/pagemap"), None),
    "an endless device": (lambda path: link(path, "/dev/zero"), "is not a regular file"),
    "a terminal": (lambda path: link(path, "/dev/tty"), None),
    "a FIFO without a writer": (os.mkfifo, "is not a regular file"),
    "a folder": (lambda path: path.mkdir(), "Is a directory"),
    "a socket": (make_socket, "No such device or address"),
    "a link to itself": (lambda path: link(path, path), "Too many levels of symbolic links"),
    "a terabyte of nothing": (lambda path: sparse(path, 1 << 40), "is over 100000 bytes"),
    "one byte too many": (lambda path: sparse(path, MAX_BYTES + 1), "is over 100000 bytes"),
    "a file that only takes": (lambda path: link(path, "/proc/self/clear_refs"), None),
    "a file of a kernel thread": (lambda path: link(path, "/proc/2/mem"), None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_cannot_be_read_is_refused_at_once(tmp_path, kind):
    make, message = KINDS[kind]
    path = tmp_path / "file"
    make(path)
    began = time.monotonic()
    with pytest.raises((OSError, UnusableFile), match=message):
        read_regular_file(str(path), MAX_BYTES)
    assert time.monotonic() - began < 1


def test_a_file_of_the_greatest_size_is_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 390 + b"x" * 160)
    content, status = read_regular_file(str(path), MAX_BYTES)

    assert (len(content), content) == (MAX_BYTES, path.read_bytes())
    assert status.st_size == MAX_BYTES


def test_a_file_of_the_kernel_without_a_size_is_read():
    assert read_regular_file("/proc/self/status", MAX_BYTES)[0].startswith(b"Name:\t")


def test_a_file_that_is_written_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("half of the rules\n")
    read = os.read

    def read_beside_a_writer(descriptor, size):
        with path.open("a") as file:
            file.write("the other half\n")
        monkeypatch.setattr(os, "read", read)
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", read_beside_a_writer)
    with pytest.raises(UnusableFile, match="was written while it was read"):
        read_regular_file(str(path), MAX_BYTES)


def test_a_file_that_gives_a_byte_at_a_time_is_given_up_after_a_second(tmp_path, monkeypatch):
    path = tmp_path / "file"
    sparse(path, 50_000)
    read = os.read

    def drip(descriptor, _size):
        time.sleep(0.05)
        return read(descriptor, 1)

    monkeypatch.setattr(bounded_file.os, "read", drip)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        read_regular_file(str(path), MAX_BYTES)
    assert time.monotonic() - began < 5
