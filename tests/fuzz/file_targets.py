"""Fuzz targets for files: rules, settings, BTF, /proc, cgroups, pages of the state file; and for control requests."""

from __future__ import annotations

import contextlib
import ctypes as ct
import importlib.util
import logging
import re
import shutil
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import factories
from fuzz_target import SEPARATOR, FuzzFunction, FuzzTarget, split
from watchdog.clock import SystemClock
from watchdog.config.settings import SETTINGS_TABLES, open_document, read_settings
from watchdog.control.listener import Listener
from watchdog.control.notification_handlers import notification_handlers
from watchdog.control.protocol import Request, pack_request, parse_response
from watchdog.control.server import ControlServer
from watchdog.control.silence_handlers import SilencedAlerts, silence_handlers
from watchdog.daemon.heartbeat_url import HeartbeatUrl
from watchdog.errors import ConfigError, KernelUnfit, StoreError, WatchdogError
from watchdog.kernel.btf import Btf
from watchdog.kernel.host_sockets import HostSocketsReader
from watchdog.kernel.libbpf import library
from watchdog.measure.catalogue import DIMENSIONS, METRICS
from watchdog.measure.cgroup import Cgroups
from watchdog.measure.cgroup_path import find_place
from watchdog.measure.procfs import read_process
from watchdog.receivers.registry import build_receivers
from watchdog.resources import shipped_rules_folder
from watchdog.routing.alert_matching import ROUTE_DIMENSIONS
from watchdog.routing.routes import read_routes
from watchdog.routing.suppression_rules import read_suppression_rules
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.load import load_rules
from watchdog.rules.language.rule import Rule
from watchdog.state.store import Store
from watchdog.storage.folder import STATE_FILE_NAME

_DOCS = Path(__file__).parents[2] / "docs"
_TOML_BLOCK = re.compile(r"^```toml\n(.*?)^```", re.DOTALL | re.MULTILINE)
_TABLE_ROW = re.compile(r"^\| (`.*)$", re.MULTILINE)
_WORD = re.compile(r'[\w.:"=<>{} -]{1,40}')
_PID = 1_234


# --------------------------------------------------------------------------------------------------- rules and settings


@contextlib.contextmanager
def open_rules(folder: Path) -> Iterator[FuzzFunction]:
    """Load a rule file, and judge some ticks by its rules."""
    file = folder / "rules.toml"
    make_host = _class_of_hosts()

    def load(data: bytes) -> None:
        file.write_bytes(data)
        try:
            loaded = load_rules([file], receivers=("oncall",))
        except ConfigError as error:
            _check_problems(error)
        else:
            _judge(loaded.rules, make_host())

    yield load


