"""What of BPF a process holds, as the kernel tells anybody with the privilege to ask."""

from __future__ import annotations

import os
from pathlib import Path

from watchdog.kernel import libbpf
from watchdog.kernel.libbpf import ProgramInfo


def links_of(pid: int) -> dict[int, int]:
    """Return the ids of the links that a process holds, and of each one's program."""
    found = {}
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        facts = dict(line.split(":\t", 1) for line in file.read_text().splitlines() if ":\t" in line)
        if "link_id" in facts:
            found[int(facts["link_id"])] = int(facts["prog_id"])
    return found


def program_of(number: int) -> ProgramInfo:
    """Return what the kernel says of the program of an id.

    Raises:
        OSError: there is none.
    """
    fd = libbpf.check_result(libbpf.library().bpf_prog_get_fd_by_id(number), "opening a program")
    try:
        return libbpf.program_info(fd)
    finally:
        os.close(fd)
