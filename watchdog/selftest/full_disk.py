"""A disk that is full to the last byte: the state goes on in the room that it has reserved.

The disk is a file system of our own in memory, mounted where no other process sees it: the host's is left alone.
"""

from __future__ import annotations

import contextlib
import ctypes as ct
import logging
import os
from pathlib import Path
from typing import Any

from watchdog.clock import SystemClock, boot_id
from watchdog.delivery.delivery import Delivery
from watchdog.errors import StoreError
from watchdog.kernel import privileges
from watchdog.selftest.context import CheckContext, make_notification, wait_until
from watchdog.selftest.null_receiver import NullReceiver
from watchdog.selftest.result import CheckFailed, CheckSkipped, require
from watchdog.state import audit
from watchdog.state.store import Store

COMMIT_COUNT = 500
DISK_BYTES = 48 * 1024 * 1024  # the state's file and its log, and some to be filled

_CLONE_NEWNS = 0x20000  # include/uapi/linux/sched.h
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000  # include/uapi/linux/mount.h
_PATIENCE_SECONDS = 20.0


def run_check(stage: CheckContext) -> str:
    """Fill a small disk under a state file, and go on; return what was seen.

    Raises:
        NotRehearsed: nothing can be mounted here.
        Failed: something was not written, not delivered, or delivered twice.
    """
    mount_small_disk(stage.folder)
    privileges.keep_only_capabilities(())  # root may have blocks that are kept for it
    return check_full_disk(stage.folder)


def check_full_disk(folder: Path) -> str:
    """Commit and deliver on the full disk of `folder`."""
    store = Store(folder / "state", SystemClock(), boot_id())
    try:
        store.reserve_space()
        fill_disk(folder)
        return _commit_and_deliver(store, folder)
    finally:
        store.close()


def _commit_and_deliver(store: Store, folder: Path) -> str:
    ear = NullReceiver("rehearsal")
    delivery = Delivery(store, [ear], SystemClock(), logging.getLogger(__name__))
    delivery.start()
    committed: list[str] = []
    try:
        for number in range(COMMIT_COUNT):
            notification = make_notification(number, ear.name)
            alert = (f"{number % 50:016x}", notification.alerts[0].to_json())
            store.commit(
                alerts=[alert], groups=[((ear.name, notification.group_key), {})], notifications=[notification]
            )
            committed.append(notification.id)
            delivery.wake_workers()
        wait_until(lambda: len(ear.notification_ids) >= COMMIT_COUNT, _PATIENCE_SECONDS)
    except StoreError as error:
        raise CheckFailed(f"{len(committed)} of {COMMIT_COUNT} commits written, then: {error}") from error
    finally:
        delivery.stop(1.0)
    delivered, noted, free_bytes = set(ear.notification_ids) & set(committed), _noted(store), _free_bytes(folder)
    seen = (
        f"{len(committed)} of {COMMIT_COUNT} commits written, {len(delivered)} notices delivered,"
        f" {noted} results noted,"
        f" {len(ear.notification_ids) - len(delivered)} sent twice, with {free_bytes} bytes free"
    )
    require(sorted(ear.notification_ids) == sorted(committed) and noted == COMMIT_COUNT and free_bytes == 0, seen)
    return seen


def fill_disk(folder: Path) -> None:
    """Write until not another byte finds room."""
    with (folder / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))


def mount_small_disk(folder: Path) -> None:
    """Mount a file system of `DISK_BYTES` at `folder`, for this process and its children alone.

    Raises:
        NotRehearsed: the kernel does not let us.
    """
    libc: Any = ct.CDLL(None, use_errno=True)
    owner = folder.stat()
    options = f"size={DISK_BYTES},mode=700,uid={owner.st_uid},gid={owner.st_gid}".encode()
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    refused = (
        libc.unshare(_CLONE_NEWNS)
        or libc.mount(b"none", b"/", None, ct.c_ulong(_MS_REC | _MS_PRIVATE), None)
        or libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", ct.c_ulong(flags), options)
    )
    if refused:
        reason = os.strerror(ct.get_errno())
        raise CheckSkipped(f"a small disk cannot be mounted: {reason} (it takes root; in a container, CAP_SYS_ADMIN)")


def _free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _noted(store: Store) -> int:
    with store.database.transaction() as connection:
        return audit.count_delivered_attempts(connection)
