"""The executable of a process, for people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProgramFile:
    """One executable: `path` in the mount namespace of its process, `device` as "major:minor", and `notes` on it."""

    path: str
    device: str
    inode: int
    notes: tuple[str, ...] = ()
