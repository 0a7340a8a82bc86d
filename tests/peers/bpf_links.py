"""The BPF links of a process, as the kernel shows them to a privileged reader."""

from __future__ import annotations

import os
from pathlib import Path

from watchdog.kernel import libbpf
from watchdog.kernel.libbpf import ProgramInfo


def links_of(pid: int) -> dict[int, int]:
    """Return the BPF links of a process, as {link id: program id}."""
    links = {}
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        fields = dict(line.split(":\t", 1) for line in file.read_text().splitlines() if ":\t" in line)
        if "link_id" in fields:
            links[int(fields["link_id"])] = int(fields["prog_id"])
    return links


def program_of(program_id: int) -> ProgramInfo:
    """Return the kernel's information about the program with an id.

    Raises:
        OSError: no such program.
    """
    fd = libbpf.check_result(libbpf.library().bpf_prog_get_fd_by_id(program_id), "opening a program")
    try:
        return libbpf.program_info(fd)
    finally:
        os.close(fd)
