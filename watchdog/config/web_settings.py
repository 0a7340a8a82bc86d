"""The table `[web]` of the settings: the address of the metrics for Prometheus and of the status page."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from watchdog.config import suggestions
from watchdog.config.document import Table

DEFAULT_MAX_SERIES: Final = 200
_MIN_SERIES, _MAX_SERIES = 4, 2_000  # memory: see docs/prometheus.md
_UNIX = "unix:"
_MAX_PORT = 65_535
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})", re.ASCII)


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Address and bounds of the metrics and the status page.

    `listen`: path of a socket, or IP address; then `port` is not None. `hosts`: names that requests may have in their
    `Host`, in lower case. `max_series`: pairs of process and unit with series of their own, `(other)` included.
    `bpf_stats`: the kernel counts the runs of BPF programs.
    `status_page`: whether the page is served beside the metrics.
    """

    listen: str
    port: int | None
    allow_remote: bool = False
    hosts: tuple[str, ...] = ()
    max_series: int = DEFAULT_MAX_SERIES
    bpf_stats: bool = False
    status_page: bool = True

    @property
    def is_loopback(self) -> bool:
        """Return whether only this host can reach the address."""
        return self.port is None or ipaddress.ip_address(self.listen).is_loopback

    @property
    def is_for_members(self) -> bool:
        """Return whether only root and members of the group can read: the address is a socket in the file system."""
        return self.port is None


def read_web(table: Table) -> WebSettings | None:
    """Return the settings in `table`; None without `listen`. Problems are added to its document."""
    text = table.text("listen", "")
    allow_remote = table.boolean("allow_remote", default=False)
    hosts = table.texts("hosts", ())
    max_series = table.integer("max_series", DEFAULT_MAX_SERIES, minimum=_MIN_SERIES, maximum=_MAX_SERIES)
    bpf_stats = table.boolean("bpf_stats", default=False)
    address = _parse_address(text)
    # Other hosts get the metrics that `allow_remote` is about; alerts and peers only where that is said.
    is_remote = address is not None and not WebSettings(*address).is_loopback
    status_page = table.boolean("status_page", default=not is_remote)
    table.reject_unknown_keys()
    for index, host in enumerate(hosts):
        if not _HOST.fullmatch(host):
            table.add_problem(
                "hosts", f"must be a host name without port: {suggestions.quote_value(host)}", index=index
            )
    if not text:
        given = [key for key in ("allow_remote", "hosts", "max_series", "bpf_stats", "status_page") if key in table]
        if given and not table.has_problem("listen"):
            table.add_problem(given[0], 'needs listen, the address of the metrics: listen = "127.0.0.1:9464"')
        return None
    if address is None:
        example = '"127.0.0.1:9464", "[::1]:9464" or "unix:/run/bpf-watchdog/metrics.sock"'
        table.add_problem("listen", f"must be an IP address with a port, or a socket: {example}")
        return None
    names = tuple(host.lower() for host in hosts)
    settings = WebSettings(*address, allow_remote, names, max_series, bpf_stats=bpf_stats, status_page=status_page)
    if not settings.is_loopback and not allow_remote:
        table.add_problem("listen", "other hosts could read the metrics at this address: it needs allow_remote = true")
    return settings


def _parse_address(text: str) -> tuple[str, int | None] | None:
    """Return address and port, or the path of a socket and None; None if `text` is neither."""
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        return (path, None) if path.startswith("/") and "\0" not in path else None
    found = _ADDRESS.fullmatch(text)
    if found is None or not 1 <= int(found[3]) <= _MAX_PORT:
        return None
    try:
        address = ipaddress.IPv6Address(found[1]) if found[1] else ipaddress.IPv4Address(found[2])
    except ValueError:
        return None
    return str(address), int(found[3])
