"""Names of users, found without waiting.

Users in /etc/passwd are read at once. Other users can be on a directory server that is slow: a thread has them looked
up by a child process, and until the lookup ends, the uid is used as name.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from watchdog.clock import SECOND_NS
from watchdog.measure.name_service import NameService
from watchdog.thread_edge import ThreadEdge

_VALID_NS = 600 * SECOND_NS
_MAX_LOOKUPS = 4096  # users in lookup at a time; other users keep their uid as name
_UID_FIELD = 2  # the third field (passwd(5))
_IDLE_SECONDS = 30.0  # without a look-up, after which its process ends


class UserLookup(Protocol):
    """Looks up users that are not local."""

    def name(self, uid: int) -> str | None:
        """Return the name of `uid`, None if there is none."""
        ...

    def close(self) -> None:
        """Free resources, until the next look-up."""
        ...


class UserNames:
    """Maps uids to names; looks up unknown uids in a thread."""

    def __init__(self, passwd: Path = Path("/etc/passwd"), lookup: UserLookup | None = None) -> None:
        """Read local users from the file `passwd`, look others up by `lookup`; None: in the host's name service."""
        self._passwd = passwd
        self._lookup = lookup or NameService()
        self._version: tuple[int, int] | None = None
        self._local: dict[int, str] = {}
        self._looked_up: dict[int, str] = {}
        self._requested_ns: dict[int, int] = {}
        self._pending: set[int] = set()
        self._requests: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._read_local()

    def name(self, uid: int) -> str:
        """Return the name of `uid`, or the number itself while no name is known."""
        return self._local.get(uid) or self._looked_up.get(uid) or str(uid)

    def update(self, uids: Iterable[int], at_ns: int) -> None:
        """Store the results of lookups, request lookups of the unknown `uids`, and forget all other users.

        `uids`: all uids in use. Never waits.
        """
        self._read_local()
        while not self._results.empty():
            uid, name = self._results.get()
            self._looked_up[uid] = name
            self._pending.discard(uid)
        remote = [uid for uid in uids if uid not in self._local][:_MAX_LOOKUPS]
        self._looked_up = {uid: self._looked_up[uid] for uid in remote if uid in self._looked_up}
        self._requested_ns = {uid: self._requested_ns[uid] for uid in remote if uid in self._requested_ns}
        for uid in remote:
            due = at_ns - self._requested_ns.get(uid, -_VALID_NS) >= _VALID_NS
            if due and uid not in self._pending and len(self._pending) < _MAX_LOOKUPS:
                self._requested_ns[uid] = at_ns
                self._pending.add(uid)
                self._requests.put(uid)
        if self._pending and self._thread is None:
            # A daemon thread: a lookup can hang forever, and must not delay the end of the process.
            thread = threading.Thread(target=self._run_lookups, name="user-lookup", daemon=True)
            with contextlib.suppress(RuntimeError):  # any user can use up the host's threads: the next tick tries again
                thread.start()
                self._thread = thread

    def _run_lookups(self) -> None:
        edge = ThreadEdge("user-lookup")
        while True:
            try:
                uid = self._requests.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                self._lookup.close()
                uid = self._requests.get()
            name = None
            with edge.step():
                name = self._lookup.name(uid)
            self._results.put((uid, name or str(uid)))

    def _read_local(self) -> None:
        try:
            found = self._passwd.stat()
            if self._version == (found.st_ino, found.st_mtime_ns):
                return
            lines = self._passwd.read_bytes().decode("utf-8", "surrogateescape").split("\n")
        except OSError:
            return  # the users of the last reading stay
        self._version = found.st_ino, found.st_mtime_ns
        entries = [line.split(":") for line in reversed(lines)]  # of two entries with one uid, the first counts
        numbered = [entry for entry in entries if len(entry) > _UID_FIELD and entry[_UID_FIELD].isdecimal()]
        self._local = {
            int(entry[_UID_FIELD]): entry[0] for entry in numbered if len(entry[_UID_FIELD]) <= len(str(2**32))
        }
