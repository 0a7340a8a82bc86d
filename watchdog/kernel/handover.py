"""Hand-over of loaded programs and maps from the loader to the daemon, over a socketpair.

The loader reports each of its steps. Its last message is a JSON manifest, and the file descriptors in its order
(SCM_RIGHTS). The daemon checks number, kind and layout of all descriptors before it uses any.
"""

from __future__ import annotations

import enum
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from itertools import product
from typing import Any, BinaryIO

import numpy as np

from watchdog import errors
from watchdog.config.map_sizes import MapSizes
from watchdog.errors import HandoverError, KernelUnfit, TemporaryFailure, WatchdogError
from watchdog.kernel import layout, libbpf
from watchdog.kernel.programs import (
    CONNECT_ERROR_PROBES,
    CONNECTION_PROBES,
    FILE_ITERATOR,
    MESSAGE_PROBE_SETS,
    SOCKET_ITERATOR,
    TASK_ITERATOR,
    Probe,
)
from watchdog.kernel.temporary_folder import TemporaryFolder, remove_abandoned_folders, temporary_folder

_MAX_FDS = 64
_MAX_MESSAGE = 65536
_MAX_COMPILER_OUTPUT = 2000  # characters from the end of the compiler's output
# The whole environment of the loader, which starts as root: no library, folder or option of the caller.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
# Places for the folder of the sources. Only root can fill /run, every user can fill the others; not TMPDIR: the service
# account often cannot reach root's.
_PLACES = ("/run", "/dev/shm", "/tmp", "/var/tmp")  # noqa: S108 - of temporary folders
_ITERATORS = (FILE_ITERATOR, SOCKET_ITERATOR, TASK_ITERATOR)
_EXIT_SECONDS = 5.0  # from the end of the loader's connection to the end of its process
# Map: key size, value size in bytes.
MAPS = {
    "ledger": (0, 0),
    "live": (0, 0),
    "sums": (layout.SUMS_KEY.itemsize, layout.SUMS.itemsize),
    "reset_peers": (layout.RESET_PEER_KEY.itemsize, layout.RESET_PEER.itemsize),
    "losses": (4, np.dtype("<u8").itemsize),
    "fallback_events": (4, np.dtype("<u8").itemsize),
    "complete_pass": (4, np.dtype("<u8").itemsize),
    "attached_since": (4, np.dtype("<u8").itemsize),
    "responses": (0, 0),
    "cgroups": (0, 0),
    "datagrams": (layout.DATAGRAMS_KEY.itemsize, layout.DATAGRAMS.itemsize),
}
STEP_LIMIT_SECONDS = 240.0
"""Longest time between two messages of the loader. All of it is 2 s of CPU; much longer where CPU is short."""


class LoaderStep(enum.StrEnum):
    """Steps of the loader, in their order; each happens once, COMPILE and the others after it again with a fallback."""

    COMPILE = "compiling the BPF programs"
    ITERATORS = "loading the iterators"
    CONNECTIONS = "loading the programs for connections"
    CONNECT_ERRORS = "loading the programs for failed connects"
    MESSAGES = "loading the programs for messages"


_MAX_STEPS = 2 * len(LoaderStep)
_KINDS = {
    "program": "anon_inode:bpf-prog",
    "link": "anon_inode:bpf_link",
    "map": "anon_inode:bpf-map",
    "stats": "anon_inode:bpf-stats",
}
RUN_TIMES = "stats:run_times"
"""Manifest name of the descriptor with which the kernel counts runs of programs, where it is wanted and permitted."""


