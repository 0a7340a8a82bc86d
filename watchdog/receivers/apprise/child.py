"""The child process of the Apprise receiver: one call of notify() per URL, with the arguments on standard input.

The libraries of services read answers of any length and follow redirects. So the process has limits of CPU time and
memory, and connects to no metadata service.
"""

from __future__ import annotations

import json
import logging
import math
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apprise

from watchdog.kernel.privileges import forbid_core_files
from watchdog.receivers.apprise.apprise_receiver import MAX_CPU_SECONDS, RESULT_PREFIX, ServiceResult
from watchdog.receivers.transport.metadata_addresses import is_metadata_host

_MAX_THREADS = 16
_MAX_DATA_BYTES = 536_870_912  # the stacks of 16 threads count 128 MiB


def main() -> int:
    """Notify the services of all URLs at the same time; print the result of each in one line, in their order."""
    logging.disable()  # log lines of Apprise contain URLs
    forbid_core_files()  # the URLs have secrets
    _limit_process()
    call = json.load(sys.stdin)
    with ThreadPoolExecutor(_MAX_THREADS) as threads:
        results = list(threads.map(lambda url: _notify(url, call), call["urls"]))
    sys.stdout.write(f"\n{RESULT_PREFIX}{json.dumps(results)}\n")
    return 0


def _notify(url: str, call: dict[str, str]) -> ServiceResult:
    service = apprise.Apprise(asset=apprise.AppriseAsset(app_id="bpf-watchdog", app_desc="bpf-watchdog"))
    if not service.add(url):
        return ServiceResult.UNKNOWN
    try:
        accepted = service.notify(
            title=call["title"],
            body=call["body"],
            notify_type=apprise.NotifyType(call["type"]),
            body_format=apprise.NotifyFormat.TEXT,
        )
    except MemoryError:  # the answer is too long
        return ServiceResult.FAILED
    return ServiceResult.ACCEPTED if accepted else ServiceResult.FAILED


def _limit_process() -> None:
    """Limit CPU time from now on and memory, and refuse connections to metadata services."""
    cpu_seconds = math.ceil(time.process_time()) + MAX_CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_DATA, (_MAX_DATA_BYTES, _MAX_DATA_BYTES))
    sys.addaudithook(_refuse_metadata_services)


def _refuse_metadata_services(event: str, arguments: tuple[Any, ...]) -> None:
    # Raised by the module `socket` before each connection, redirects included. Unix sockets have other addresses.
    if event not in ("socket.connect", "socket.sendto") or not isinstance(arguments[1], tuple):
        return
    host = str(arguments[1][0])
    if is_metadata_host(host.partition("%")[0], look_up=True):
        raise PermissionError(f"{host} is a link-local or metadata address")


if __name__ == "__main__":
    sys.exit(main())