def _class_of_hosts() -> Callable[[], Any]:
    path = Path(__file__).parents[1] / "unit" / "rules" / "conftest.py"
    spec = importlib.util.spec_from_file_location("rules_conftest", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    host: Callable[[], Any] = module.Host
    return host


def _judge(rules: Iterable[Rule], host: Any) -> None:
    engine = Engine(rules)
    everything = dict.fromkeys(METRICS, 1e9)
    rows = ({"process": "crawler", "user": "www", **everything}, {"process": None, "connects": 5})
    active: list[tuple[str, Any]] = []
    for snapshot in (
        host.baseline(),
        host.tick(*rows),
        host.tick(*rows, ledger_full=1, sums_full=2),
        host.tick(seconds=30),
    ):
        verdicts = engine.evaluate(snapshot, active)
        for failure in engine.take_failures():
            raise failure
        active = [(verdict.rule.id, verdict.labels) for verdict in verdicts[:20]]
        for rule_id, labels in active[:5]:
            engine.find_contributors(snapshot, rule_id, labels)


@contextlib.contextmanager
def open_settings(folder: Path) -> Iterator[FuzzFunction]:
    """Read a settings file with its receivers, routes and heartbeat."""
    file = folder / "watchdog.toml"

    def read(data: bytes) -> None:
        file.write_bytes(data)
        file.chmod(0o600)
        receivers = {}
        try:
            settings = read_settings(open_document(str(file)))
            with contextlib.suppress(ConfigError):  # its problems are in the document
                receivers = build_receivers(settings)
            if settings.heartbeat is not None:
                HeartbeatUrl.from_table(settings.heartbeat)
            read_routes(settings, None)
            read_suppression_rules(settings)
            settings.document.raise_problems()
        except ConfigError as error:
            _check_problems(error)
        for receiver in receivers.values():
            receiver.destination()
            receiver.close()

    yield read


def _check_problems(error: ConfigError) -> None:
    for problem in error.problems:
        text = str(problem)
        assert problem.line >= 1, text
        assert text.isprintable(), repr(text)
        assert len(text) < 4_000, text[:200]


def _toml_of_docs(*pages: str) -> Iterator[bytes]:
    for page in pages:
        for block in _TOML_BLOCK.findall((_DOCS / page).read_text()):
            yield block.encode()


def _rule_seeds() -> Iterable[bytes]:
    yield from _toml_of_docs("rules.md")
    for file in sorted(shipped_rules_folder().glob("*.toml")):
        for rule in file.read_text().split("\n\n[[rule]]"):
            yield f"[[rule]]{rule}".encode()


def _words_of_docs(*pages: str) -> tuple[str, ...]:
    """Return the words in code font of the tables: keys and values."""
    rows = (row for page in pages for row in _TABLE_ROW.findall((_DOCS / page).read_text()))
    words = (word for row in rows for word in row.split("`")[1::2])
    return tuple(dict.fromkeys(word for word in words if _WORD.fullmatch(word)))


_RULE_TOKENS = (
    "[[rule]]",
    "[[override]]",
    "{process}",
    "{value}",
    " / ",
    " * ",
    '"10s"',
    "1e308",
    "warning",
    "critical",
)


# -------------------------------------------------------------------------------------------------------------- control


@contextlib.contextmanager
def open_control(folder: Path) -> Iterator[FuzzFunction]:
    """Send a request to the control socket of a store with one notification."""
    problems: list[logging.LogRecord] = []
    log = logging.getLogger("fuzz")
    handler = logging.Handler()
    handler.emit = problems.append  # type: ignore[method-assign]
    log.addHandler(handler)
    store = _store_with_content(folder)
    clock, alert = SystemClock(), factories.make_alert()
    silenced = SilencedAlerts(lambda: {alert.fingerprint: alert}, lambda: ROUTE_DIMENSIONS)
    handlers = {
        **notification_handlers(store.database, clock, lambda: ("oncall",)),
        **silence_handlers(store.silences, silenced, clock),
    }
    server = ControlServer(Listener.at(folder / "socket"), handlers, log)
    server.start()

    def ask(data: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / "socket"))
            answer = b""
            with contextlib.suppress(ConnectionError, BrokenPipeError):  # refused before all was sent
                client.sendall(data[: len(data) // 2])
                client.sendall(data[len(data) // 2 :])
                client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while chunk := client.recv(65_536):
                    answer += chunk
        if problems:
            text = logging.Formatter().format(problems.pop())
            raise AssertionError(text)
        if answer:
            with contextlib.suppress(WatchdogError):
                parse_response(answer)

    yield ask
    server.stop()
    store.close()


def _control_seeds() -> Iterable[bytes]:
    yield pack_request(Request("notifications list", {"receiver": "oncall", "state": "pending", "limit": 50}))
    yield pack_request(Request("notifications show", {"notification_id": "5f0c"}))
    yield pack_request(Request("notifications retry", {"notification_ids": ["5f0c", "a"]}))
    add = {"matchers": ['process=~"c.*"', "unit!=a"], "duration": "2h", "comment": "x", "author": "me"}
    yield pack_request(Request("silence add", add))
    yield pack_request(Request("silence list", {}))
    yield pack_request(Request("silence expire", {"ids": ["a"]}))
    yield pack_request(Request("ack", {"fingerprint": "0123", "comment": "x"}))
    yield b"[" * 5_000


# ------------------------------------------------------------------------------------------------------------------ BTF

_ANONYMOUS, _MEMBER = 0, "pid"


@contextlib.contextmanager
def open_btf(_folder: Path) -> Iterator[FuzzFunction]:
    """Look up types in BTF data, parsed by libbpf."""
    lib = library()
    lib.libbpf_set_print.argtypes = [ct.c_void_p]
    lib.libbpf_set_print(None)
    lib.btf__new.argtypes, lib.btf__new.restype = [ct.c_char_p, ct.c_uint32], ct.c_void_p
    lib.btf__free.argtypes = [ct.c_void_p]
    lib.libbpf_get_error.argtypes, lib.libbpf_get_error.restype = [ct.c_void_p], ct.c_long

    def look_up(data: bytes) -> None:
        handle = lib.btf__new(data, len(data))
        if not handle or lib.libbpf_get_error(handle):
            return
        btf = object.__new__(Btf)  # its constructor takes the BTF of the running kernel only
        btf._lib, btf._btf = lib, handle
        try:
            for look_up_one in (
                lambda: btf.member_offset("task", _MEMBER),
                lambda: btf.enumerator_value("color", "red"),
                lambda: btf.require_helper("loop"),
                lambda: btf.struct_size("task"),
                lambda: btf.function_id("f"),
            ):
                with contextlib.suppress(KernelUnfit):
                    look_up_one()
        finally:
            lib.btf__free(handle)

    yield look_up


def make_btf(types: list[tuple[str, int, int, bytes]]) -> bytes:
    """Return BTF data with the types (name, kind and count, size or type, rest), numbered from 1."""
    strings, encoded = b"\0", b""
    for name, info, size, rest in types:
        at = len(strings) if name else 0
        strings += name.encode() + b"\0" if name else b""
        encoded += struct.pack("<III", at, info, size) + rest
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(encoded), len(encoded), len(strings))
    return header + encoded + strings


def _btf_seeds() -> Iterable[bytes]:
    struct_of_one, enum_of_one, union_of_one = 4 << 24 | 1, 6 << 24 | 1, 5 << 24 | 1
    number = ("int", 1 << 24, 4, struct.pack("<I", 32))
    yield make_btf([number, ("task", struct_of_one, 4, struct.pack("<III", 1, 1, 0)), ("pid", 1 << 24, 4, b"\0\0\0\0")])
    yield make_btf(
        [
            number,
            ("", union_of_one, 4, struct.pack("<III", 1, 1, 0)),
            ("task", struct_of_one, 4, struct.pack("<III", 0, 2, 0)),
            ("color", enum_of_one, 4, struct.pack("<Ii", 1, 7)),
            ("", 8 << 24, 2, b""),
        ]
    )
    # A struct that contains itself without a name, and a type definition of itself.
    yield make_btf([number, ("task", struct_of_one, 4, struct.pack("<III", 0, 2, 0))])
    yield make_btf([("", 8 << 24, 1, b""), ("task", struct_of_one, 4, struct.pack("<III", 0, 1, 0))])


# ---------------------------------------------------------------------------------------------------- /proc and cgroups


@contextlib.contextmanager
def open_proc(folder: Path) -> Iterator[FuzzFunction]:
    """Read the texts of a process, of its cgroup, and of the sockets of the host."""
    files = (
        folder / str(_PID) / "stat",
        folder / str(_PID) / "cmdline",
        folder / str(_PID) / "cgroup",
        folder / "net" / "sockstat",
        folder / "ip_local_port_range",
        folder / "ip_local_reserved_ports",
    )
    for name in (str(_PID), "net", "ns", "cgroups"):
        (folder / name).mkdir()
    (folder / "ns" / "net").touch()
    reader = HostSocketsReader(folder, folder)

    def read(data: bytes) -> None:
        for file, part in zip(files, split(data, len(files)), strict=True):
            file.write_bytes(part)
        process = read_process(_PID, None, folder, lambda _pid: False)
        Cgroups(folder, folder / "cgroups").find_path(_PID, 0, 0, 0)
        found = reader.read()
        assert found is None or found.is_ephemeral.shape == (65_536,)
        assert process is None or len(process.parents) <= 5

    yield read
    reader.close()


def _proc_seeds() -> Iterable[bytes]:
    stat = f"{_PID} (a (b) c) S 1 {' '.join(map(str, range(30)))}".encode()
    sockstat = b"sockets: used 10\nTCP: inuse 8 orphan 0 tw 3 alloc 9 mem 1\n"
    cgroup = b"12:pids:/a\n1:name=systemd:/system.slice/ssh.service\n0::/system.slice/ssh.service\n"
    yield SEPARATOR.join((stat, b"/bin/a\0-b\0", cgroup, sockstat, b"32768\t60999\n", b"40000,50000-50010\n"))
    yield SEPARATOR.join((stat.replace(str(_PID).encode(), b"x"), b"", b"0::/\n", b"TCP: a b c", b"60999 1", b"-,a"))


@contextlib.contextmanager
def open_cgroup_path(_folder: Path) -> Iterator[FuzzFunction]:
    """Find unit, container and owner in the path of a group."""

    def find(data: bytes) -> None:
        path = data.decode("utf-8", "surrogateescape")
        for service_user in (0, 1_000):
            place = find_place(path, service_user)
            assert place.unit.count("/") <= 4
            assert place.container.count("/") <= 4
        find_place.cache_clear()

    yield find


def _cgroup_seeds() -> Iterable[bytes]:
    digits = b"0123456789abcdef" * 4
    yield b"/system.slice/ssh.service"
    yield b"/user.slice/user-1000.slice/user@1000.service/app.slice/app-a.scope/x.service"
    yield b"/system.slice/docker-%b.scope/init.scope" % digits
    yield b"/kubepods.slice/kubepods-burstable.slice/kubepods-pod1.slice/cri-containerd-%b.scope" % digits
    yield b"/lxc.payload.web\\x2d1/system.slice/a.service"
    yield b"/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt"
    yield b"/../../a.service"


# ----------------------------------------------------------------------------------------------------------- state file

_PATCH = struct.Struct("<HHB")  # page, offset in it, and number of bytes that follow


@contextlib.contextmanager
def open_state(folder: Path) -> Iterator[FuzzFunction]:
    """Open a state file with changed bytes, as the daemon does: check, salvage, load, write, read."""
    log = logging.getLogger("watchdog")
    was_disabled, log.disabled = log.disabled, True
    (folder / "base").mkdir()
    _store_with_content(folder / "base").close()
    base = (folder / "base" / STATE_FILE_NAME).read_bytes()
    state = folder / "state"

    def open_damaged(data: bytes) -> None:
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        (state / STATE_FILE_NAME).write_bytes(_patched(base, data))
        try:
            store = Store(state, SystemClock(), "boot")
        except StoreError:
            return
        try:
            with contextlib.suppress(StoreError):
                store.load()
                store.commit(alerts=(), groups=(), notifications=(factories.make_notification(id="b" * 32),))
        finally:
            store.close()

    yield open_damaged
    log.disabled = was_disabled


def _patched(base: bytes, data: bytes) -> bytes:
    content = bytearray(base)
    at = 0
    while at + _PATCH.size <= len(data):
        page, offset, count = _PATCH.unpack_from(data, at)
        at += _PATCH.size
        start = (page * 4_096 + offset % 4_096) % len(base)
        new = data[at : at + count][: len(base) - start]
        content[start : start + len(new)] = new
        at += count
    if at < len(data):  # an incomplete patch cuts the file
        del content[len(base) * data[at] // 256 :]
    return bytes(content)


def _state_seeds() -> Iterable[bytes]:
    yield b""
    yield b"\x80"
    for page in (0, 1, 2, 5, 9, 14):
        yield _PATCH.pack(page, 0, 8) + b"\xff" * 8
        yield _PATCH.pack(page, 8, 2) + b"\x10\x00" + _PATCH.pack(page, 4_000, 4) + b"\xff\xff\xff\xff"
    yield _PATCH.pack(0, 60, 4) + b"\0\0\0\x63"  # user_version
    yield _PATCH.pack(0, 18, 2) + b"\x03\x03"  # version of the file format


def _store_with_content(folder: Path) -> Store:
    store = Store(folder, SystemClock(), "boot")
    alerts = [factories.make_alert(labels=(("process", f"p{number}"),)) for number in range(40)]
    store.commit(
        alerts=[(alert.fingerprint, {"number": 1}) for alert in alerts],
        groups=(),
        notifications=[factories.make_notification(alert, id=f"{number:032x}") for number, alert in enumerate(alerts)],
    )
    store.database.checkpoint()
    return store


FILE_TARGETS = {
    "rules": FuzzTarget(open_rules, _rule_seeds, (*_RULE_TOKENS, *_words_of_docs("rules.md"), *METRICS, *DIMENSIONS)),
    "settings": FuzzTarget(
        open_settings,
        lambda: _toml_of_docs("receivers.md", "configuration.md", "delivery.md", "operations.md", "silences.md"),
        ("[[receiver]]", "[[route]]", *SETTINGS_TABLES, *_words_of_docs("receivers.md", "configuration.md")),
    ),
    "control": FuzzTarget(
        open_control, _control_seeds, ("notification_ids", "limit", "request", "arguments", "null"), max_bytes=70_000
    ),
    "btf": FuzzTarget(open_btf, _btf_seeds, ("task", "pid", "color", "red"), max_bytes=1_024),
    "proc": FuzzTarget(open_proc, _proc_seeds, (SEPARATOR.decode(), "TCP:", "tw", "orphan", "0::/"), max_bytes=2_048),
    "cgroup": FuzzTarget(
        open_cgroup_path, _cgroup_seeds, (".service", ".scope", "user-1.slice", "user@1.service", "\\x2d"), 1_024
    ),
    "state": FuzzTarget(open_state, _state_seeds, max_bytes=512),
}
