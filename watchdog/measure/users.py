"""Names of users, without ever waiting for one.

Those of /etc/passwd are read at once; others may be a directory server's, which may take its time: a thread of its own
asks for them, and until it is told, the user's number stands for the name.
"""

from __future__ import annotations

import pwd
import queue
import threading
from collections.abc import Iterable
from pathlib import Path

from watchdog.clock import SECOND_NS

_TRUE_FOR_NS = 600 * SECOND_NS
_MAX_LOOKUPS = 4096  # users asked for at a time; others keep their number for a name
_NUMBER = 2  # the third field (passwd(5))


class UserNames:
    """Knows the names of user numbers, and asks for those that it does not know."""

    def __init__(self, passwd: Path = Path("/etc/passwd")) -> None:
        """Take local users from the file `passwd`."""
        self._passwd = passwd
        self._version: tuple[int, int] | None = None
        self._local: dict[int, str] = {}
        self._looked_up: dict[int, str] = {}
        self._asked_ns: dict[int, int] = {}
        self._unanswered: set[int] = set()
        self._questions: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._read()

    def name(self, uid: int) -> str:
        """Return the name of `uid`, the number itself while there is none known."""
        return self._local.get(uid) or self._looked_up.get(uid) or str(uid)

    def update(self, uids: Iterable[int], at_ns: int) -> None:
        """Take in what became known, have the unknown ones of `uids` looked up, and forget all others.

        `uids`: all that are in use. Never waits.
        """
        self._read()
        while not self._answers.empty():
            uid, name = self._answers.get()
            self._looked_up[uid] = name
            self._unanswered.discard(uid)
        strangers = [uid for uid in uids if uid not in self._local][:_MAX_LOOKUPS]
        self._looked_up = {uid: self._looked_up[uid] for uid in strangers if uid in self._looked_up}
        self._asked_ns = {uid: self._asked_ns[uid] for uid in strangers if uid in self._asked_ns}
        for uid in strangers:
            due = at_ns - self._asked_ns.get(uid, -_TRUE_FOR_NS) >= _TRUE_FOR_NS
            if due and uid not in self._unanswered and len(self._unanswered) < _MAX_LOOKUPS:
                self._asked_ns[uid] = at_ns
                self._unanswered.add(uid)
                self._questions.put(uid)
        if self._unanswered and self._thread is None:
            # It may hang in a lookup for good, and must not keep the process from ending.
            self._thread = threading.Thread(target=self._look_up, name="users", daemon=True)
            self._thread.start()

    def _look_up(self) -> None:
        while True:
            uid = self._questions.get()
            try:
                name = pwd.getpwuid(uid).pw_name
            except (KeyError, OSError):
                name = str(uid)
            self._answers.put((uid, name))

    def _read(self) -> None:
        try:
            found = self._passwd.stat()
            if self._version == (found.st_ino, found.st_mtime_ns):
                return
            lines = self._passwd.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except OSError:
            return  # what was known of it goes on
        self._version = found.st_ino, found.st_mtime_ns
        entries = [line.split(":") for line in reversed(lines)]  # of two with one number, the first counts
        numbered = [entry for entry in entries if len(entry) > _NUMBER and entry[_NUMBER].isdecimal()]
        self._local = {int(entry[_NUMBER]): entry[0] for entry in numbered if len(entry[_NUMBER]) <= len(str(2**32))}