@dataclass(frozen=True, slots=True)
class LoadedPrograms:
    """File descriptors from the loader: programs that are not attached yet, links of the iterators, and maps.

    `connection_programs`: by name, in the order of `CONNECTION_PROBES`. `connect_error_programs`: see failed attempts;
    those that the kernel cannot run are missing, for the reason in `connect_errors_problem`. `message_programs`: run at
    each message; empty where the kernel cannot run them, for the reason in `message_probes_problem`.
    `socket_iterator_link`: None where the kernel refuses it, for the reason in `socket_iterator_problem`; the walk over
    files then reports the sockets. `task_iterator`: program that reads the executable of one process, None where the
    kernel cannot run it, for the reason in `task_iterator_problem`. `programs`: all programs by name, those of the
    iterators too. `run_times`: with it the kernel counts their runs, None where it is not wanted, not permitted for the
    reason in `run_times_problem`, or set on the whole host.
    """

    connection_programs: Mapping[str, int]
    connect_error_programs: tuple[int, ...]
    connect_errors_problem: str
    message_programs: tuple[int, ...]
    message_probes_problem: str
    file_iterator_link: int
    socket_iterator_link: int | None
    socket_iterator_problem: str
    task_iterator: int | None
    task_iterator_problem: str
    maps: Mapping[str, int]
    programs: Mapping[str, int]
    run_times: int | None
    run_times_problem: str

    def close(self) -> None:
        """Close all descriptors; the kernel then frees programs and maps without another reference."""
        optional = (self.file_iterator_link, self.socket_iterator_link, self.run_times)
        for fd in (*self.programs.values(), *(fd for fd in optional if fd is not None), *self.maps.values()):
            os.close(fd)


@dataclass(frozen=True, slots=True)
class OptionalParts:
    """The loaded ones of the programs that not every kernel can run, and the reasons for what is missing, or ""."""

    connect_error_probes: tuple[Probe, ...]
    connect_errors_problem: str
    message_probes: tuple[Probe, ...]
    message_probes_problem: str
    socket_iterator_problem: str
    task_iterator_problem: str
    run_times_problem: str = ""


def manifest(
    connect_error_probes: Sequence[Probe],
    message_probes: Sequence[Probe],
    *,
    with_socket_iterator: bool = True,
    with_task_iterator: bool = True,
    with_run_times: bool = False,
) -> list[str]:
    """Return the names of the descriptors, "KIND:NAME", in the order of the hand-over."""
    programs = [f"program:{probe.name}" for probe in (*CONNECTION_PROBES, *connect_error_probes, *message_probes)]
    task_iterator = [f"program:{TASK_ITERATOR}"] if with_task_iterator else []
    walks = [FILE_ITERATOR, *([SOCKET_ITERATOR] if with_socket_iterator else [])]
    iterators = [f"{kind}:{name}" for kind in ("program", "link") for name in walks]
    run_times = [RUN_TIMES] if with_run_times else []
    return [*programs, *task_iterator, *iterators, *(f"map:{name}" for name in MAPS), *run_times]


def send(channel: socket.socket, fds: Mapping[str, int], optional: OptionalParts) -> None:
    """Send the descriptors, `fds` by manifest name, and the reasons for what is missing; "" where nothing is."""
    names = manifest(
        optional.connect_error_probes,
        optional.message_probes,
        with_socket_iterator=not optional.socket_iterator_problem,
        with_task_iterator=not optional.task_iterator_problem,
        with_run_times=RUN_TIMES in fds,
    )
    problems = {
        "connect_errors_problem": optional.connect_errors_problem,
        "message_probes_problem": optional.message_probes_problem,
        "socket_iterator_problem": optional.socket_iterator_problem,
        "task_iterator_problem": optional.task_iterator_problem,
        "run_times_problem": optional.run_times_problem,
    }
    text = json.dumps({"fds": names, **problems})
    socket.send_fds(channel, [text.encode()], [fds[name] for name in names])


def send_step(channel: socket.socket, step: LoaderStep) -> None:
    """Report that `step` begins."""
    channel.send(json.dumps({"step": step}).encode())


