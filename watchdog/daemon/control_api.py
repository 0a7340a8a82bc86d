"""The requests that the running daemon answers on its control socket: one group of handlers per subject."""

from __future__ import annotations

from collections.abc import Callable

from watchdog.clock import SECOND_NS
from watchdog.control.alert_handlers import alert_handlers
from watchdog.control.baseline_handlers import baseline_handlers
from watchdog.control.notification_handlers import notification_handlers
from watchdog.control.reload_handler import ReloadAnswer, reload_handlers
from watchdog.control.rule_handlers import rule_handlers
from watchdog.control.server import Handler, RequestHandler
from watchdog.control.silence_handlers import SilencedAlerts, silence_handlers
from watchdog.control.status_handlers import status_handlers
from watchdog.control.traffic_handler import traffic_handlers
from watchdog.daemon.active_alerts import ActiveAlerts
from watchdog.daemon.baseline_control import BaselineControl
from watchdog.daemon.configuration import Configuration
from watchdog.daemon.explaining import explain
from watchdog.daemon.pipeline import Pipeline
from watchdog.daemon.rule_states import RuleStates, list_effective
from watchdog.daemon.status_report import DaemonFacts, StatusReport
from watchdog.state.store import Store
from watchdog.storage.reader import StateReader


class ControlApi:
    """Makes the answers; its methods run in the thread of the control socket."""

    def __init__(
        self,
        pipeline: Pipeline,
        store: Store,
        facts: DaemonFacts,
        configuration: Configuration,
        reload: Callable[[bool], ReloadAnswer],
    ) -> None:
        """Answer about `pipeline`; `facts`: about the process around it; `reload(dry_run)`: reads the files again."""
        clock = facts.clock
        self._facts = facts
        self._reload = reload
        self._store = store
        self._silenced = SilencedAlerts(lambda: pipeline.firing, lambda: pipeline.matcher_dimensions)
        self._clock = clock
        self.configuration = configuration
        """The configuration in force."""
        self._pipeline = pipeline
        self._reader = reader = StateReader(store.database.path)
        self.alerts = ActiveAlerts(pipeline, clock, reader)
        """Pending and firing alerts."""
        self._rules = RuleStates(pipeline, clock)
        self.status = StatusReport(pipeline, facts, configuration, reader)

    def take_configuration(self, configuration: Configuration) -> None:
        """Take the configuration of an accepted reload."""
        self.configuration = configuration
        self.status.take_configuration(configuration)

    def handlers(self) -> dict[str, RequestHandler | Handler]:
        """Return the handler of each request, by its name."""
        return {
            **notification_handlers(self._store.database, self._clock, lambda: tuple(self.configuration.receivers)),
            **silence_handlers(self._store.silences, self._silenced, self._clock),
            **status_handlers(self.status.read),
            **reload_handlers(self._reload),
            **baseline_handlers(BaselineControl(self._pipeline)),
            **alert_handlers(self.alerts.list_alerts, self.alerts.read_alert),
            **traffic_handlers(
                self._pipeline.traffic.read,
                self.alerts.list_without_receivers,
                lambda: self._facts.host.current,
                lambda: self._facts.tick_loop.interval_ns / SECOND_NS,
            ),
            **rule_handlers(
                lambda: self._rules.list_rules(self.configuration),
                lambda: list_effective(self.configuration),
                lambda rule, labels: explain(self._pipeline, self._reader, self._clock, rule, labels),
            ),
        }
