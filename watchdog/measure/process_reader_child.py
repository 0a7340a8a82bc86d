"""The child process of `process_reader.py`: reads files of processes that a process can make wait.

It imports nothing but `os`, so that it starts fast and stays small. It ends when its standard input does.
"""

from __future__ import annotations

import os

MAX_BYTES = 1_024  # more than any receiver shows: masking of secrets makes the command line shorter


def main() -> None:
    """Answer each request, a line "NUMBER PID", by a line "NUMBER COMMAND EXE", both in hexadecimal, "-" if unknown.

    The first line has the number 0 alone: it is ready.
    """
    os.closerange(3, 65_536)  # descriptors that the daemon inherited
    os.write(1, b"0\n")
    unread = b""
    while chunk := os.read(0, 4_096):
        *requests, unread = (unread + chunk).split(b"\n")
        for request in requests:
            number, pid = request.decode().split()
            os.write(1, f"{number} {_command_line(pid)} {_program(pid)}\n".encode())


def _command_line(pid: str) -> str:
    # The kernel takes the mmap_lock of the process (access_remote_vm), and reads its memory.
    try:
        descriptor = os.open(f"/proc/{pid}/cmdline", os.O_RDONLY)
    except OSError:
        return "-"
    try:
        return os.read(descriptor, MAX_BYTES).hex() or "-"
    except OSError:
        return "-"
    finally:
        os.close(descriptor)


def _program(pid: str) -> str:
    try:
        return os.fsencode(os.readlink(f"/proc/{pid}/exe")).hex()
    except OSError:
        return "-"


if __name__ == "__main__":
    main()