def send_error(channel: socket.socket, error: WatchdogError) -> None:
    """Send the error of the loader instead of descriptors."""
    text = error.text[: _MAX_MESSAGE // 8]
    message = {"error": type(error).__name__, "text": text, "remedy": error.remedy}
    channel.send(json.dumps(message).encode())


def receive(channel: socket.socket, report_step: Callable[[LoaderStep], object] = bool) -> LoadedPrograms:
    """Receive and check the messages of the loader; call `report_step` when one of its steps begins.

    Raises:
        KernelUnfit, NotPermitted: the error that the loader sent.
        HandoverError: no message came, or it is not as expected.
    """
    for _ in range(_MAX_STEPS + 1):
        try:
            data, fds, flags, _ = socket.recv_fds(channel, _MAX_MESSAGE, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError as error:
            raise HandoverError(f"no message from the loader within {STEP_LIMIT_SECONDS:.0f} s") from error
        try:
            message = _decode(data, flags)
            if "step" not in message:
                return _check_message(message, fds)
            report_step(_step(message["step"], fds))
        except WatchdogError:
            for fd in fds:
                os.close(fd)
            raise
    raise HandoverError(f"the loader reported more than {_MAX_STEPS} steps")


def _decode(data: bytes, flags: int) -> dict[str, Any]:
    if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        raise HandoverError("the message of the loader is truncated")
    if not data:
        raise HandoverError("the loader ended without a message")
    try:
        message = json.loads(data)
    except ValueError as error:
        raise HandoverError("the message of the loader is not JSON") from error
    if not isinstance(message, dict):
        raise HandoverError("the message of the loader is not an object of JSON")
    return message


def _step(name: object, fds: Sequence[int]) -> LoaderStep:
    if name not in list(LoaderStep) or fds:
        raise HandoverError(f"unknown step of the loader: step={name!r} descriptors={len(fds)}")
    return LoaderStep(str(name))


def _check_message(message: Mapping[str, Any], fds: list[int]) -> LoadedPrograms:
    if "error" in message:
        kind = getattr(errors, str(message["error"]), HandoverError)
        raise kind(str(message.get("text")), remedy=str(message.get("remedy", "")))
    names = message.get("fds", [])
    connect_error_probes = [probe for probe in CONNECT_ERROR_PROBES if f"program:{probe.name}" in names]
    if names not in _known_manifests(connect_error_probes) or len(fds) != len(names):
        raise HandoverError(f"unexpected descriptors from the loader: count={len(fds)} names={names}")
    by_kind: dict[str, dict[str, int]] = {kind: {} for kind in _KINDS}
    for full_name, fd in zip(names, fds, strict=True):
        kind_name, name = full_name.split(":")
        if os.readlink(f"/proc/self/fd/{fd}").replace("bpf-link", "bpf_link") != _KINDS[kind_name]:
            raise HandoverError(f"wrong kind of descriptor from the loader: {full_name}")
        by_kind[kind_name][name] = fd
    for name, sizes in MAPS.items():
        info = libbpf.map_info(by_kind["map"][name])
        if (info.key_size, info.value_size) != sizes:
            found = f"key_size={info.key_size} value_size={info.value_size}"
            raise HandoverError(f"wrong map from the loader: {name} {found} expected={sizes}")
    programs = by_kind["program"]
    known = {*(probe.name for probe in (*CONNECTION_PROBES, *connect_error_probes)), *_ITERATORS}
    return LoadedPrograms(
        connection_programs={probe.name: programs[probe.name] for probe in CONNECTION_PROBES},
        connect_error_programs=tuple(programs[probe.name] for probe in connect_error_probes),
        task_iterator=programs.get(TASK_ITERATOR),
        task_iterator_problem=str(message.get("task_iterator_problem", "")),
        connect_errors_problem=str(message.get("connect_errors_problem")),
        message_programs=tuple(fd for name, fd in programs.items() if name not in known),
        message_probes_problem=str(message.get("message_probes_problem")),
        file_iterator_link=by_kind["link"][FILE_ITERATOR],
        socket_iterator_link=by_kind["link"].get(SOCKET_ITERATOR),
        socket_iterator_problem=str(message.get("socket_iterator_problem", "")),
        maps=by_kind["map"],
        programs=programs,
        run_times=next(iter(by_kind["stats"].values()), None),
        run_times_problem=str(message.get("run_times_problem", "")),
    )


def _known_manifests(connect_error_probes: Sequence[Probe]) -> list[list[str]]:
    return [
        manifest(
            connect_error_probes,
            probes,
            with_socket_iterator=sockets,
            with_task_iterator=tasks,
            with_run_times=run_times,
        )
        for probes in MESSAGE_PROBE_SETS
        for sockets, tasks, run_times in product((True, False), repeat=3)
    ]


def run_loader(
    map_sizes: MapSizes, report_step: Callable[[LoaderStep], object] = bool, *, count_runs: bool = False
) -> LoadedPrograms:
    """Run the loader as a child process, wait for its end, and return the loaded programs and maps.

    `map_sizes`: capacities of the maps, for the records of one tick. `report_step`: is called as by `receive`.
    `count_runs`: the kernel is to count the runs of BPF programs and their time.

    Raises:
        KernelUnfit, NotPermitted: the kernel, bcc or privileges are not sufficient; with the remedy.
        HandoverError: the loader was killed, or failed for another reason.
        TemporaryFailure: memory, disk space, descriptors or processes are used up.
    """
    try:
        # A file in memory: a compiler with much output would block on a pipe without a reader.
        with _source_folders() as folders, os.fdopen(os.memfd_create("compiler output"), "w+b") as compiler_output:
            settings = [str(int(count_runs)), *map(str, astuple(map_sizes))]
            return _run_loader(folders, compiler_output, settings, report_step)
    except OSError as error:
        text = f"cannot run the loader of the BPF programs: {error.strerror}"
        raise TemporaryFailure(text, remedy="stop what uses up processes, memory or descriptors") from error


@contextmanager
def _source_folders() -> Iterator[list[TemporaryFolder]]:
    """Create an empty folder in each place that allows it; remove all at the end, and those of killed starts now.

    They are removed by this process: the loader runs as another account by then.

    Raises:
        TemporaryFailure: no place allows it.
    """
    given = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]  # of the service, systemd.exec(5)
    places = (given, *_PLACES) if given.startswith("/") else _PLACES
    remove_abandoned_folders(places)
    folders: list[TemporaryFolder] = []
    problems = []
    with ExitStack() as stack:
        for place in places:
            try:
                folders.append(stack.enter_context(temporary_folder(place)))
            except OSError as error:
                problems.append(f"{place}: {error.strerror}")
        if not folders:
            text = f"no place for the sources of the BPF programs: {', '.join(problems)}"
            raise TemporaryFailure(text, remedy="free 1 MB in one of these places")
        yield folders


def _run_loader(
    folders: Sequence[TemporaryFolder],
    compiler_output: BinaryIO,
    settings: Sequence[str],
    report_step: Callable[[LoaderStep], object],
) -> LoadedPrograms:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        here.settimeout(STEP_LIMIT_SECONDS)
        # -I: neither the current folder, nor PYTHONPATH, nor the user's own packages.
        command = [sys.executable, "-I", "-m", "watchdog.kernel.loader"]
        arguments = [str(there.fileno()), json.dumps([str(folder.path) for folder in folders]), *settings]
        with subprocess.Popen(  # noqa: S603 - our own module
            [*command, *arguments],
            pass_fds=[there.fileno(), *(folder.lock_fd for folder in folders)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=compiler_output,
            cwd="/",
            env=_ENVIRONMENT,
        ) as child:
            there.close()
            try:
                return receive(here, report_step)
            except (TemporaryFailure, KernelUnfit) as error:
                text, remedy = error.text, error.remedy
                if isinstance(error, HandoverError) and (ending := _ending(child)):
                    text, remedy = f"{text}: {ending}", remedy or _remedy(child.returncode)
                child.kill()
                child.wait()
                compiler_output.seek(0)
                output = compiler_output.read().decode(errors="replace").strip()[-_MAX_COMPILER_OUTPUT:]
                if remedy:  # beside the message, not at the end of the compiler's output
                    raise type(error)(text, remedy=f"{remedy}\n{output}".strip()) from error
                raise type(error)(f"{text}\n{output}".strip()) from error
            except BaseException:  # Ctrl-C, or a stop of the service: do not wait for the compiler
                child.kill()
                raise


def _ending(child: subprocess.Popen[bytes]) -> str:
    """Describe the end of the loader; "" if it still runs, or ended without an error."""
    try:
        code = child.wait(_EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        return ""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}" if code else ""


def _remedy(exit_code: int | None) -> str:
    if exit_code == -signal.SIGKILL:
        return "if the kernel did it for want of memory (journalctl -k), free 300 MB; another start can succeed"
    return ""
