"""Entries of a POSIX access list: users and groups with rights that the mode of a file does not show; acl(5).

With an access list, the bits of the group in the mode are its mask: the most that a named user or group can have.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

READ, WRITE = 4, 2

_ATTRIBUTE = "system.posix_acl_access"
_HEADER_BYTES = 4
_ENTRY = struct.Struct("<HHI")  # tag, rights, id: include/uapi/linux/posix_acl_xattr.h
_USER, _GROUP, _MASK = 0x02, 0x08, 0x10


@dataclass(frozen=True, slots=True)
class AccessEntry:
    """A user or group with an entry of its own, by its id."""

    number: int
    is_group: bool


def named_entries(path: str | int, right: int) -> list[AccessEntry]:
    """Return the users and groups to whom the access list of the file at `path`, or open as such, gives `right`."""
    try:
        packed = os.getxattr(path, _ATTRIBUTE)
    except OSError:  # without an access list, or on a file system without any
        return []
    entries = list(_entries(packed))
    mask = next((rights for tag, rights, _ in entries if tag == _MASK), READ | WRITE)
    return [
        AccessEntry(number, tag == _GROUP)
        for tag, rights, number in entries
        if tag in (_USER, _GROUP) and rights & mask & right
    ]


def _entries(packed: bytes) -> Iterator[tuple[int, int, int]]:
    body = packed[_HEADER_BYTES:]
    yield from _ENTRY.iter_unpack(body[: len(body) - len(body) % _ENTRY.size])
