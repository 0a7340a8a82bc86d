"""Giving up privileges: the loader keeps two capabilities, the daemon none.

Source: capabilities(7), capset(2), prctl(2).
"""

from __future__ import annotations

import ctypes as ct
import os
import pwd
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from watchdog.errors import NotPermitted

CAP_PERFMON, CAP_BPF = 38, 39  # include/uapi/linux/capability.h, since Linux 5.8
_NAMES = {CAP_PERFMON: "CAP_PERFMON", CAP_BPF: "CAP_BPF"}

_PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 8, 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
ACCOUNT, FALLBACK_ACCOUNT = "bpf-watchdog", "nobody"


def account() -> pwd.struct_passwd:
    """Return the account that root gives way to: the service's own, `nobody` where it does not exist."""
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        return pwd.getpwnam(FALLBACK_ACCOUNT)


def name(capability: int) -> str:
    """Return a capability's name, as far as we deal with it, else its number."""
    return _NAMES.get(capability, f"capability {capability}")


def effective() -> set[int]:
    """Return the numbers of this process's effective capabilities."""
    return _status("CapEff")


def _status(field: str) -> set[int]:
    for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(f"{field}:"):
            bits = int(line.split()[1], 16)
            return {number for number in range(64) if bits >> number & 1}
    return set()


def _set(effective_set: set[int], permitted: set[int]) -> None:
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    masks = [sum(1 << number for number in numbers) for numbers in (effective_set, permitted, set[int]())]
    # Lower halves of effective, permitted, inheritable, then the upper ones.
    data = struct.pack("<6I", *(mask & 0xFFFFFFFF for mask in masks), *(mask >> 32 for mask in masks))
    if ct.CDLL(None, use_errno=True).capset(header, data) != 0:
        raise NotPermitted(f"cannot change capabilities: {os.strerror(ct.get_errno())}")


@contextmanager
def suspended() -> Iterator[None]:
    """Run a block without any effective capability, to see what works without."""
    before, permitted = effective(), _status("CapPrm")
    _set(set(), permitted)
    try:
        yield
    finally:
        _set(before, permitted)


def require(capabilities: Iterable[int]) -> None:
    """Make sure that this process has the capabilities.

    Raises:
        NotPermitted: naming those it has not.
    """
    missing = sorted(name(number) for number in set(capabilities) - effective())
    if missing:
        raise NotPermitted(
            f"{' and '.join(missing)} missing: run as root, or as a systemd service with"
            " AmbientCapabilities=CAP_BPF CAP_PERFMON (see packaging/systemd/)"
        )


def keep_only(capabilities: Iterable[int]) -> None:
    """Become the service's account if root, and keep exactly these capabilities; never to gain any again.

    Every thread started later inherits this; call it before there are any.

    Raises:
        NotPermitted: the kernel refuses.
    """
    kept = set(capabilities)
    libc = ct.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        target = account()
        if kept:
            libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setresgid(target.pw_gid, target.pw_gid, target.pw_gid)
        os.setresuid(target.pw_uid, target.pw_uid, target.pw_uid)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _set(kept, kept)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
