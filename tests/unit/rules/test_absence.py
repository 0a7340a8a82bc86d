"""Groups that `where` or a changed rule excludes, and groups that vanish: their alerts, over reloads and restarts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.alerts.alert import TransitionKind
from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import SECOND_NS, Now
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.expression import Comparison, MetricReference, Operation
from watchdog.rules.language.rule import Absent, Condition

OUT = Condition("direction", any_of=("out",))
FEED = Condition("process", any_of=("feed*",))

GATE = Comparison(">=", MetricReference("connects"), 1)


class Guard:
    """Engine and alerts of one rule, with the state that a store keeps; `log` has (kind, process, reason)."""

    def __init__(self, host, rule):
        self.host, self.saved = host, {}
        self.start(rule)

    def start(self, rule, down_seconds=0):
        self.rule, self.engine, self.lifecycle = rule, Engine([rule]), Lifecycle("web-1")
        self.host.at_ns += down_seconds * SECOND_NS
        states = json.loads(json.dumps(list(self.saved.values())))
        unreadable = self.lifecycle.restore(states, [rule], self.host.at_ns, 0, down_seconds * SECOND_NS)
        assert unreadable == 0
        self.engine.evaluate(self.host.baseline(), self.lifecycle.active_keys())

    def reload(self, rule):
        self.rule = rule
        self.engine.replace_rules([rule])
        self.lifecycle.replace_rules([rule])

    def tick(self, *rows, **options):
        """Run one tick of 1 s; return the transitions as (kind, process, reason)."""
        snapshot = self.host.tick(*rows, **options)
        verdicts = self.engine.evaluate(snapshot, self.lifecycle.active_keys())
        self.transitions = self.lifecycle.advance(verdicts, Now(snapshot.at_ns, 5_000.0))
        assert self.engine.take_failures() == self.lifecycle.take_failures() == []
        for key, state in self.lifecycle.take_changes():
            self.saved[key] = state
            if state is None:
                del self.saved[key]
        return [(one.kind.value, dict(one.alert.labels).get("process"), one.alert.reason) for one in self.transitions]

    def ticks(self, count, *rows):
        """Run `count` ticks; return {second: transitions}, the first second being 1."""
        seen = {second: self.tick(*rows) for second in range(1, count + 1)}
        return {second: found for second, found in seen.items() if found}

    @property
    def firing(self):
        return {dict(alert.labels).get("process") for alert in self.lifecycle.firing_alerts().values()}


def row(process, connects=9, direction="out", **more):
    return {"process": process, "connects": connects, "direction": direction, **more}


@pytest.fixture
def silence(make_rule):
    """Return the factory of a rule about silence: below 5 connects within 3 s."""

    def make(**options):
        return make_rule(**{"stat": "sum", "above": None, "below": 5, "window_seconds": 3, "where": [FEED]} | options)

    return make


# Which groups exist


@pytest.mark.parametrize(
    ("where", "stranger"),
    [
        (Condition("process", any_of=("feedd",)), {"process": "other"}),
        (Condition("process", none_of=("other",)), {"process": "other"}),
        (OUT, {"direction": "in"}),
        (Condition("user", any_of=("feed",)), {"user": "mallory"}),
        (Condition("remote", any_of=("192.0.2.0/24",)), {"remote": "198.51.100.1"}),
        (Condition("remote_port", any_of=("443",)), {"remote_port": 80}),
    ],
    ids=lambda value: value.dimension if isinstance(value, Condition) else "",
)
def test_only_groups_with_a_row_that_where_selected_fire(host, silence, where, stranger):
    guard = Guard(host, silence(where=[where]))
    feed = {"process": "feedd", "user": "feed", "remote": "192.0.2.1", "remote_port": 443}
    rows = [row(**feed), row(**{**feed, "process": "stranger", **stranger})]
    assert guard.ticks(5, *rows) == {}
    assert guard.ticks(9, rows[1]) == {3: [("firing", "feedd", "value below 5")]}
    assert guard.firing == {"feedd"}


def test_a_value_without_rows_above_the_limit_fires_for_no_excluded_group(host, make_rule):
    spare = Operation("-", MetricReference("accepts"), MetricReference("connects"))
    guard = Guard(host, make_rule(metric=spare, stat="sum", above=-5, where=[FEED], window_seconds=3))
    rows = [row("feedd"), row("other", direction="in")]
    assert guard.ticks(4, *rows) == {}
    guard.ticks(4, rows[1])
    assert guard.firing == {"feedd"}


def test_what_was_never_seen_since_the_start_does_not_fire_except_without_by(host, silence):
    assert Guard(host, silence()).ticks(9, row("other")) == {}
    assert Guard(host, silence(by=())).ticks(9, row("other")) == {3: [("firing", None, "value below 5")]}


def test_a_reused_slot_is_not_selected_because_the_group_before_was(host, silence):
    guard = Guard(host, silence())
    for number in range(60):
        guard.tick(*(row(f"feed{number}-{index}") for index in range(9)), row("other"))
    guard.ticks(8)
    guard.ticks(9, *(row(f"other{index}") for index in range(300)))
    guard.ticks(3)
    assert guard.lifecycle.active_keys() == [key for key in guard.lifecycle.active_keys() if "feed" in str(key)]


# absent = "resolve"


def test_an_alert_about_a_group_without_rows_ends_as_gone(host, silence):
    guard = Guard(host, silence(absent_for_ns=8 * SECOND_NS))
    guard.ticks(5, row("feedd"))
    assert guard.ticks(30) == {3: [("firing", "feedd", "value below 5")], 8: [("resolved", "feedd", "gone for 8s")]}


def test_an_alert_about_a_group_without_selected_rows_ends_as_no_longer_selected(host, silence):
    guard = Guard(host, silence(where=[OUT], absent_for_ns=8 * SECOND_NS))
    guard.ticks(5, row("feedd"))
    found = guard.ticks(30, row("feedd", direction="in"))
    assert found == {3: [("firing", "feedd", "value below 5")], 8: [("resolved", "feedd", "no longer selected for 8s")]}


def test_a_group_that_falls_silent_with_open_connections_fires_until_its_value_rises(host, silence):
    guard = Guard(host, silence(absent_for_ns=8 * SECOND_NS))
    guard.ticks(5, row("feedd"))
    assert guard.ticks(30, row("feedd", 0)) == {3: [("firing", "feedd", "value below 5")]}
    assert guard.ticks(2, row("feedd")) == {1: [("resolved", "feedd", "value above 5")]}


def test_a_group_that_returns_and_vanishes_again_fires_again(host, silence):
    guard = Guard(host, silence(absent_for_ns=8 * SECOND_NS))
    for _ in range(2):
        guard.ticks(5, row("feedd"))
        assert [found[0][0] for found in guard.ticks(20).values()] == ["firing", "resolved"]


def test_the_time_without_rows_goes_on_after_a_restart_less_the_time_without_measurement(host, silence):
    guard = Guard(host, silence(absent_for_ns=20 * SECOND_NS))
    guard.ticks(5, row("feedd"))
    guard.ticks(10)
    guard.start(guard.rule, down_seconds=3_600)
    # Two of its first ticks are unknown, until the window is filled.
    assert guard.ticks(30) == {12: [("resolved", "feedd", "gone for 20s")]}


def test_ticks_with_incomplete_input_count_for_no_absence(host, silence):
    guard = Guard(host, silence(absent_for_ns=8 * SECOND_NS))
    guard.ticks(5, row("feedd"))
    guard.ticks(4)
    for _ in range(10):
        assert guard.tick(missed_events=1) == []
    assert list(guard.ticks(30)) == [6]  # 2 of them incomplete


def test_an_alert_above_its_limit_whose_group_vanishes_ends_as_gone(host, make_rule):
    guard = Guard(host, make_rule(stat="sum", above=5, window_seconds=2, where=[FEED], keep_firing_for_seconds=4))
    guard.ticks(3, row("feedd"))
    assert guard.ticks(9) == {6: [("resolved", "feedd", "gone for 4s")]}


# absent = "fire" and "keep"


@pytest.mark.parametrize(
    "options",
    [{}, {"above": 1000, "below": None}, {"metric": "rtt", "stat": "p50"}, {"only_if": GATE}],
    ids=["below", "above", "percentile", "gated"],
)  # fmt: skip
def test_a_group_that_is_absent_fires_until_it_returns(host, silence, options):
    guard = Guard(host, silence(absent=Absent.FIRE, absent_for_ns=6 * SECOND_NS, **options))
    feed = row("feedd", rtt=9.0)
    assert guard.ticks(5, feed, row("other")) == {}
    assert guard.ticks(50, row("other")) == {6: [("firing", "feedd", "absent for 6s")]}
    guard.start(guard.rule, down_seconds=60)
    assert guard.ticks(50, row("other")) == {}
    assert guard.firing == {"feedd"}
    guard.ticks(3, feed)
    assert guard.firing == set()


def test_a_group_that_returns_before_absent_for_does_not_fire(host, silence):
    guard = Guard(host, silence(absent=Absent.FIRE, absent_for_ns=6 * SECOND_NS))
    for _ in range(4):
        assert guard.ticks(5, row("feedd")) == {}
        assert guard.ticks(5) == {}


def test_with_keep_a_firing_alert_stays_and_none_begins_without_rows(host, silence):
    guard = Guard(host, silence(absent=Absent.KEEP))
    guard.ticks(5, row("feedd"), row("feedx", 1))
    assert guard.firing == {"feedx"}
    assert guard.ticks(50) == {}
    guard.start(guard.rule)
    assert guard.ticks(50) == {}
    assert guard.firing == {"feedx"}
    guard.ticks(3, row("feedx"))
    assert guard.firing == set()


def test_with_keep_a_pending_instance_does_not_outlive_its_group(host, silence):
    guard = Guard(host, silence(absent=Absent.KEEP, for_ns=60 * SECOND_NS))
    guard.ticks(5, row("feedd", 1))
    assert guard.ticks(9) == {}
    assert guard.lifecycle.active_keys() == []


# A changed rule


@pytest.mark.parametrize("way", ["reload", "start"])
@pytest.mark.parametrize("by", [["process"], ["process", "remote_port"], ["remote"]])
def test_a_firing_group_that_a_changed_rule_excludes_by_its_labels_ends_at_once(host, make_rule, way, by):
    rule = make_rule(stat="sum", above=5, window_seconds=3, by=by, keep_firing_for_seconds=60, for_seconds=0)
    guard = Guard(host, rule)
    storm = row("crawler", remote="192.0.2.1", remote_port=443)
    guard.ticks(3, storm)
    excluding = {
        "process": Condition("process", any_of=("crawl*",), none_of=("crawler",)),
        "remote_port": Condition("remote_port", none_of=("1-1023",)),
        "remote": Condition("remote", none_of=("192.0.2.0/24",)),
    }[by[-1]]
    getattr(guard, way)(replace(rule, where=(excluding,)))
    [(kind, _, reason)] = guard.tick(storm)
    assert (kind, reason) == ("resolved", "no longer selected")
    assert guard.transitions[0].alert.value > 5
    assert guard.ticks(9, storm) == {}


@pytest.mark.parametrize("way", ["reload", "start"])
@pytest.mark.parametrize("above", [True, False])
def test_a_firing_group_that_a_changed_rule_excludes_by_its_rows_ends_after_a_window(host, make_rule, way, above):
    limits = {"above": 5} if above else {"above": None, "below": 1000}
    rule = make_rule(stat="sum", window_seconds=3, keep_firing_for_seconds=60, **limits)
    guard = Guard(host, rule)
    storm = row("crawler", user="www")
    guard.ticks(4, storm)
    getattr(guard, way)(replace(rule, where=(Condition("user", none_of=("www",)),)))
    assert guard.ticks(9, storm) == {3: [("resolved", "crawler", "no longer selected")]}


@pytest.mark.parametrize("limits", [{"above": None, "below": 5}, {"above": -1}])
def test_a_pending_group_of_which_no_row_met_the_changed_where_does_not_fire(host, make_rule, limits):
    rule = make_rule(stat="sum", above=5, window_seconds=3, for_seconds=2)
    guard = Guard(host, rule)
    guard.ticks(2, row("crawler", direction="in"))
    guard.reload(make_rule(stat="sum", window_seconds=3, where=[OUT], **limits))
    assert guard.ticks(9) == {}
    assert guard.lifecycle.active_keys() == []


def test_a_changed_rule_that_still_selects_the_group_changes_nothing(host, make_rule):
    rule = make_rule(stat="sum", above=5, window_seconds=3)
    guard = Guard(host, rule)
    guard.ticks(3, row("crawler"))
    for where in (Condition("process", none_of=("x",)), Condition("user", none_of=("x",))):
        guard.reload(replace(rule, where=(where,)))
        assert guard.ticks(9, row("crawler")) == {}
    assert guard.ticks(9, row("crawler", 0)) == {3: [("resolved", "crawler", "value below 5")]}


# Random series


WHERES = ((), (FEED,), (OUT,), (Condition("process", none_of=("feedb",)), OUT), (Condition("user", none_of=("u",)),))
PROCESSES = ("feeda", "feedb", "other")
DIRECTIONS = st.sampled_from(["out", "in"])
ROWS = st.lists(
    st.builds(row, st.sampled_from(PROCESSES), st.sampled_from([0, 1, 9]), DIRECTIONS, user=st.sampled_from("uv")),
    max_size=3,
)
RULES = st.fixed_dictionaries(
    {
        "where": st.sampled_from(WHERES),
        "limits": st.sampled_from([{"above": None, "below": 5}, {"above": 5}, {"above": -1}]),
        "absent": st.sampled_from(list(Absent)),
        "absent_for_ns": st.sampled_from([1, 4, 12]).map(lambda seconds: seconds * SECOND_NS),
        "for_seconds": st.sampled_from([0, 2]),
        "keep_firing_for_seconds": st.sampled_from([0, 2]),
    }
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["tick", "tick", "lossy tick"]), ROWS, st.integers(1, 5)),
        st.tuples(st.sampled_from(["reload", "start"]), RULES, st.just(1)),
    ),
    max_size=14,
)
WINDOW = 3


def is_selected(where, one):
    """Return whether a row meets `where`, for the conditions of `WHERES`."""
    text = {"process": one["process"], "direction": one["direction"], "user": one["user"]}
    return all(
        {
            FEED: text["process"].startswith("feed"),
            OUT: text["direction"] == "out",
            WHERES[3][0]: text["process"] != "feedb",
            WHERES[4][0]: text["user"] != "u",
        }[condition]
        for condition in where
    )


def built(make_rule, options):
    more = {name: value for name, value in options.items() if name != "limits"}
    return make_rule(stat="sum", window_seconds=WINDOW, **options["limits"], **more)


class CheckedGuard(Guard):
    """A guard that checks each transition against the rows of all its life."""

    def __init__(self, host, rule):
        self.rows_ns, self.burning, self.unknown_ns = [], set(), 0
        super().__init__(host, rule)

    def change(self, way, rule):
        getattr(self, way)(rule)
        self.unknown_ns += 2 * WINDOW * SECOND_NS  # time that no timer counts

    def tick(self, *rows, **options):
        self.rows_ns += [(one, self.host.at_ns + SECOND_NS) for one in rows]
        transitions = super().tick(*rows, **options)
        for kind, process, _ in transitions:
            if kind == TransitionKind.FIRING:
                assert process not in self.burning
                self.check_selected(process)
                self.burning.add(process)
            elif kind == TransitionKind.RESOLVED:
                self.burning.remove(process)
        assert self.burning == self.firing
        return transitions

    def check_selected(self, process):
        own = [at_ns for one, at_ns in self.rows_ns if one["process"] == process and is_selected(self.rule.where, one)]
        assert own
        if self.rule.absent is not Absent.FIRE:
            silent_ns = self.host.at_ns - own[-1]
            assert silent_ns <= 2 * self.rule.window_ns + self.rule.for_ns + self.unknown_ns


@given(first=RULES, steps=STEPS)
@settings(max_examples=100, deadline=None)
def test_no_alert_without_a_selected_row_and_none_without_an_end(make_rule, make_host, first, steps):
    guard = CheckedGuard(make_host(), built(make_rule, first))
    for step, argument, count in steps:
        if step == "tick":
            guard.ticks(count, *argument)
        elif step == "lossy tick":
            guard.unknown_ns += (WINDOW + 1) * SECOND_NS
            guard.tick(*argument, missed_events=count)
        else:
            guard.change(step, built(make_rule, argument))
    guard.ticks(12 + 2 + 3 * WINDOW + 2)
    if guard.rule.absent is not Absent.RESOLVE:
        guard.change("reload", replace(guard.rule, where=(Condition("process", none_of=PROCESSES),)))
        guard.tick()
    assert guard.firing == set()
    assert guard.lifecycle.active_keys() == []
    assert guard.saved == {}


@given(
    series=st.lists(st.tuples(ROWS, st.integers(1, 4)), max_size=16),
    where=st.sampled_from(WHERES),
    absent=st.sampled_from(list(Absent)),
    absent_for=st.sampled_from([2, 5, 9]),
)
@settings(max_examples=100, deadline=None)
def test_rules_about_silence_equal_their_model(make_rule, make_host, series, where, absent, absent_for):
    options = {"absent": absent, "absent_for_ns": absent_for * SECOND_NS, "window_seconds": WINDOW}
    guard = Guard(make_host(), make_rule(stat="sum", above=None, below=5, where=where, **options))
    history = [[] for _ in range(WINDOW)]
    for rows in history:
        guard.tick(*rows)
    firing = set()
    for rows, count in series:
        for _ in range(count):
            history.append([one for one in rows if is_selected(where, one)])
            guard.tick(*rows)
            firing = {name for name in PROCESSES if _fires(history, name, absent, absent_for, name in firing)}
            assert guard.firing == firing


def _fires(history, name, absent, absent_for, was_firing):
    """Return whether the rule fires for `name` by the ticks of `history`, each the selected rows of 1 s."""
    counts = [sum(one["connects"] for one in rows if one["process"] == name) for rows in history]
    is_below = sum(counts[-WINDOW:]) < 5 + was_firing
    there = [index for index, rows in enumerate(history) if any(one["process"] == name for one in rows)]
    silent = len(history) - 1 - there[-1] if there else None
    if silent == 0:
        return is_below
    if silent is None:
        return False
    if absent is Absent.KEEP:
        return was_firing
    if absent is Absent.FIRE:
        return was_firing or silent >= absent_for
    return is_below and silent < (absent_for if was_firing else min(absent_for, 2 * WINDOW))


# Listeners


LISTENER = {"process": "nginx", "unit": "nginx.service", "local_port": 80, "state": "LISTEN", "direction": "in"}
LEFT = {"process": "nginx", "unit": "nginx.service", "local_port": 80, "state": "ESTABLISHED", "open": 1}


@pytest.mark.parametrize("left", [[], [LEFT]], ids=["the process is gone", "its connections go on"])
def test_a_listener_that_is_gone_fires_after_absent_for_and_ends_when_it_returns(host, make_rule, left):
    ports = Condition("state", any_of=("LISTEN",))
    rule = make_rule(
        metric="listeners",
        stat="last",
        by=["process", "local_port"],
        where=[ports],
        above=None,
        below=1,
        clear=0.999,
        window_seconds=2,
        absent=Absent.FIRE,
        absent_for_ns=10 * SECOND_NS,
    )
    other = {**LISTENER, "local_port": 443, "listeners": 1}
    guard = Guard(host, rule)
    assert guard.ticks(20, {**LISTENER, "listeners": 2}, other) == {}
    gone = guard.ticks(30, other, *left)
    assert gone == {10: [("firing", "nginx", "absent for 10s")]}
    (alert,) = guard.lifecycle.firing_alerts().values()
    assert alert.labels == (("process", "nginx"), ("local_port", "80"))
    guard.start(rule, down_seconds=30)
    assert guard.ticks(5, other, *left) == {}
    assert [kind for kind, *_ in guard.tick({**LISTENER, "listeners": 1}, other)] == ["resolved"]
