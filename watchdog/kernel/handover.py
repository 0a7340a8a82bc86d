"""The hand-over of loaded programs and maps from the loader to the daemon, over a socketpair.

One message: a JSON manifest and the file descriptors that it names, in its order (SCM_RIGHTS). The receiver checks
number, kind and layout of each before it uses any.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from watchdog import errors
from watchdog.config.map_sizes import MapSizes
from watchdog.errors import HandoverError, KernelUnfit, WatchdogError
from watchdog.kernel import layout, libbpf
from watchdog.kernel.programs import CONNECTION_PROBES, ITERATOR, LEGACY_MESSAGE_PROBES, MESSAGE_PROBES, Probe

_MAX_FDS = 32
_MAX_MESSAGE = 65536
_LOADER_SECONDS = 60
_MAX_COMPILER_OUTPUT = 2000  # characters of what the compiler had to say
# All that the loader, which begins as root, has of ours: no library, folder or option from elsewhere.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_TEMPORARY = "/tmp"  # noqa: S108 - made with mkdtemp; root's own TMPDIR is often out of the account's reach
# Map: key size, value size in bytes.
MAPS = {
    "ledger": (0, 0),
    "sums": (layout.SUMS_KEY.itemsize, layout.SUMS.itemsize),
    "losses": (4, np.dtype("<u8").itemsize),
    "fallback_events": (4, np.dtype("<u8").itemsize),
    "attached_since": (4, np.dtype("<u8").itemsize),
    "responses": (0, 0),
    "datagrams": (layout.DATAGRAMS_KEY.itemsize, layout.DATAGRAMS.itemsize),
}
_KINDS = {"program": "anon_inode:bpf-prog", "link": "anon_inode:bpf_link", "map": "anon_inode:bpf-map"}


@dataclass(frozen=True, slots=True)
class LoadedPrograms:
    """File descriptors of what the loader has loaded: programs not yet attached, an iterator's link, maps.

    `connections`, `messages`: the programs of `probes.CONNECTIONS`, by name and in that order, and those that run at
    each message; of the latter there are none where the kernel has no way to run them, which `message_probes_problem`
    explains.
    """

    connection_programs: Mapping[str, int]
    message_programs: tuple[int, ...]
    message_probes_problem: str
    iterator_link: int
    maps: Mapping[str, int]

    def close(self) -> None:
        """Close all; the kernel then frees what nothing else refers to."""
        for fd in (*self.connection_programs.values(), *self.message_programs, self.iterator_link, *self.maps.values()):
            os.close(fd)


def manifest(message_probes: Sequence[Probe]) -> list[str]:
    """Return the names of what is handed over, in order (kind, colon, name), with these programs for messages."""
    programs = [f"program:{probe.name}" for probe in (*CONNECTION_PROBES, *message_probes)]
    return [*programs, f"link:{ITERATOR}", *(f"map:{name}" for name in MAPS)]


def send(
    channel: socket.socket, fds: Mapping[str, int], messages: Sequence[Probe], message_probes_problem: str
) -> None:
    """Send the descriptors, by manifest name; `message_probes_problem` says why `messages` is empty, if it is."""
    names = manifest(messages)
    text = json.dumps({"fds": names, "no_messages": message_probes_problem})
    socket.send_fds(channel, [text.encode()], [fds[name] for name in names])


def send_error(channel: socket.socket, error: WatchdogError) -> None:
    """Send, in place of descriptors, why there are none."""
    text = error.text[: _MAX_MESSAGE // 8]
    message = {"error": type(error).__name__, "text": text, "remedy": error.remedy}
    channel.send(json.dumps(message).encode())


def receive(channel: socket.socket) -> LoadedPrograms:
    """Receive and check what the loader sends.

    Raises:
        KernelUnfit, NotPermitted: as the loader reported.
        HandoverError: nothing, or something else than expected, came.
    """
    try:
        data, fds, flags, _ = socket.recv_fds(channel, _MAX_MESSAGE, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
    except TimeoutError as error:
        raise HandoverError(f"the loader sent nothing within {_LOADER_SECONDS} s") from error
    try:
        return _checked(data, fds, flags)
    except WatchdogError:
        for fd in fds:
            os.close(fd)
        raise


def _checked(data: bytes, fds: list[int], flags: int) -> LoadedPrograms:
    if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        raise HandoverError("the loader's message was cut")
    if not data:
        raise HandoverError("the loader ended without a word")
    try:
        message = json.loads(data)
    except ValueError as error:
        raise HandoverError("the loader's message is not JSON") from error
    if "error" in message:
        kind = getattr(errors, str(message["error"]), HandoverError)
        raise kind(str(message.get("text")), remedy=str(message.get("remedy", "")))
    names = message.get("fds")
    if names not in [manifest(probes) for probes in (MESSAGE_PROBES, LEGACY_MESSAGE_PROBES, ())] or len(fds) != len(
        names
    ):
        raise HandoverError(f"the loader sent {len(fds)} descriptors, named {names}")
    by_kind: dict[str, dict[str, int]] = {"program": {}, "link": {}, "map": {}}
    for full_name, fd in zip(names, fds, strict=True):
        kind_name, name = full_name.split(":")
        if os.readlink(f"/proc/self/fd/{fd}").replace("bpf-link", "bpf_link") != _KINDS[kind_name]:
            raise HandoverError(f"the loader sent something else as {full_name}")
        by_kind[kind_name][name] = fd
    for name, sizes in MAPS.items():
        info = libbpf.map_info(by_kind["map"][name])
        if (info.key_size, info.value_size) != sizes:
            raise HandoverError(f"map {name} has sizes {info.key_size}, {info.value_size}, not {sizes}")
    connections = {probe.name: by_kind["program"].pop(probe.name) for probe in CONNECTION_PROBES}
    messages = tuple(by_kind["program"].values())
    return LoadedPrograms(
        connections, messages, str(message.get("no_messages")), by_kind["link"][ITERATOR], by_kind["map"]
    )


def run_loader(map_sizes: MapSizes) -> LoadedPrograms:
    """Run the loader as a child, wait for its end, and return what it loaded.

    `map_sizes`: how much the kernel keeps between two ticks.

    Raises:
        KernelUnfit, NotPermitted: the kernel, bcc or privileges do not suffice; the text names the remedy.
        HandoverError: the loader failed in some other way.
    """
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with (
        here,
        there,
        # A file, for a pipe that nobody reads would hold up a compiler with much to say.
        tempfile.TemporaryFile() as complaints,
        # Ours to remove: the loader has become another account by then.
        tempfile.TemporaryDirectory(prefix="bpf-watchdog-", dir=_TEMPORARY) as folder,
    ):
        here.settimeout(_LOADER_SECONDS)
        # -I: neither the current folder, nor PYTHONPATH, nor the user's own packages.
        command = [sys.executable, "-I", "-m", "watchdog.kernel.loader"]
        arguments = [str(there.fileno()), folder, *map(str, astuple(map_sizes))]
        with subprocess.Popen(  # noqa: S603 - ourselves
            [*command, *arguments],
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            cwd="/",
            env=_ENVIRONMENT,
        ) as child:
            there.close()
            try:
                return receive(here)
            except (HandoverError, KernelUnfit) as error:
                child.kill()
                child.wait()
                complaints.seek(0)
                last = complaints.read().decode(errors="replace").strip()[-_MAX_COMPILER_OUTPUT:]
                raise type(error)(f"{error}\n{last}".strip()) from error
