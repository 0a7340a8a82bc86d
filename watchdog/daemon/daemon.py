"""The daemon: start in an order that ends without privileges, run by the scheduler, obey signals, stop in time."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from watchdog import __version__
from watchdog.clock import Clock, boot_id
from watchdog.config.durations import format_duration
from watchdog.control import notification_handlers, socket_path
from watchdog.control.listener import Listener
from watchdog.control.server import Server
from watchdog.control.socket_path import ControlError
from watchdog.daemon.configuration import Setup, Sources, read_setup, rule_ids
from watchdog.daemon.heartbeat import Heartbeat, Rules
from watchdog.daemon.log_writer import LogWriter
from watchdog.daemon.malloc import give_back_all
from watchdog.daemon.pipeline import Guard, RulesFailed
from watchdog.errors import StoreError, WatchdogError
from watchdog.kernel import privileges
from watchdog.kernel.startup import require_privileges, start_collector
from watchdog.rules.language.ruleset_hash import digest
from watchdog.scheduling.scheduler import Scheduler, Tick
from watchdog.scheduling.tick_loop import Rhythm
from watchdog.state.delivery_status import unreached
from watchdog.state.store import Store
from watchdog.storage.folder import FILE_NAME, prepare_folder
from watchdog.storage.reader import Reader
from watchdog.systemd import Systemd

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_log = logging.getLogger("watchdog")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    sources: Sources
    state_folder: Path
    control: Path


class Daemon:
    """Runs until SIGTERM or SIGINT; SIGHUP reads files again."""

    def __init__(self, options: Options, clock: Clock, writer: LogWriter) -> None:
        """Keep what to do; nothing is opened before `run`, and the log's `writer` not started."""
        self._options = options
        self._clock = clock
        self._writer = writer
        self._systemd = Systemd(os.environ)
        self._scheduler = Scheduler(clock, _log)
        self._rhythm = Rhythm(self._scheduler, self._systemd, clock, _log)
        self._host = socket.gethostname()
        self._receivers: tuple[str, ...] = ()
        self._heartbeat = Heartbeat(self._host, self._unreached, clock, _log)

    def run(self) -> int:
        """Guard; return the exit code.

        Raises:
            ConfigError, KernelUnfit, NotPermitted, StoreError: the daemon cannot start; nothing is left behind.
        """
        # Blocked in every thread to come, so that they are taken by sigwait() alone.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        require_privileges()
        setup = read_setup(self._options.sources)
        folder = self._options.state_folder
        self._prepare_folders()
        collector = start_collector(self._clock, setup.config.sampling.capacities)
        self._writer.start()
        self._rehearse_reload()
        store = Store(folder, self._clock, boot_id())
        store.reserve()
        guard = Guard(collector, store, setup, self._host, self._clock)
        open_now = guard.start()
        self._introduce(setup, open_now, folder, guard.restored)
        control = self._listen(store)
        self._follow(setup)
        give_back_all()
        self._rhythm.start(lambda tick: self._tick(guard, tick), setup.interval_ns)
        self._scheduler.start()
        self._systemd.ready()
        self._obey(guard)
        self._systemd.stopping()
        self._scheduler.stop(1.0)
        self._heartbeat.stop()
        if control is not None:
            control.stop()
        guard.stop()
        _log.info("stopped; what was not delivered waits in %s", folder / FILE_NAME)
        return 0

    def _prepare_folders(self) -> None:
        account = privileges.account() if os.geteuid() == 0 else None
        prepare_folder(self._options.state_folder, account)
        if account is not None:
            with contextlib.suppress(ControlError):  # told when it is missed
                socket_path.prepare_folder(self._options.control, account)

    def _listen(self, store: Store) -> Server | None:
        # Not as root any more, so that the socket is the account's. A guard that nobody can ask still guards.
        try:
            listener = Listener.at(self._options.control)
        except ControlError as error:
            _log.error("%s; until then, commands cannot ask this daemon", error)
            return None
        control = Server(listener, notification_handlers.handlers(store.database, self._clock), _log)
        control.start()
        return control

    def _unreached(self) -> list[str]:
        reader = Reader(self._options.state_folder / FILE_NAME)
        return unreached(reader, self._receivers, self._clock)

    def _follow(self, setup: Setup) -> None:
        self._receivers = tuple(setup.receivers)
        self._heartbeat.follow(setup.heartbeat, Rules(len(setup.rules), digest(setup.rules)))

    def _tick(self, guard: Guard, tick: Tick) -> None:
        good = False
        try:
            guard.tick(tick)
            good = True
        except (StoreError, RulesFailed):
            # The sample was good. To be started anew would free no room on the disk, mend no rule, and lose what waits
            # in memory.
            self._systemd.watchdog()
            raise
        finally:
            self._heartbeat.tick_ended(good=good, interval_ns=self._rhythm.interval_ns)
        self._systemd.watchdog()

    def _rehearse_reload(self) -> None:
        # As the account, by now: what root could read is not always readable to it.
        try:
            read_setup(self._options.sources)
        except (WatchdogError, OSError) as error:
            _log.warning("a reload (SIGHUP) would be refused, though the start was not:\n%s", error)

    def _obey(self, guard: Guard) -> None:
        while signal.sigwait(_SIGNALS) == signal.SIGHUP:
            self._systemd.reloading()
            try:
                self._reload(guard)
            except Exception:  # noqa: BLE001 - an edge: nothing that stands in a file may end the guard
                _log.exception("the reload failed, guarding goes on")
            self._systemd.ready()

    def _reload(self, guard: Guard) -> None:
        try:
            fresh = read_setup(self._options.sources)
        except WatchdogError as error:
            _log.error("reload refused, the old rules stay in force:\n%s", error)
            return
        guard.reload(fresh)
        self._rhythm.reset(fresh.interval_ns)
        self._follow(fresh)
        _log.info("reloaded: %d rules from %s", len(fresh.rules), fresh.rules_from)

    def _introduce(self, setup: Setup, open_now: int, folder: Path, restored: int) -> None:
        interval = format_duration(setup.interval_ns)
        kept = ", ".join(map(privileges.name, sorted(privileges.effective())))
        who = f"{privileges.own_account()} {f'with {kept}' if kept else 'without capabilities'}, pid {os.getpid()}"
        by_routes = f", unless a route matches ({len(setup.routes)})" if setup.routes else ""
        lines = [
            f"bpf-watchdog {__version__} guards {self._host}: all TCP connections ({open_now} now), every {interval}",
            f"rules:   {len(setup.rules)} from {setup.rules_from}: {rule_ids(setup.rules)}",
            *(f"notices: {receiver.name}: {receiver.destination()}" for receiver in setup.receivers.values()),
            f"         rules that name no receiver go to {', '.join(setup.config.routing.default)}{by_routes}",
            f"state:   {folder / FILE_NAME}" + (f", {restored} alerts still firing from before" if restored else ""),
            f"runs as {who}; Ctrl-C stops, SIGHUP reads the files again",
        ]
        for line in lines:
            _log.info("%s", line)
        for note in setup.notes:
            _log.info("%s", note)
        self._systemd.status(f"guarding by {len(setup.rules)} rules")
