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
from watchdog.control.server import ControlServer
from watchdog.control.socket_path import ControlError
from watchdog.daemon.configuration import Configuration, ConfigurationSources, format_rule_ids, read_configuration
from watchdog.daemon.heartbeat import Heartbeat, RulesInForce
from watchdog.daemon.log_writer import LogWriter
from watchdog.daemon.malloc import release_free_memory
from watchdog.daemon.pipeline import Pipeline, RuleErrors
from watchdog.errors import StoreError, WatchdogError
from watchdog.kernel import privileges
from watchdog.kernel.startup import require_privileges, start_collector
from watchdog.rules.language.ruleset_hash import ruleset_hash
from watchdog.scheduling.scheduler import ScheduledTick, Scheduler
from watchdog.scheduling.tick_loop import TickLoop
from watchdog.state.delivery_status import delivery_problems
from watchdog.state.receiver_state import ReceiverStates
from watchdog.state.store import Store
from watchdog.storage.folder import STATE_FILE_NAME, prepare_folder
from watchdog.storage.reader import StateReader
from watchdog.systemd import Systemd

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_log = logging.getLogger("watchdog")


@dataclass(frozen=True, slots=True)
class DaemonOptions:
    """What the command line says."""

    sources: ConfigurationSources
    state_folder: Path
    control_socket: Path


class Daemon:
    """Runs until SIGTERM or SIGINT; SIGHUP reads files again."""

    def __init__(self, options: DaemonOptions, clock: Clock, log_writer: LogWriter) -> None:
        """Keep what to do; nothing is opened before `run`, and the log's `writer` not started."""
        self._options = options
        self._clock = clock
        self._writer = log_writer
        self._systemd = Systemd(os.environ)
        self._scheduler = Scheduler(clock, _log)
        self._tick_loop = TickLoop(self._scheduler, self._systemd, clock, _log)
        self._host = socket.gethostname()
        self._receivers: tuple[str, ...] = ()
        self._receiver_states = ReceiverStates(clock)
        self._heartbeat = Heartbeat(self._host, self._unreached, clock, _log)

    def run(self) -> int:
        """Guard; return the exit code.

        Raises:
            ConfigError, KernelUnfit, NotPermitted, StoreError: the daemon cannot start; nothing is left behind.
        """
        # Blocked in every thread to come, so that they are taken by sigwait() alone.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        require_privileges()
        setup = read_configuration(self._options.sources, self._receiver_states.open)
        folder = self._options.state_folder
        self._prepare_folders()
        collector = start_collector(self._clock, setup.settings.sampling.map_sizes)
        self._writer.start()
        self._rehearse_reload()
        store = Store(folder, self._clock, boot_id())
        self._receiver_states.attach(store.database)
        store.reserve_space()
        guard = Pipeline(collector, store, setup, self._host, self._clock)
        open_now = guard.start()
        self._introduce(setup, open_now, folder, guard.restored_alert_count)
        control = self._listen(store)
        self._follow(setup)
        release_free_memory()
        self._tick_loop.start(lambda tick: self._tick(guard, tick), setup.interval_ns)
        self._scheduler.start()
        self._systemd.notify_ready()
        self._obey(guard)
        self._systemd.notify_stopping()
        self._scheduler.stop(1.0)
        self._heartbeat.stop()
        if control is not None:
            control.stop()
        guard.stop()
        _log.info("stopped; what was not delivered waits in %s", folder / STATE_FILE_NAME)
        return 0

    def _prepare_folders(self) -> None:
        account = privileges.service_account() if os.geteuid() == 0 else None
        prepare_folder(self._options.state_folder, account)
        if account is not None:
            with contextlib.suppress(ControlError):  # told when it is missed
                socket_path.prepare_socket_folder(self._options.control_socket, account)

    def _listen(self, store: Store) -> ControlServer | None:
        # Not as root any more, so that the socket is the account's. A guard that nobody can ask still guards.
        try:
            listener = Listener.at(self._options.control_socket)
        except ControlError as error:
            _log.error("%s; until then, commands cannot ask this daemon", error)
            return None
        control = ControlServer(
            listener, notification_handlers.notification_handlers(store.database, self._clock), _log
        )
        control.start()
        return control

    def _unreached(self) -> list[str]:
        reader = StateReader(self._options.state_folder / STATE_FILE_NAME)
        return delivery_problems(reader, self._receivers, self._clock)

    def _follow(self, setup: Configuration) -> None:
        self._receivers = tuple(setup.receivers)
        self._heartbeat.set_target(setup.heartbeat, RulesInForce(len(setup.rules), ruleset_hash(setup.rules)))

    def _tick(self, guard: Pipeline, tick: ScheduledTick) -> None:
        good = False
        try:
            guard.run_tick(tick)
            good = True
        except (StoreError, RuleErrors):
            # The sample was good. To be started anew would free no room on the disk, mend no rule, and lose what waits
            # in memory.
            self._systemd.notify_watchdog()
            raise
        finally:
            self._heartbeat.record_tick(succeeded=good, interval_ns=self._tick_loop.interval_ns)
        self._systemd.notify_watchdog()

    def _rehearse_reload(self) -> None:
        # As the account, by now: what root could read is not always readable to it.
        try:
            read_configuration(self._options.sources, self._receiver_states.open)
        except (WatchdogError, OSError) as error:
            _log.warning("a reload (SIGHUP) would be refused, though the start was not:\n%s", error)

    def _obey(self, guard: Pipeline) -> None:
        while signal.sigwait(_SIGNALS) == signal.SIGHUP:
            self._systemd.notify_reloading()
            try:
                self._reload(guard)
            except Exception:  # noqa: BLE001 - an edge: nothing that stands in a file may end the guard
                _log.exception("the reload failed, guarding goes on")
            self._systemd.notify_ready()

    def _reload(self, guard: Pipeline) -> None:
        try:
            fresh = read_configuration(self._options.sources, self._receiver_states.open)
        except WatchdogError as error:
            _log.error("reload refused, the old rules stay in force:\n%s", error)
            return
        guard.reload(fresh)
        self._tick_loop.change_interval(fresh.interval_ns)
        self._follow(fresh)
        _log.info("reloaded: %d rules from %s", len(fresh.rules), fresh.rules_origin)

    def _introduce(self, setup: Configuration, open_now: int, folder: Path, restored: int) -> None:
        interval = format_duration(setup.interval_ns)
        kept = ", ".join(map(privileges.capability_name, sorted(privileges.effective_capabilities())))
        account, held = privileges.current_account_name(), f"with {kept}" if kept else "without capabilities"
        who = f"{account} {held}, pid {os.getpid()}"
        by_routes = f", unless a route matches ({len(setup.routes)})" if setup.routes else ""
        lines = [
            f"bpf-watchdog {__version__} guards {self._host}: all TCP connections ({open_now} now), every {interval}",
            f"rules:   {len(setup.rules)} from {setup.rules_origin}: {format_rule_ids(setup.rules)}",
            *(f"notices: {receiver.name}: {receiver.destination()}" for receiver in setup.receivers.values()),
            f"         rules that name no receiver go to {', '.join(setup.settings.routing.default)}{by_routes}",
            f"state:   {folder / STATE_FILE_NAME}"
            + (f", {restored} alerts still firing from before" if restored else ""),
            f"runs as {who}; Ctrl-C stops, SIGHUP reads the files again",
        ]
        for line in lines:
            _log.info("%s", line)
        for note in setup.notes:
            _log.info("%s", note)
        self._systemd.notify_status(f"guarding by {len(setup.rules)} rules")
