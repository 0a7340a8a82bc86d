"""Gives up privileges: the loader keeps two capabilities, the daemon none; and keeps memory out of core files.

Root changes to the service account, and to no other: any process of a shared account, such as nobody, could interfere
with the daemon's processes and files.

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
"""The capabilities that the loader needs."""
_NAMES = {CAP_PERFMON: "CAP_PERFMON", CAP_BPF: "CAP_BPF"}

_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 4, 8, 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_SELF = Path("/proc/self/status")
_HOST_USER_NAMESPACE = "user:[4026531837]"  # PROC_USER_INIT_INO, include/linux/proc_ns.h
# Same as in packaging/ensure-account.
CREATE_ACCOUNT_COMMAND = (
    f"useradd --system --uid 61087 --user-group --no-create-home --shell /usr/sbin/nologin {ACCOUNT}"
)


def service_account() -> pwd.struct_passwd:
    """Return the account of the service, to which root changes.

    Raises:
        NotPermitted: it does not exist; with the remedy.
    """
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        missing = f"no account {ACCOUNT}, to which root must change"
        raise NotPermitted(missing, remedy=CREATE_ACCOUNT_COMMAND) from None


def require_daemon_account() -> None:
    """Check that this process is root's, which can become the daemon's account, or that of the account itself.

    Without the account, a service may run the daemon as any other one.

    Raises:
        NotPermitted: it is neither; or it is root's, and the account does not exist.
    """
    try:
        account = service_account().pw_uid
    except NotPermitted:
        if os.geteuid() == 0:
            raise
        return
    if os.geteuid() not in (0, account):
        text = f"the account {current_account_name()} cannot judge as the daemon's account {ACCOUNT}"
        raise NotPermitted(text, remedy="run it as root")


def current_account_name() -> str:
    """Return the name of this process's account, or its number if it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def capability_name(capability: int) -> str:
    """Return the name of a capability, if it is one of the loader's, else its number."""
    return _NAMES.get(capability, f"capability {capability}")


def effective_capabilities() -> set[int]:
    """Return the numbers of this process's effective capabilities."""
    return _numbers(_status(_SELF)["CapEff"])


def _status(file: Path) -> dict[str, str]:
    try:
        text = file.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        if Path("/proc/self").exists():
            raise
        raise NotPermitted("no /proc here", remedy="mount -t proc proc /proc") from error
    lines = text.split("\n")  # no other line end: the name of the process can have one
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
    """Run a block without any effective capability, to test which calls need none."""
    before, permitted = effective_capabilities(), _numbers(_status(_SELF)["CapPrm"])
    _set_capabilities(set(), permitted)
    try:
        yield
    finally:
        _set_capabilities(before, permitted)


def require_capabilities(capabilities: Iterable[int]) -> None:
    """Check that this process has the capabilities, and that they count for the kernel of the host.

    Raises:
        NotPermitted: one is missing, with the names of the missing ones; or they are those of a user namespace only,
            which bpf(2) does not accept (bpf_capable() in include/linux/capability.h).
    """
    missing = sorted(capability_name(number) for number in set(capabilities) - effective_capabilities())
    if missing:
        raise NotPermitted(
            f"{' and '.join(missing)} missing",
            remedy="run as root, or as a systemd service with AmbientCapabilities=CAP_BPF CAP_PERFMON"
            " (see packaging/systemd/)",
        )
    if not _is_host_user_namespace():
        raise NotPermitted(
            "capabilities of a user namespace, which do not permit to load BPF programs",
            remedy="run it on the host, or in a container without a user namespace (a privileged one)",
        )


def _is_host_user_namespace(link: str = "/proc/self/ns/user") -> bool:
    try:
        return os.readlink(link) == _HOST_USER_NAMESPACE
    except OSError:  # a kernel without CONFIG_USER_NS
        return True


def become_owner(path: Path) -> None:
    """As root, change to the account that owns the file at `path`, and give up all capabilities.

    Nothing changes if it is missing or root's own: then no other account has decided about its content.

    Raises:
        NotPermitted: as `keep_only_capabilities`.
    """
    if os.geteuid() != 0:
        return
    try:
        status = path.lstat()
    except OSError:  # reported where it is opened
        return
    if status.st_uid != 0:
        keep_only_capabilities((), (status.st_uid, status.st_gid))


@contextmanager
def acting_as(account: pwd.struct_passwd) -> Iterator[None]:
    """Let root access files with the rights of `account` alone. For one thread, while no other one runs."""
    groups = os.getgroups()
    os.setgroups([account.pw_gid])
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def keep_only_capabilities(capabilities: Iterable[int], account: tuple[int, int] | None = None) -> None:
    """Change from root to the service account, and keep exactly these capabilities; none can be gained later.

    Every thread started later inherits this. Call it before any thread starts: the kernel has capabilities per thread.
    Core files stay forbidden (`forbid_core_files`). `account`: uid and gid of another account to change to.

    Raises:
        NotPermitted: the kernel refuses, the account does not exist, a thread keeps more, or imports would fail.
    """
    kept = set(capabilities)
    if os.geteuid() == 0:
        if account is None:
            account = service_account().pw_uid, service_account().pw_gid
        user_id, group_id = account
        search_paths = import_paths.open_search_paths()
        if kept:
            _prctl(_PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setresgid(group_id, group_id, group_id)
        os.setresuid(user_id, user_id, user_id)
        import_paths.keep_search_paths_reachable(search_paths)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _set_capabilities(kept, kept)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    forbid_core_files()  # a change of the account sets this to fs.suid_dumpable
    _refuse_privileged_threads(kept)


def forbid_core_files() -> None:
    """Let the kernel write no memory of this process, which has secrets, to a core file or to a program for them.

    RLIMIT_CORE does not stop a program in kernel.core_pattern (core(5)). Other processes of the account, such as a
    command receiver, can no longer read the memory; root can. Holds until the next exec or change of the account.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> None:
    if ct.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise NotPermitted(f"cannot give up privileges: prctl({option}): {os.strerror(ct.get_errno())}")


def _refuse_privileged_threads(kept: set[int]) -> None:
    for file in Path("/proc/self/task").glob("*/status"):
        try:
            status = _status(file)
        except (FileNotFoundError, ProcessLookupError):  # the thread has ended
            continue
        if not _numbers(status["CapPrm"]) <= kept or status["NoNewPrivs"] != "1":
            raise NotPermitted(
                f"a thread started earlier ({status['Name']}, {file.parent.name}) would keep its privileges",
                remedy="set OPENBLAS_NUM_THREADS, OMP_NUM_THREADS and MKL_NUM_THREADS to 1",
            )
