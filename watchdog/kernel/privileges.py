"""Giving up privileges: the loader keeps two capabilities, the daemon none.

Root gives way to an account of the service's own, and to no other: whatever ran as a shared one, such as nobody, could
meddle with what runs, and what is written, under its name.

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

from watchdog.config.permissions import ACCOUNT
from watchdog.errors import NotPermitted
from watchdog.kernel import import_paths

CAP_PERFMON, CAP_BPF = 38, 39  # include/uapi/linux/capability.h, since Linux 5.8
LOADER_CAPABILITIES = frozenset({CAP_PERFMON, CAP_BPF})
"""What it takes to load the programs."""
_NAMES = {CAP_PERFMON: "CAP_PERFMON", CAP_BPF: "CAP_BPF"}

_PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 8, 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_SELF = Path("/proc/self/status")
# As packaging/ensure-account makes it.
CREATE_ACCOUNT_COMMAND = f"useradd --system --user-group --no-create-home --shell /usr/sbin/nologin {ACCOUNT}"


def service_account() -> pwd.struct_passwd:
    """Return the account that root gives way to.

    Raises:
        NotPermitted: there is none; names the remedy.
    """
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        missing = f"no account {ACCOUNT}, which root gives way to"
        raise NotPermitted(missing, remedy=CREATE_ACCOUNT_COMMAND) from None


def current_account_name() -> str:
    """Return the name of the account that this process runs as, or its number where it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def capability_name(capability: int) -> str:
    """Return a capability's name, as far as we deal with it, else its number."""
    return _NAMES.get(capability, f"capability {capability}")


def effective_capabilities() -> set[int]:
    """Return the numbers of this process's effective capabilities."""
    return _numbers(_status(_SELF)["CapEff"])


def _status(file: Path) -> dict[str, str]:
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _numbers(mask: str) -> set[int]:
    bits = int(mask, 16)
    return {number for number in range(64) if bits >> number & 1}


def _set_capabilities(effective_set: set[int], permitted: set[int]) -> None:
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    masks = [sum(1 << number for number in numbers) for numbers in (effective_set, permitted, set[int]())]
    # Lower halves of effective, permitted, inheritable, then the upper ones.
    data = struct.pack("<6I", *(mask & 0xFFFFFFFF for mask in masks), *(mask >> 32 for mask in masks))
    if ct.CDLL(None, use_errno=True).capset(header, data) != 0:
        raise NotPermitted(f"cannot change capabilities: {os.strerror(ct.get_errno())}")


@contextmanager
def without_capabilities() -> Iterator[None]:
    """Run a block without any effective capability, to see what works without."""
    before, permitted = effective_capabilities(), _numbers(_status(_SELF)["CapPrm"])
    _set_capabilities(set(), permitted)
    try:
        yield
    finally:
        _set_capabilities(before, permitted)


def require_capabilities(capabilities: Iterable[int]) -> None:
    """Make sure that this process has the capabilities.

    Raises:
        NotPermitted: naming those it has not.
    """
    missing = sorted(capability_name(number) for number in set(capabilities) - effective_capabilities())
    if missing:
        raise NotPermitted(
            f"{' and '.join(missing)} missing",
            remedy="run as root, or as a systemd service with AmbientCapabilities=CAP_BPF CAP_PERFMON"
            " (see packaging/systemd/)",
        )


def keep_only_capabilities(capabilities: Iterable[int]) -> None:
    """Become the service's account if root, and keep exactly these capabilities; never to gain any again.

    Every thread started later inherits this; call it before there are any, for the kernel gives each its own.

    Raises:
        NotPermitted: the kernel refuses, there is no account, a thread keeps more, or the account could not import.
    """
    kept = set(capabilities)
    if os.geteuid() == 0:
        target = service_account()
        search_paths = import_paths.open_search_paths()
        if kept:
            _prctl(_PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setresgid(target.pw_gid, target.pw_gid, target.pw_gid)
        os.setresuid(target.pw_uid, target.pw_uid, target.pw_uid)
        import_paths.keep_search_paths_reachable(search_paths)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _set_capabilities(kept, kept)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _refuse_privileged_threads(kept)


def _prctl(option: int, value: int) -> None:
    if ct.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise NotPermitted(f"cannot give up privileges: prctl({option}): {os.strerror(ct.get_errno())}")


def _refuse_privileged_threads(kept: set[int]) -> None:
    for file in Path("/proc/self/task").glob("*/status"):
        try:
            status = _status(file)
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        if not _numbers(status["CapPrm"]) <= kept or status["NoNewPrivs"] != "1":
            raise NotPermitted(
                f"a thread that was there before ({status['Name']}, {file.parent.name}) would keep its privileges",
                remedy="set OPENBLAS_NUM_THREADS, OMP_NUM_THREADS and MKL_NUM_THREADS to 1",
            )
