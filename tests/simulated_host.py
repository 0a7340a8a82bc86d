"""A host that is simulated second by second: a pipeline with a fake clock, a fake collector and a real state file."""

from __future__ import annotations

import threading
import time

import numpy as np

from watchdog.clock import SECOND_NS
from watchdog.config.settings import BUILT_IN_SETTINGS, DocsSettings, RoutingSettings, SamplingSettings, Settings
from watchdog.daemon.configuration import Configuration
from watchdog.daemon.host_name import HostName
from watchdog.daemon.pipeline import Pipeline
from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.kernel.collector import Reading
from watchdog.kernel.executables import Executable
from watchdog.kernel.layout import CONNECTION, DATAGRAMS, DATAGRAMS_KEY, FLAG_CONNECT, RESPONSE, SUMS, SUMS_KEY
from watchdog.kernel.quality import Quality
from watchdog.kernel.totals_map import Totals
from watchdog.measure.catalogue import DIRECTIONS
from watchdog.rules.language.load import load_rules
from watchdog.scheduling.job import ScheduledTick
from watchdog.state.store import Store

PATIENCE = 60.0
CALM, STORM = 0, 10  # connects a tick
HOUR = 3_600
RULE = """\
[[rule]]
id = "{id}"
summary = "{{process}}: {{value}}"
metric = "connects"
stat = "rate"
window = "2s"
by = ["process"]
where = {{ process = "culprit*" }}
fire_above = 5
for = "3s"
keep_firing_for = "3s"
"""


class FakeCollector:
    """Replaces the collector: `connects` connections of one process begin and end in each tick."""

    def __init__(self, clock):
        self.connects = CALM
        self.comm = b"culprit"
        self.flags = FLAG_CONNECT
        self.pid, self.start_ns = 2**22 + 1, 0  # above every possible pid
        self.closed = False
        self.missed_events = 0
        self.complete_pass_requests = 0
        self._clock = clock
        self._last_cookie = 0

    def request_complete_pass(self):
        self.complete_pass_requests += 1

    def read(self):
        rows = np.zeros(self.connects, CONNECTION)
        rows["cookie"] = self._last_cookie + 1 + np.arange(self.connects)
        self._last_cookie += self.connects
        rows["born_ns"] = rows["ended_ns"] = self._clock.boottime_ns()
        rows["flags"], rows["direction"], rows["family"] = self.flags, DIRECTIONS.index("out"), 2
        rows["remote"][:, 10:] = 255, 255, 192, 0, 2, 7
        rows["owner"]["tgid"], rows["owner"]["comm"] = self.pid, self.comm
        rows["owner"]["start_ns"] = self.start_ns
        return Reading(
            at_ns=self._clock.boottime_ns(),
            live=np.empty(0, CONNECTION),
            closed=rows,
            sums=Totals(np.empty(0, SUMS_KEY), np.empty(0, SUMS)),
            responses=np.empty(0, RESPONSE),
            datagrams=Totals(np.empty(0, DATAGRAMS_KEY), np.empty(0, DATAGRAMS)),
            quality=Quality(missed_events=self.missed_events),
        )

    def find_executable(self, pid, start_ns):
        return (
            Executable("/opt/culprit", "8:1", 77, is_deleted=True)
            if (pid, start_ns) == (self.pid, self.start_ns)
            else None
        )

    def enable_message_probes(self):
        return True

    def disable_message_probes(self):
        pass

    def close(self):
        self.closed = True


class FakeReceiver:
    """A receiver that records notifications, and does not answer while `answering` is cleared."""

    refresh_interval_seconds = None
    suppress = True

    def __init__(self, name="oncall"):
        self.name = name
        self.error = None
        self.rate_limit = None
        self.timeout_seconds = 10.0
        self.joins_copies = False
        self.send_resolved = True
        self.source = None
        self.notifications = []
        self.answering = threading.Event()
        self.answering.set()
        self.refusing = False
        self._came = threading.Condition()

    def send(self, notification, deadline_seconds):
        if self.error is not None:
            raise self.error
        with self._came:
            self.notifications.append(notification)
            self._came.notify_all()
        self.answering.wait(PATIENCE)
        if self.refusing:
            raise DeliveryError(DeliveryErrorReason.CLIENT_ERROR, "HTTP 404", retryable=False)

    def wait_for(self, count):
        with self._came:
            assert self._came.wait_for(lambda: len(self.notifications) >= count, PATIENCE), (
                f"{len(self.notifications)} of {count}"
            )

    def wait_for_next(self, seconds):
        """Wait until a further notification comes, but at most for so long."""
        with self._came:
            self._came.wait(seconds)

    def entries(self):
        return [
            (notification.status, notification.reason_text, [alert.rule for alert in notification.alerts])
            for notification in self.notifications
        ]

    def close(self):
        pass


class SimulatedHost:
    """A pipeline on a simulated host, second by second."""

    def __init__(self, folder, clock):
        self.folder, self.clock, self.kernel, self.receiver = folder, clock, FakeCollector(clock), FakeReceiver()
        self.rules = folder / "rules.toml"
        self.others, self.escalations, self.repeat_seconds = {}, {}, 6
        self.pause = threading.Event()
        self.host_name, self.labels, self.rule_labels = "web-1", (), ""
        self.more_rules = ""  # TOML
        self.docs = DocsSettings("https://wiki/#")
        self.host = HostName(lambda: self.host_name)
        self.pipeline = None
        self.begin("storm")

    def configuration(self, *rules):
        self.rules.write_text("".join(RULE.format(id=rule) + self.rule_labels for rule in rules) + self.more_rules)
        self.rules.chmod(0o644)
        loaded = load_rules([self.rules], receivers=["oncall"])
        routing = RoutingSettings(("oncall",), 0, 2 * SECOND_NS, self.repeat_seconds * SECOND_NS, 20 * SECOND_NS)
        config = Settings(
            BUILT_IN_SETTINGS,
            SamplingSettings(),
            routing,
            (),
            escalations=self.escalations,
            labels=self.labels,
            docs=self.docs,
        )
        receivers = {self.receiver.name: self.receiver, **self.others}
        return Configuration(config, SECOND_NS, receivers, loaded.rules, "here", loaded.notes, sources=loaded.sources)

    def begin(self, *rules):
        self.store = Store(self.folder / "state", self.clock, "this boot")
        self.pipeline = Pipeline(self.kernel, self.store, self.configuration(*rules), self.host, self.clock)
        self.pipeline.start()

    def tick(self, connects):
        """Let a second with `connects` connections pass; return once all due notifications are delivered."""
        self.clock.advance(1)
        self.kernel.connects = connects
        now_ns = self.clock.boottime_ns()
        self.pipeline.run_tick(ScheduledTick(now_ns, now_ns, 0.0, 0))
        self.settle()

    def settle(self):
        """Return once all due notifications are delivered; after a failed tick, the test does this."""
        if self.others:
            return  # some don't answer
        end = time.monotonic() + PATIENCE
        while (made := self._count_made()) > len(self.receiver.notifications):
            assert time.monotonic() < end, f"{len(self.receiver.notifications)} of {made}"
            self.receiver.wait_for_next(0.02)

    def _count_made(self):
        # Of several that wait, the worker may yet merge all but one.
        with self.store.database.transaction() as connection:
            return connection.execute(
                "SELECT count(*) FROM notifications WHERE receiver = 'oncall' AND state != 'merged'"
            ).fetchone()[0]
