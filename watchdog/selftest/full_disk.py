"""Check: on a completely full disk, the state is still saved, in its reserved space.

The disk is a tmpfs that is mounted for this process only; the host's disks are not touched.
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
DISK_BYTES = 48 * 1024 * 1024  # the state file, its WAL, and some space to fill

_CLONE_NEWNS = 0x20000  # include/uapi/linux/sched.h
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000  # include/uapi/linux/mount.h
_PATIENCE_SECONDS = 20.0


def run_check(context: CheckContext) -> str:
    """Fill a small disk under a state file, then commit and deliver; return the figures.

    Raises:
        CheckSkipped: mounting is not possible here.
        CheckFailed: a commit failed, or a notification was not delivered or delivered twice.
    """
    mount_small_disk(context.folder)
    privileges.keep_only_capabilities(())  # root could use reserved blocks
    return check_full_disk(context.folder)


def check_full_disk(folder: Path) -> str:
    """Commit and deliver on the full disk at `folder`; return the figures."""
    store = Store(folder / "state", SystemClock(), boot_id())
    try:
        store.reserve_space()
        fill_disk(folder)
        return _commit_and_deliver(store, folder)
    finally:
        store.close()


def _commit_and_deliver(store: Store, folder: Path) -> str:
    receiver = NullReceiver("selftest")
    delivery = Delivery(store, [receiver], SystemClock(), logging.getLogger(__name__))
    delivery.start()
    committed: list[str] = []
    try:
        for number in range(COMMIT_COUNT):
            notification = make_notification(number, receiver.name)
            alert = (f"{number % 50:016x}", notification.alerts[0].to_json())
            store.commit(
                alerts=[alert], groups=[((receiver.name, notification.group_key), {})], notifications=[notification]
            )
            committed.append(notification.id)
            delivery.wake_workers()
        wait_until(lambda: len(receiver.notification_ids) >= COMMIT_COUNT, _PATIENCE_SECONDS)
    except StoreError as error:
        raise CheckFailed(f"{len(committed)} of {COMMIT_COUNT} commits written, then: {error}") from error
    finally:
        delivery.stop(1.0)
    delivered, recorded, free_bytes = (
        set(receiver.notification_ids) & set(committed),
        _recorded_results(store),
        _free_bytes(folder),
    )
    detail = (
        f"{len(committed)} of {COMMIT_COUNT} commits written, {len(delivered)} notifications delivered,"
        f" {recorded} results recorded,"
        f" {len(receiver.notification_ids) - len(delivered)} sent twice, with {free_bytes} bytes free"
    )
    require(
        sorted(receiver.notification_ids) == sorted(committed) and recorded == COMMIT_COUNT and free_bytes == 0, detail
    )
    return detail


def fill_disk(folder: Path) -> None:
    """Write until no space is left."""
    with (folder / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(4096))


def mount_small_disk(folder: Path) -> None:
    """Mount a tmpfs of `DISK_BYTES` at `folder`, visible to this process and its children only.

    Raises:
        CheckSkipped: the kernel refuses.
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
        raise CheckSkipped(f"cannot mount a small disk: {reason} (needs root; in a container, CAP_SYS_ADMIN)")


def _free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _recorded_results(store: Store) -> int:
    with store.database.transaction() as connection:
        return audit.count_delivered_attempts(connection)
