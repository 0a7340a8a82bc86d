"""The daemon process: start, give up privileges, run ticks, handle signals, stop within twenty seconds."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from watchdog import __version__
from watchdog.clock import SECOND_NS, Clock, boot_id
from watchdog.config.counts import format_count
from watchdog.config.durations import format_duration
from watchdog.config.settings import Settings
from watchdog.config.web_settings import WebSettings
from watchdog.control import socket_path
from watchdog.control.listener import Listener
from watchdog.control.reload_handler import ReloadAnswer
from watchdog.control.server import ControlServer
from watchdog.control.socket_path import ControlError
from watchdog.control.status_handlers import ReloadStatus
from watchdog.daemon.configuration import (
    Configuration,
    ConfigurationSources,
    changed_restart_keys,
    format_rule_ids,
    read_configuration,
)
from watchdog.daemon.control_api import ControlApi
from watchdog.daemon.heartbeat import Heartbeat, RulesInForce
from watchdog.daemon.host_name import HostName
from watchdog.daemon.last_good import LastGood
from watchdog.daemon.log_writer import LogWriter
from watchdog.daemon.malloc import release_free_memory
from watchdog.daemon.pipeline import Pipeline, RuleErrors
from watchdog.daemon.reload_alert import Refusal
from watchdog.daemon.reload_effects import reload_changes
from watchdog.daemon.status_report import DaemonFacts
from watchdog.daemon.stop_request import STOP_SIGNALS, StopRequested, stopping_at_signals
from watchdog.errors import ConfigError, StoreError, TemporaryFailure, WatchdogError
from watchdog.kernel import privileges
from watchdog.kernel.collector import Collector, ProgramRuns
from watchdog.kernel.handover import STEP_LIMIT_SECONDS
from watchdog.kernel.startup import require_privileges, start_collector
from watchdog.kernel.trusted_code import require_trusted_code
from watchdog.receivers.base import open_volatile_state
from watchdog.receivers.render.evidence_text import utc_text
from watchdog.rules.language.ruleset_hash import ruleset_hash
from watchdog.scheduling.scheduler import ScheduledTick, Scheduler
from watchdog.scheduling.tick_loop import TickLoop
from watchdog.state.receiver_state import ReceiverStates
from watchdog.state.store import Store
from watchdog.storage.damage import is_shortage
from watchdog.storage.folder import STATE_FILE_NAME, prepare_folder
from watchdog.systemd import Systemd

if TYPE_CHECKING:  # loaded with [web] only
    from watchdog.daemon.metrics_endpoint import MetricsEndpoint

# From one reported step of the start to the next one: systemd must not end it before the loader's own limit.
_START_STEP_SECONDS = STEP_LIMIT_SECONDS + 60
_SWITCH_SECONDS = 0.0002  # while a configuration is read; Python's default is 0.005
_SIGNALS = {*STOP_SIGNALS, signal.SIGHUP}
_log = logging.getLogger("watchdog")


@dataclass(frozen=True, slots=True)
class DaemonOptions:
    """The options of the command line."""

    sources: ConfigurationSources
    state_folder: Path
    control_socket: Path


class Daemon:
    """Runs until SIGTERM or SIGINT; SIGHUP reloads the configuration."""

    def __init__(self, options: DaemonOptions, clock: Clock, log_writer: LogWriter) -> None:
        """Open nothing before `run`, which also starts `log_writer`."""
        self._options = options
        self._clock = clock
        self._log_writer = log_writer
        self._systemd = Systemd(os.environ)
        self._is_ready = False  # whether a sample was evaluated, and systemd has got READY=1 for start or reload
        self._scheduler = Scheduler(clock, _log)
        self._status, self._shown_status = "", ""  # for `systemctl status`: about the rules; the newest text sent
        self._tick_loop = TickLoop(self._scheduler, self._systemd, clock, _log)
        self._host = HostName()
        self._receiver_states = ReceiverStates(clock)
        self._pipeline: Pipeline | None = None
        self._api: ControlApi | None = None
        self._last_good = LastGood(options.state_folder, options.sources)
        self._metrics: MetricsEndpoint | None = None
        self._reloading = threading.Lock()  # by a signal, or by a request on the control socket
        self._heartbeat = Heartbeat(self._host, self._problems, clock, _log)

    def run(self) -> int:
        """Run until a signal; return the exit code.

        Raises:
            ConfigError, KernelUnfit, NotPermitted, StoreError, TemporaryFailure, UntrustedCode: the daemon cannot
                start; everything is closed again.
        """
        # Blocked in every later thread, so that only sigwait() receives them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            with stopping_at_signals():
                configuration, refusal, collector = self._load()
        except StopRequested:
            self._systemd.notify_stopping()
            _log.info("stopped during the start")
            return 0
        self._log_writer.start()
        if refusal is None:
            self._check_reload()
        pipeline, store = self._create_pipeline(configuration, collector)
        facts = DaemonFacts(self._tick_loop, self._heartbeat, self._host, self._clock)
        started = configuration.settings
        self._api = ControlApi(
            pipeline, store, facts, configuration, lambda dry_run: self._reload(pipeline, started, dry_run=dry_run)
        )
        self._take_configuration(configuration, refusal)
        if refusal is not None:
            self._report_refusal(pipeline, refusal, None)
        control = self._listen(self._api)
        web = started.web
        is_counted = web is not None and web.bpf_stats and not collector.run_times_problem
        self._serve_metrics(web, pipeline, self._api, collector.program_runs if is_counted else None)
        self._set_heartbeat(configuration)
        release_free_memory()
        self._tick_loop.start(lambda tick: self._tick(pipeline, tick), configuration.interval_ns)
        self._scheduler.start()
        self._handle_signals(pipeline, started)
        self._stop(pipeline, control)
        return 0

    def _create_pipeline(self, configuration: Configuration, collector: Collector) -> tuple[Pipeline, Store]:
        """Open the state file, and read the first sample."""
        self._report_step("opening the state file")
        store = self._open_store()
        self._receiver_states.attach(store.database)
        store.reserve_space()
        pipeline = self._pipeline = Pipeline(
            collector, store, configuration, self._host, self._clock, self._systemd.notify_watchdog
        )
        self._report_step("reading the first sample")
        open_connections = pipeline.start()
        self._log_start(configuration, open_connections, self._options.state_folder, pipeline.restored_alert_count)
        self._report_rules_in_force(pipeline, configuration)
        if problem := collector.connect_errors_problem:
            _log.info("connects that fail before their first packet are not all counted: reason=%s", problem)
        if problem := collector.run_times_problem:
            _log.warning(
                "run time of BPF programs not counted, see bpf_stats in docs/prometheus.md: reason=%s", problem
            )
        return pipeline, store

    def _stop(self, pipeline: Pipeline, control: ControlServer | None) -> None:
        self._systemd.notify_stopping()
        self._scheduler.stop(1.0)
        self._heartbeat.stop()
        if control is not None:
            control.stop()
        if self._metrics is not None:
            self._metrics.stop()
        _log_stop(pipeline.stop(), self._options.state_folder)

    def _load(self) -> tuple[Configuration, Refusal | None, Collector]:
        """Read the files, load the programs, and give up privileges; no thread is started.

        Also returns the refusal of the files, where the configuration is the last good one.
        """
        self._report_step("reading the files")
        require_privileges()
        require_trusted_code()
        configuration, refusal = self._read_at_start()
        self._log_writer.use_format(configuration.settings.log.format)
        self._prepare_folders()
        settings = configuration.settings
        counts_runs = settings.web is not None and settings.web.bpf_stats
        collector = start_collector(self._clock, settings.sampling.map_sizes, self._report_step, count_runs=counts_runs)
        return configuration, refusal, collector

    def _prepare_folders(self) -> None:
        account = privileges.service_account() if os.geteuid() == 0 else None
        prepare_folder(self._options.state_folder, account)
        if account is not None:
            with contextlib.suppress(ControlError):  # logged by _listen()
                socket_path.prepare_socket_folder(self._options.control_socket, account)

    def _open_store(self) -> Store:
        try:
            return Store(self._options.state_folder, self._clock, boot_id())
        except StoreError as error:
            if is_shortage(error.__cause__):
                raise TemporaryFailure(error.text, remedy=error.remedy) from error
            raise

    def _listen(self, api: ControlApi) -> ControlServer | None:
        # Not as root any more, so that the socket belongs to the account. Without a socket the daemon still works.
        try:
            listener = Listener.at(self._options.control_socket)
        except ControlError as error:
            _log.error("control socket unavailable, commands cannot reach this daemon: error=%s", error)
            return None
        control = ControlServer(listener, api.handlers(), _log)
        control.start()
        return control

    def _serve_metrics(
        self,
        settings: WebSettings | None,
        pipeline: Pipeline,
        api: ControlApi,
        program_runs: Callable[[], Mapping[str, ProgramRuns]] | None,
    ) -> None:
        if settings is None:
            return
        from watchdog.daemon.metrics_endpoint import MetricsEndpoint

        self._metrics = MetricsEndpoint(settings, pipeline, api, self._host, self._clock, _log, program_runs)
        self._metrics.start()

    def _problems(self) -> list[str]:
        return [] if self._pipeline is None else self._pipeline.problems()

    def _set_heartbeat(self, configuration: Configuration) -> None:
        rules = RulesInForce(len(configuration.rules), ruleset_hash(configuration.rules))
        self._heartbeat.set_target(configuration.heartbeat, rules)

    def _tick(self, pipeline: Pipeline, tick: ScheduledTick) -> None:
        succeeded, began_ns = False, self._clock.boottime_ns()
        try:
            pipeline.run_tick(tick)
            succeeded = True
        except (StoreError, RuleErrors):
            # The sample was evaluated. A restart would neither free disk space nor repair a rule, and would lose the
            # changes that are kept in memory.
            self._report_good_sample(pipeline)
            raise
        finally:
            if self._metrics is not None:
                self._metrics.durations.add((self._clock.boottime_ns() - began_ns) / SECOND_NS)
            self._heartbeat.record_tick(succeeded=succeeded, interval_ns=self._tick_loop.interval_ns)
        self._report_good_sample(pipeline)

    def _report_good_sample(self, pipeline: Pipeline) -> None:
        """Report to systemd that the daemon works, and after the first sample that its start has finished."""
        if not self._is_ready:
            # Again at the next sample where systemd's socket is full: without this message the start would time out.
            self._is_ready = True  # before systemd can answer with a reload
            if not self._systemd.notify_ready(0.0):
                self._is_ready = False
        self._systemd.notify_watchdog()
        self._show_status(pipeline, 0.0)

    def _show_status(self, pipeline: Pipeline, wait_seconds: float = 1.0) -> None:
        """Show rules and problems of delivery in `systemctl status`, if they have changed."""
        text = "; ".join([self._status, *pipeline.delivery_problems()])
        if text != self._shown_status and self._systemd.notify_status(text, wait_seconds):
            self._shown_status = text

    def _report_step(self, step: str) -> None:
        self._systemd.notify_start_step(step, _START_STEP_SECONDS)

    def _read_at_start(self) -> tuple[Configuration, Refusal | None]:
        """Read the files; if they are broken, the last good configuration, with the refusal of the files.

        Raises:
            ConfigError: the files are broken, and there is no last good configuration of them.
        """
        try:
            return read_configuration(self._options.sources, self._receiver_states.open), None
        except ConfigError as error:
            configuration = self._last_good.read(self._receiver_states.open)
            if configuration is None:
                raise
            _log.error("the files have problems, the daemon starts on its last good configuration:\n%s", error)
            return configuration, Refusal.from_error(error, is_start=True)

    def _take_configuration(self, configuration: Configuration, refusal: Refusal | None = None) -> None:
        """Show `configuration` to commands; save its files as the last good ones, unless they are these already."""
        if self._api is not None:
            self._api.take_configuration(replace(configuration, texts=None))
        if refusal is None and configuration.texts is not None:
            try:
                self._last_good.save(configuration.texts)
            except OSError as error:
                _log.warning("last good configuration not saved: error=%s", error)

    def _check_reload(self) -> None:
        # The process runs as the account now, which may not be able to read all that root could.
        try:
            read_configuration(self._options.sources, self._receiver_states.open)
        except (WatchdogError, OSError) as error:
            _log.warning(
                "a reload (SIGHUP) would be refused: the account cannot read what root read at the start\n%s", error
            )

    def _handle_signals(self, pipeline: Pipeline, started: Settings) -> None:
        while signal.sigwait(_SIGNALS) == signal.SIGHUP:
            # systemd expects neither message before the start has finished, and would take the second one for its end.
            is_expected = self._is_ready
            if is_expected:
                self._systemd.notify_reloading()
            try:
                self._reload(pipeline, started)
            except Exception:  # noqa: BLE001 - an edge: no content of a file may end the daemon
                _log.exception("reload failed")
            if is_expected and not self._systemd.notify_ready():
                self._is_ready = False  # the next sample sends it

    def _reload(self, pipeline: Pipeline, started: Settings, *, dry_run: bool = False) -> ReloadAnswer:
        """Read all files again and use them, unless they have problems; with `dry_run`, change nothing."""
        with self._reloading:
            try:
                with _yielding():
                    open_state = open_volatile_state if dry_run else self._receiver_states.open
                    configuration = read_configuration(self._options.sources, open_state)
                return self._use(pipeline, started, configuration, dry_run=dry_run)
            except WatchdogError as error:
                problems = error.problems if isinstance(error, ConfigError) else (error,)
                if not dry_run:
                    _log.error("reload refused, the former configuration stays in force:\n%s", error)
                    self._report_refusal(pipeline, Refusal.from_error(error), self._clock.wall())
                return ReloadAnswer(accepted=False, dry_run=dry_run, problems=tuple(map(str, problems)))
            except Exception as error:
                if not dry_run:
                    text = f"defect of bpf-watchdog: {type(error).__name__}, see the log"
                    self._report_refusal(pipeline, Refusal(text), self._clock.wall())
                raise

    def _use(
        self, pipeline: Pipeline, started: Settings, configuration: Configuration, *, dry_run: bool
    ) -> ReloadAnswer:
        keys = changed_restart_keys(started, configuration.settings)
        former = configuration if self._api is None else self._api.configuration
        answer = reload_changes(pipeline, former, configuration, keys, dry_run=dry_run)
        was_refused = self._api is not None and self._api.status.reload.problem is not None
        is_different = any((answer.added, answer.changed, answer.removed, answer.settings))
        answer = replace(answer, due=is_different or was_refused)
        if dry_run:
            return answer
        self._log_writer.use_format(configuration.settings.log.format)
        pipeline.reload(configuration)
        self._take_configuration(configuration)
        if self._api is not None:
            self._api.status.reload = ReloadStatus("accepted", self._clock.wall())
        if keys:
            _log.warning("changed keys take effect at a restart only, former values stay: keys=%s", ",".join(keys))
        self._tick_loop.change_interval(configuration.interval_ns)
        self._set_heartbeat(configuration)
        self._report_rules_in_force(pipeline, configuration)
        counts = len(configuration.rules), configuration.shipped_rules
        _log.info("reloaded: rules=%d shipped=%d from=%s", *counts, configuration.rules_origin)
        return answer

    def _log_start(self, configuration: Configuration, open_connections: int, folder: Path, restored: int) -> None:
        interval = format_duration(configuration.interval_ns)
        count, file = len(configuration.rules), folder / STATE_FILE_NAME
        kept = ", ".join(map(privileges.capability_name, sorted(privileges.effective_capabilities())))
        capabilities = f"with {kept}" if kept else "without capabilities"
        process = f"{privileges.current_account_name()} {capabilities}, pid {os.getpid()}"
        default = ", ".join(configuration.settings.routing.default)
        routes, connections = len(configuration.routes), format_count(open_connections, "TCP connection")
        unless = f", unless a route matches ({format_count(routes, 'route')})" if routes else ""
        firing = f", {format_count(restored, 'alert')} still firing from before the start" if restored else ""
        lines = [
            f"bpf-watchdog {__version__} watches {self._host.current}: {connections}, every {interval}",
            f"rules: {count} from {configuration.rules_origin_text}: {format_rule_ids(configuration.rules)}",
            *(f"receivers: {receiver.name}: {receiver.destination()}" for receiver in configuration.receivers.values()),
            f"alerts of rules without receivers go to {default}{unless}",
            f"state: {file}{firing}",
            f"runs as {process}; Ctrl-C stops, SIGHUP reads the files again",
        ]
        for line in lines:
            _log.info("%s", line)
        for note in configuration.notes:
            _log.info("%s", note)

    def _report_rules_in_force(self, pipeline: Pipeline, configuration: Configuration) -> None:
        reloaded_at = None if self._api is None else self._api.status.reload.at
        since = "" if reloaded_at is None else f", reloaded at {utc_text(reloaded_at)}"
        self._status = f"watching by {format_count(len(configuration.rules), 'rule')}{since}"
        self._show_status(pipeline)

    def _report_refusal(self, pipeline: Pipeline, refusal: Refusal, wall: float | None) -> None:
        """Report a refused reload at `wall`; None: the files were refused at the start."""
        if self._api is not None:
            self._api.status.reload = ReloadStatus("refused", wall, refusal.first_problem())
        at = "" if wall is None else f"{utc_text(wall)}: "
        self._status = f"{at}{refusal.describe()}"
        self._show_status(pipeline)
        pipeline.report_refused_reload(refusal)


@contextlib.contextmanager
def _yielding() -> Iterator[None]:
    """Let the thread of the ticks run within a moment while this one computes: it gets the GIL some thousand times."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _log_stop(pending: int | None, folder: Path) -> None:
    """Log the stop; `pending`: notifications that wait for the next start, None where their number is unknown."""
    if pending == 0:
        _log.info("stopped: no notifications pending")
        return
    count = "unknown" if pending is None else pending
    _log.info(
        "stopped, pending notifications stay in the state file: count=%s file=%s", count, folder / STATE_FILE_NAME
    )
