"""The name of this host: the one of the settings, else the system's, which DHCP or cloud-init can set late."""

from __future__ import annotations

import socket
from collections.abc import Callable

from watchdog.clock import SECOND_NS

LOOKUP_INTERVAL_NS = 10 * SECOND_NS


class HostName:
    """The present name. Only the thread of the ticks changes it; any thread may read it."""

    def __init__(self, look_up: Callable[[], str] = socket.gethostname) -> None:
        """Use `look_up` where the settings name no host."""
        self._look_up = look_up
        self._configured: str | None = None
        self._looked_up_ns = 0
        self.current = look_up()

    def configure(self, name: str | None) -> None:
        """Take the name of new settings, None: they have none."""
        self._configured = name
        self.current = name or self._look_up()

    def refresh(self, at_ns: int) -> None:
        """Look the name up again, at most once in `LOOKUP_INTERVAL_NS` of CLOCK_BOOTTIME."""
        if at_ns >= self._looked_up_ns + LOOKUP_INTERVAL_NS:
            self._looked_up_ns = at_ns
            self.configure(self._configured)
