"""The guard by hand: its own clock, a kernel that says what the test wants, a real state file."""

from __future__ import annotations

import contextlib
import logging
import threading

import numpy as np
import pytest

from watchdog.alerts.grouping import Grouping
from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import SECOND_NS
from watchdog.config import BUILT_IN, Config, Routing, Sampling
from watchdog.errors import StoreError
from watchdog.guard import Guard, RulesFailed
from watchdog.job import Tick
from watchdog.kernel.collector import Reading
from watchdog.kernel.layout import CONNECTION, DATAGRAMS, DATAGRAMS_KEY, FLAG_CONNECT, RESPONSE, SUMS, SUMS_KEY
from watchdog.kernel.totals import Totals
from watchdog.measure.catalogue import DIRECTIONS
from watchdog.measure.meter import Meter
from watchdog.notify.delivery import Delivery
from watchdog.notify.outbox import Outbox
from watchdog.quality import Quality
from watchdog.rules.evaluate import Engine
from watchdog.rules.judge import Judge
from watchdog.rules.load import load_rules
from watchdog.setup import Setup
from watchdog.store.store import Store

PATIENCE = 10.0
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
keep = "3s"
"""


class Kernel:
    """In place of the collector: `connects` connections of one process begin and end in each tick."""

    def __init__(self, clock):
        self.connects = CALM
        self.comm = b"culprit"
        self.closed = False
        self._clock = clock
        self._last_cookie = 0

    def read(self):
        rows = np.zeros(self.connects, CONNECTION)
        rows["cookie"] = self._last_cookie + 1 + np.arange(self.connects)
        self._last_cookie += self.connects
        rows["born_ns"] = rows["ended_ns"] = self._clock.boottime_ns()
        rows["flags"], rows["direction"], rows["family"] = FLAG_CONNECT, DIRECTIONS.index("out"), 2
        rows["owner"]["tgid"], rows["owner"]["comm"] = 2**22 + 1, self.comm  # beyond what a pid can be
        return Reading(
            at_ns=self._clock.boottime_ns(),
            live=np.empty(0, CONNECTION),
            closed=rows,
            sums=Totals(np.empty(0, SUMS_KEY), np.empty(0, SUMS)),
            responses=np.empty(0, RESPONSE),
            datagrams=Totals(np.empty(0, DATAGRAMS_KEY), np.empty(0, DATAGRAMS)),
            quality=Quality(),
        )

    def follow_messages(self, wanted):
        return wanted

    def close(self):
        self.closed = True


class Listener:
    """A receiver that keeps what it is told, and waits with its answer while `answering` is cleared."""

    def __init__(self, name="oncall"):
        self.name = name
        self.budget = None
        self.notices = []
        self.answering = threading.Event()
        self.answering.set()
        self._came = threading.Condition()

    def send(self, notice, deadline_seconds):
        with self._came:
            self.notices.append(notice)
            self._came.notify_all()
        self.answering.wait(PATIENCE)

    def wait_for(self, count):
        with self._came:
            assert self._came.wait_for(lambda: len(self.notices) >= count, PATIENCE), f"{len(self.notices)} of {count}"

    def told(self):
        return [(notice.status, notice.reason, [alert.rule for alert in notice.alerts]) for notice in self.notices]

    def close(self):
        pass


class Night:
    """A guard on a host, second by second."""

    def __init__(self, folder, clock):
        self.folder, self.clock, self.kernel, self.listener = folder, clock, Kernel(clock), Listener()
        self.rules = folder / "rules.toml"
        self.guard = None
        self.begin("storm")

    def setup(self, *rules):
        self.rules.write_text("".join(RULE.format(id=rule) for rule in rules))
        self.rules.chmod(0o644)
        loaded = load_rules([self.rules], receivers=["oncall"])
        routing = Routing(("oncall",), 0, 2 * SECOND_NS, 6 * SECOND_NS)
        receivers = {self.listener.name: self.listener}
        return Setup(
            Config(BUILT_IN, Sampling(), routing, ()), SECOND_NS, receivers, loaded.rules, "here", loaded.notes
        )

    def begin(self, *rules):
        self.store = Store(self.folder / "state", self.clock, "this boot")
        self.guard = Guard(self.kernel, self.store, self.setup(*rules), "web-1", self.clock)
        self.guard.start()

    def tick(self, connects):
        """Let a second pass in which so many connections were opened; return once all that is told has been told."""
        self.clock.advance(1)
        self.kernel.connects = connects
        now_ns = self.clock.boottime_ns()
        self.guard.tick(Tick(now_ns, now_ns, 0.0, 0))
        self.settle()

    def settle(self):
        """Return once all that is to be told has been told; a tick that fails leaves this to the test."""
        with self.store.database.transaction() as connection:
            made = connection.execute("SELECT count(*) FROM notices WHERE state != 'merged'").fetchone()[0]
        self.listener.wait_for(made)


@pytest.fixture
def night(tmp_path, clock):
    night = Night(tmp_path, clock)
    yield night
    night.listener.answering.set()
    night.guard.stop()


# From calm over pending (second 4 on: over 5/s in two seconds), firing (7) and clearing (15) to calm again (18).
SECONDS = [CALM] * 3 + [STORM] * 12 + [CALM] * 9
PHASES = {"before": 1, "pending": 5, "firing": 9, "clearing": 17, "after": 21}


def history(night, caplog, at=None, then=lambda _: None):
    """Live through it; return for each second what the log said and how many notices had been told."""
    seen = []
    for second, connects in enumerate(SECONDS):
        if second == at:
            then(night)
        caplog.clear()
        night.tick(connects)
        seen.append(([record.getMessage() for record in caplog.records], night.listener.told()))
    return seen


def test_the_life_of_an_alert_second_by_second(night, caplog):
    caplog.set_level(logging.INFO)
    seen = history(night, caplog)
    said = {second: messages for second, (messages, _) in enumerate(seen) if messages}

    assert said == {
        7: ["firing: storm process=culprit: value above 5/s for 3s"],
        18: ["resolved: storm process=culprit: nothing to measure for 3s"],
    }
    assert seen[-1][1] == [
        ("firing", "first notification", ["storm"]),
        ("firing", "repeat", ["storm"]),
        ("resolved", "resolved", ["storm"]),
    ]


@pytest.mark.parametrize("seconds", [-HOUR, HOUR], ids=["an hour back", "an hour forward"])
@pytest.mark.parametrize("at", PHASES.values(), ids=PHASES)
def test_a_step_of_the_wall_clock_changes_nothing(tmp_path, clock, night, caplog, at, seconds):
    caplog.set_level(logging.INFO)
    undisturbed = history(night, caplog)
    (tmp_path / "other").mkdir()
    other = Night(tmp_path / "other", clock)
    stepped = history(other, caplog, at, lambda night: night.clock.step(seconds))
    other.guard.stop()

    assert stepped == undisturbed


@pytest.mark.parametrize("seconds", [-HOUR, 0, HOUR], ids=["an hour back", "no step", "an hour forward"])
@pytest.mark.parametrize("at", PHASES.values(), ids=PHASES)
def test_a_restart_loses_nothing_and_announces_nothing_as_new(night, caplog, at, seconds):
    caplog.set_level(logging.INFO)

    def restart(night):
        night.guard.stop()
        night.clock.step(seconds)
        night.begin("storm")

    told = history(night, caplog, at, restart)[-1][1]

    assert [entry for entry in told if entry[1] != "repeat"] == [
        ("firing", "first notification", ["storm"]),
        ("resolved", "resolved", ["storm"]),
    ]
    assert told[-1][0] == "resolved"


# ------------------------------------------------------------------------------------------------- reloads, a full disk


def fire(night):
    for _ in range(6):
        night.tick(STORM)
    assert night.listener.told()[0] == ("firing", "first notification", ["storm"])


def test_a_reload_keeps_what_fires_and_tells_the_end_of_a_rule_that_is_gone(night):
    fire(night)
    before = len(night.listener.notices)
    night.guard.reload(night.setup("storm", "second"))
    night.tick(STORM)
    assert night.listener.told()[before:] == []
    night.guard.reload(night.setup("second"))
    for _ in range(2):
        night.tick(STORM)
    last = night.listener.notices[-1]

    assert [(alert.rule, alert.state, alert.reason) for alert in last.alerts] == [("storm", "resolved", "rule removed")]


def test_ticks_go_on_while_a_reload_waits_for_a_receiver_that_hangs(night, monkeypatch):
    stop = Delivery.stop
    ended = []

    def stop_slowly(delivery, deadline_seconds):
        # Ticks come from a thread of their own.
        ticking = threading.Thread(target=night.tick, args=(STORM,))
        ticking.start()
        ticking.join(PATIENCE)
        ended.append(not ticking.is_alive())
        stop(delivery, deadline_seconds)

    monkeypatch.setattr(Delivery, "stop", stop_slowly)
    night.guard.reload(night.setup("storm"))
    monkeypatch.undo()

    assert ended == [True]


def fail(*_, **__):
    raise StoreError("cannot write: disk full")


@contextlib.contextmanager
def full_disk():
    raise StoreError("cannot write: disk full")
    yield


def test_a_tick_that_could_not_be_written_is_told_with_the_next_one(night, monkeypatch):
    for _ in range(3):
        night.tick(STORM)
    monkeypatch.setattr(night.store.database, "transaction", full_disk)
    with pytest.raises(StoreError):
        night.tick(STORM)  # the one that fires
    assert night.listener.notices == []
    monkeypatch.undo()
    night.tick(STORM)

    assert night.listener.told() == [("firing", "first notification", ["storm"])]


def test_a_reload_on_a_full_disk_delivers_as_soon_as_there_is_room(night, monkeypatch, caplog):
    monkeypatch.setattr(Outbox, "bury_all_but", fail)
    night.guard.reload(night.setup("storm"))
    assert caplog.messages == ["the outbox: cannot write: disk full; deliveries wait"]
    monkeypatch.undo()
    fire(night)


def test_stopping_closes_the_kernel_half_and_lets_the_next_daemon_have_the_folder(night):
    night.guard.stop()

    assert night.kernel.closed
    night.begin("storm")


def test_a_tick_that_hangs_does_not_hold_up_the_end(night):
    with night.guard._between_ticks:
        night.guard.stop()

    assert not night.kernel.closed


# ---------------------------------------------------------------------------------------------------- ticks that failed


# All that a tick calls. What grouping has returned is the guard's own: between the two nothing can break.
STAGES = [
    *((owner, name, when) for owner, name in (
        (Kernel, "read"), (Meter, "advance"), (Engine, "observe"), (Lifecycle, "advance"), (Lifecycle, "firing"),
        (Grouping, "take_changes"), (Store, "commit"),
    ) for when in ("before", "after")),
    (Grouping, "advance", "before"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("owner", "name", "when"), STAGES, ids=[f"{when} {owner.__name__}.{name}" for owner, name, when in STAGES]
)
@pytest.mark.parametrize("second", [7, 18], ids=["firing", "resolved"])
def test_wherever_a_tick_breaks_off_the_next_one_tells_what_happened(night, monkeypatch, owner, name, when, second):
    original = getattr(owner, name)

    def break_off(*arguments, **options):
        if when == "after":
            original(*arguments, **options)
        raise RuntimeError("broken off")

    for number, connects in enumerate(SECONDS):
        if number == second:
            monkeypatch.setattr(owner, name, break_off)
            with pytest.raises(RuntimeError, match="broken off"):
                night.tick(connects)
            monkeypatch.setattr(owner, name, original)
        else:
            night.tick(connects)
    history = [entry for entry in night.listener.told() if entry[1] != "repeat"]

    assert history == [("firing", "first notification", ["storm"]), ("resolved", "resolved", ["storm"])]


def test_a_failed_tick_is_counted_and_what_it_lost_leaves_rules_in_the_dark(night, monkeypatch):
    seen = []
    observe = Engine.observe
    monkeypatch.setattr(
        Engine, "observe", lambda engine, snapshot, *rest: seen.append(snapshot) or observe(engine, snapshot, *rest)
    )
    monkeypatch.setattr(night.kernel, "read", fail)
    for _ in range(3):
        with pytest.raises(StoreError):
            night.tick(CALM)
    monkeypatch.delattr(night.kernel, "read")
    monkeypatch.setattr(night.store, "commit", fail)
    with pytest.raises(StoreError):
        night.tick(CALM)  # it judged, and could not write
    monkeypatch.delattr(night.store, "commit")
    for _ in range(2):
        night.tick(CALM)

    assert [int(snapshot.metrics["failed_ticks"].sum()) for snapshot in seen] == [3, 1, 0]
    assert [snapshot.quality.lost_samples for snapshot in seen] == [3, 0, 0]
    assert [snapshot.quality.incomplete for snapshot in seen] == [True, False, False]


def test_a_rule_that_cannot_be_judged_takes_no_other_with_it(night, monkeypatch):
    night.guard.reload(night.setup("broken", "storm"))
    verdicts = Judge.verdicts

    def fail_for_broken(judge, *rest):
        if judge.rule.id == "broken":
            raise RuntimeError("no verdict")
        return verdicts(judge, *rest)

    monkeypatch.setattr(Judge, "verdicts", fail_for_broken)
    for _ in range(8):
        with pytest.raises(RulesFailed) as caught:
            night.tick(STORM)
    night.settle()

    assert night.listener.told()[0] == ("firing", "first notification", ["storm"])
    assert [(str(one), one.__notes__) for one in caught.value.exceptions] == [("no verdict", ["in rule broken"])]


def test_names_in_the_log_are_harmless(night, caplog):
    caplog.set_level(logging.INFO)
    night.kernel.comm = b"culprit\x1b[2J\n"
    fire(night)

    assert r"firing: storm process=culprit\x1b[2J\x0a: value above 5/s for 3s" in caplog.messages


def test_saved_state_that_cannot_be_read_is_left_out_and_the_alert_announced_anew(night, caplog):
    fire(night)
    with night.store.database.transaction() as connection:
        connection.execute("UPDATE alerts SET state = '{}'")
        connection.execute("UPDATE groups SET state = '{'")
    night.guard.stop()
    night.begin("storm")
    assert caplog.messages == [
        "state.sqlite3: 2 entries cannot be read and are left out; what they were about is announced anew"
    ]
    before = len(night.listener.notices)
    for _ in range(6):
        night.tick(STORM)

    assert night.listener.told()[before:][0] == ("firing", "first notification", ["storm"])
