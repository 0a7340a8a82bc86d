"""The output of commands for answers of every kind, at narrow and wide terminals, over a real control socket."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest
from status_views import make_alert_detail

from factories import make_evidence
from watchdog.cli.main import main
from watchdog.control.alert_handlers import ActiveAlert, AlertReceiver, TimerStatus, alert_handlers
from watchdog.control.baseline_handlers import (
    BaselineChange,
    BaselineGroupList,
    GroupBaselineStatus,
    RuleBaselineStatus,
    baseline_handlers,
)
from watchdog.control.listener import Listener
from watchdog.control.reload_handler import AlertEffect, ReloadAnswer, reload_handlers
from watchdog.control.rule_handlers import (
    BaselineStatus,
    DestinationStatus,
    ExceptionStatus,
    Explanation,
    MetricValue,
    RuleStatus,
    ThresholdStatus,
    WorstGroup,
    rule_handlers,
)
from watchdog.control.server import ControlServer

HOSTILE = {"process": "x\n\x1b[2Jy", "unit": "z" * 300}
CLEARING = TimerStatus("warning", "clearing", 3.0, 60.0)
PENDING = TimerStatus("warning", "pending", 2.0, 10.0)
HITS = TimerStatus("warning", "pending", None, None, "2 of 3 hits in 5 ticks")


def make_alert(**changes):
    fields = {
        "fingerprint": "0123456789abcdef",
        "rule": "outbound-connection-storm",
        "state": "firing",
        "severity": "warning",
        "labels": {"process": "crawler"},
        "since": 1_750_000_000.0,
        "fired": 1_750_000_010.0,
        "value": 612.0,
        "limit": 500.0,
        "value_text": "612/s",
        "limit_text": "500/s",
        "share": 1.224,
        "summary": "",
        "reason": "",
        "timers": (),
        "receivers": (
            AlertReceiver("oncall", "warning", 1_750_000_012.0),
            AlertReceiver("pager", None, None, "critical"),
            AlertReceiver("chat", None),
        ),
    }
    return ActiveAlert(**{**fields, **changes})


def make_rule(**changes):
    fields = {
        "id": "storm",
        "origin": "own",
        "file": "/etc/bpf-watchdog/rules.d/a.toml",
        "line": 3,
        "state": "inactive",
        "reason": "",
        "firing": 0,
        "pending": 0,
        "timer": None,
        "groups": 4,
        "worst": WorstGroup({"process": "crawler"}, 90.0, "90/s", 0.9),
        "limit_text": "100/s",
        "window_seconds": 60.0,
        "filled_seconds": 60.0,
        "has_matched": True,
        "learning_seconds": 0.0,
        "last_fired": 1_750_000_000.0,
        "fired_in_7_days": 7,
    }
    return RuleStatus(**{**fields, **changes})


def make_explanation(**changes):
    fields = {
        "rule": "slow",
        "file": "a.toml",
        "line": 3,
        "labels": HOSTILE,
        "has_group": True,
        "by": ("process", "unit"),
        "age_seconds": 0.1,
        "metric": "connect_failures / closes",
        "stat": "rate",
        "above": True,
        "rows_host": 9,
        "rows_selected": 5,
        "rows_group": 2,
        "metrics": (MetricValue("closes", "sum", 30.0, 1.5), MetricValue("connect_failures", "sum", None, None)),
        "value": 0.25,
        "value_text": "25 %",
        "low": 0.2,
        "high": None,
        "low_text": "20 %",
        "high_text": "infinite",
        "window_seconds": 60.0,
        "filled_seconds": 5.0,
        "only_if_text": "closes >= 10",
        "only_if_value": 30.0,
        "only_if": True,
        "baseline": BaselineStatus(
            usual=0.05,
            highest=None,
            usual_text="5 %",
            highest_text="-",
            learnt_hours=170,
            learn_hours=24,
            rarity_hours=1700.0,
            is_learning=False,
            is_known=True,
            is_new=False,
        ),
        "thresholds": (ThresholdStatus("warning", 0.2, 0.1, "20 %", "10 %", breached=True, cleared=False),),
        "breached": "warning",
        "complete": False,
        "reason": "input incomplete",
        "for_seconds": 10.0,
        "hits": None,
        "keep_firing_for_seconds": 60.0,
        "has_novelty": False,
        "state": "pending",
        "timers": (PENDING, HITS),
        "fingerprint": "0123456789abcdef",
        "exceptions": (
            ExceptionStatus({"process": ["a*", "!ab"], "remote": ["10.0.0.0/8"]}, "ada", "move", "2027-03-31", True),
            ExceptionStatus({"user": ["\x1b[2J"]}, "line\nfeed", "x", None, False),
        ),
        "suppressed_by": ("silence 1f0a3c5e",),
        "destinations": (DestinationStatus("oncall", "slow", 0.0, 60.0, None),),
        "earliest_seconds": 8.0,
        "conclusion": "it is pending: it fires in 8s if the condition stays true",
    }
    return Explanation(**{**fields, **changes})


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Return a function that runs a command at a daemon with these handlers: (exit code, stdout, stderr)."""
    servers = []

    def run(handlers, *arguments, columns=200):
        monkeypatch.setenv("COLUMNS", str(columns))
        path = tmp_path / f"{len(servers)}.sock"
        server = ControlServer(Listener.at(path), handlers, logging.getLogger("watchdog"))
        server.start()
        servers.append(server)
        code = main([*arguments, "--control", str(path)])
        return code, *capsys.readouterr()

    yield run
    for server in servers:
        server.stop()


ALERTS = [
    make_alert(severity="critical"),
    make_alert(labels=HOSTILE, timers=(CLEARING,), suppressed_by=("acknowledgement 1f0a3c5e",)),
    make_alert(state="pending", timers=(PENDING,), receivers=(), fired=None),
    make_alert(state="pending", timers=(HITS,), receivers=(), value=None, share=None),
]
RULES = [
    make_rule(state="firing", firing=2, pending=1),
    make_rule(state="pending", pending=1, timer=PENDING),
    make_rule(state="unknown", reason="input incomplete"),
    make_rule(worst=WorstGroup(HOSTILE, None, "-", None), last_fired=None, fired_in_7_days=0),
    make_rule(has_matched=False, worst=None, groups=0),
    make_rule(filled_seconds=5.0),
    make_rule(filled_seconds=3_725.0, window_seconds=86_400.0),
    make_rule(learning_seconds=80_000.0, filled_seconds=5.0),
]
EFFECTS = tuple(AlertEffect("0123456789abcdef", "storm", HOSTILE, effect, "detail " * 30) for effect in ("a", "b"))


SILENCE = {
    "id": "1f0a3c5e",
    "kind": "silence",
    "matchers": {"process": ["a\nb" * 30, "!x"], "unit": ["\x1b[2J"]},
    "fingerprint": None,
    "author": "ada\n",
    "comment": "move " * 90,
    "permanent_reason": None,
    "created_at": 0.0,
    "ends_at": 1_800_000_000.0,
    "withheld": 3,
    "alerts": ["0123456789abcdef"],
}
SILENCES = [SILENCE, {**SILENCE, "ends_at": None}, {**SILENCE, "fingerprint": "0123456789abcdef", "ends_at": None}]


@pytest.mark.parametrize("columns", [80, 120, 200])
@pytest.mark.parametrize(
    ("command", "handlers", "rows"),
    [
        ("silence list", {"silence list": lambda _: {"silences": SILENCES}}, len(SILENCES)),
        ("alerts", alert_handlers(lambda: ALERTS, lambda _: None), len(ALERTS)),
        ("rules", rule_handlers(lambda: RULES, list, lambda *_: None), len(RULES)),
        ("reload", reload_handlers(lambda dry: ReloadAnswer(True, dry, alerts=EFFECTS)), len(EFFECTS)),
    ],
    ids=["silences", "alerts", "rules", "reload"],
)
def test_each_row_of_a_table_is_one_line_that_fits(run, command, handlers, rows, columns):
    code, out, _ = run(handlers, *command.split(), columns=columns)
    table = out.rstrip("\n").splitlines()[-rows - 1 :]
    assert code == 0
    assert len(table) == rows + 1
    assert all(len(line) <= columns and line.isprintable() for line in table)


def test_alerts_have_their_state_receivers_and_the_cause_of_silence(run):
    _, out, _ = run(alert_handlers(lambda: ALERTS, lambda _: None), "alerts", columns=2_000)
    lines = out.splitlines()
    assert "critical" in lines[1]
    assert lines[1].endswith("oncall, pager (queued), chat (waits)")
    assert "warning, clearing 3s of 60s" in lines[2]
    assert "acknowledgement 1f0a3c5e; oncall" in lines[2]
    assert "pending 2s of 10s" in lines[3]
    assert "pending 2 of 3 hits in 5 ticks" in lines[4]


def test_the_evidence_of_an_alert_goes_on_below_itself_at_the_end_of_the_terminal(run):
    evidence = make_evidence(unknown_rules=("rule-with-a-long-name",) * 9, unknown_rule_count=9)
    detail = make_alert_detail(make_alert(), evidence=evidence.to_json())
    handlers = alert_handlers(lambda: ALERTS[:1], lambda _: detail)
    _, out, _ = run(handlers, "alerts", "show", "0123", columns=80)
    _, wide, _ = run(handlers, "alerts", "show", "0123", columns=2_000)
    assert out.startswith("fingerprint  0123456789abcdef\n")
    assert all(len(line) <= 80 for line in out.splitlines())
    assert out.split() == wide.split()
    assert len(out.splitlines()) > len(wide.splitlines())


def test_rules_have_a_text_for_each_state(run):
    _, out, _ = run(rule_handlers(lambda: RULES, list, lambda *_: None), "rules", columns=2_000)
    lines = out.splitlines()
    for line, state in zip(
        lines[1:],
        ("firing 2, pending 1", "pending 2s of 10s", "unknown: input incomplete", "inactive  ",
         "inactive, never matched", "inactive, 5s of 60s", "inactive, 1h2m5s of 1d", "learning, 22 h left"),
        strict=True,
    ):  # fmt: skip
        assert line.startswith(f"storm  {state}")
    assert "90%" in lines[1]


def test_an_explanation_has_losses_gate_baseline_limits_timers_and_receivers(run):
    handlers = rule_handlers(list, list, lambda rule, labels: make_explanation(rule=f"{rule} {labels}"))
    code, out, _ = run(handlers, "explain", "slow", "process=a=b")
    assert code == 0
    assert "rule       slow {'process': 'a=b'} (a.toml:3)" in out
    for text in (
        "9 of the host", "5 meet where", "closes: sum 30, in the newest tick 1.5/s", "connect_failures: sum -",
        "25 % (rate of connect_failures / closes), with losses between 20 % and unbounded", "5s of 60s have data",
        "closes >= 10: holds, left side 30",
        "usual 5 % in this hour, highest -; this value less than once in 1700 h; learnt 170 h",
        "fires above 20 %, clears below 10 %: breached\n", "pending 2 of 3 hits", "by silence 1f0a3c5e",
        "oncall (group slow, group_wait 0s, group_interval 60s)",
    ):  # fmt: skip
        assert text in out
    assert all(line.isprintable() for line in out.splitlines())


@pytest.mark.parametrize(
    ("labels", "by", "text"),
    [
        ({"process": "a"}, ("process",), "process=a: it has no rows now"),
        ({}, ("process", "unit"), "none: no group has rows now"),
        ({}, (), "the host: it has no rows now"),
    ],
)
def test_a_group_without_rows_is_named_as_one(run, labels, by, text):
    handlers = rule_handlers(list, list, lambda *_: make_explanation(has_group=False, labels=labels, by=by))
    assert f"\ngroup      {text}\n" in run(handlers, "explain", "slow")[1]


def test_an_explanation_has_hits_limits_that_are_not_learnt_and_large_numbers(run):
    limit = ThresholdStatus("warning", None, None, "-", "-", breached=False, cleared=True)
    metric = MetricValue("bytes_sent", "sum", 263_088_123.0, 2342.625)
    found = make_explanation(
        hits="3 of 5", thresholds=(limit,), metrics=(metric,), window_seconds=86_400.0, filled_seconds=24.1066
    )
    _, out, _ = run(rule_handlers(list, list, lambda *_: found), "explain", "slow")
    for line in (
        "hits       3 of 5 ticks, keep_firing_for 60s",
        "warning    not learnt yet",
        "metric     bytes_sent: sum 263 MB, in the newest tick 2.3 kB/s",
        "window     24s of 1d have data",
    ):
        assert line in out.splitlines()


LEARNT = BaselineStatus(4.0, 9.0, "4", "9", 170, 24, 48.0, is_learning=False, is_known=True, is_new=False)
NO_LIMIT = ThresholdStatus("warning", None, None, "-", "-", breached=False, cleared=True)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"is_learning": True, "learnt_hours": 2}, "baseline   learning: 2 h of 1 d\nwarning    not learnt yet\n"),
        ({"is_known": False}, "baseline   learnt 170 h; it knows no such group\n"),
        (
            {"is_new": True},
            "baseline   learnt 170 h; too new for limits of its own, the highest limit of others is 9\n",
        ),
        ({}, "usual 4 in this hour, highest 9; this value less than once in 2 d; learnt 170 h\n"),
    ],
)
def test_an_explanation_has_the_state_of_its_baseline(run, changes, text):
    found = make_explanation(baseline=replace(LEARNT, **changes), thresholds=(NO_LIMIT,))
    _, out, _ = run(rule_handlers(list, list, lambda *_: found), "explain", "slow")
    assert text in out


class LearntBaselines:
    """Answers with the same baselines to every request, and notes the changes."""

    rule = RuleBaselineStatus("unusual-bytes-of-a-process", False, 170, 24, 3, 1)

    def __init__(self):
        self.changes = []
        group = GroupBaselineStatus(
            labels=HOSTILE, usual=3e6, highest=9e6, limits={"warning": 2e7, "critical": None}, usual_text="3 MB",
            highest_text="9 MB", limit_texts={"warning": "20 MB", "critical": "-"}, learnt_hours=170, record_hours=5,
            is_new=False, is_held=False,
        )  # fmt: skip
        self.groups = (group, replace(group, labels={}, is_held=True), replace(group, record_hours=0, is_new=True))

    def list_rules(self):
        return (self.rule, replace(self.rule, is_learning=True, learnt_hours=2))

    def list_groups(self, _rule, _labels):
        return BaselineGroupList(self.rule, 170, self.groups)

    def change(self, action, rule, labels):
        self.changes.append((action.value, rule, labels))
        return BaselineChange(action.value, rule, labels, 1 if labels else 3)


@pytest.mark.parametrize("columns", [80, 200])
def test_baselines_are_tables_that_fit(run, columns):
    handlers = baseline_handlers(LearntBaselines())
    code, out, _ = run(handlers, "baseline", "show", columns=columns)
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()] == ["STATE", "learnt", "learning:"]
    code, groups, err = run(handlers, "baseline", "show", "x", columns=columns)
    assert (code, len(groups.splitlines())) == (0, 5)
    assert all(len(line) <= columns and line.isprintable() for line in (out + groups).splitlines())
    assert "above for 5 h" in groups
    assert "held" in groups
    assert err == "3 of 170 groups: give NAME=VALUE for others\n"


@pytest.mark.parametrize("action", ["accept", "hold", "release", "forget"])
def test_changes_of_baselines_are_one_line(run, action):
    commands = LearntBaselines()
    handlers = baseline_handlers(commands)
    code, out, _ = run(handlers, "baseline", action, "x", "process=a\nb", "unit=c")
    assert (code, out.count("\n")) == (0, 1)
    code, out, _ = run(handlers, "baseline", action, "x")
    assert (code, out.endswith(" 3 groups\n")) == (0, True)
    code, out, _ = run(handlers, "baseline", action, "x", "--json")
    assert json.loads(out) == {"action": action, "rule": "x", "labels": {}, "groups": 3}
    assert commands.changes == [(action, "x", {"process": "a\nb", "unit": "c"}), *[(action, "x", {})] * 2]


@pytest.mark.parametrize("label", ["process", "=x=", "process=a process=b"])
def test_labels_that_are_none_are_usage_errors(run, label):
    handlers = rule_handlers(list, list, lambda *_: make_explanation())
    code, out, err = run(handlers, "explain", "slow", *label.split(" "))
    assert (code, out) == ((2, "") if "=" not in label or " " in label else (0, out))
    assert err.count("\n") == (1 if code else 0)


def test_a_refused_reload_prints_each_problem_and_fails(run):
    problems = ("a.toml:3: rule.id: missing", "b.toml:1: file: not TOML")
    handlers = reload_handlers(lambda dry: ReloadAnswer(accepted=False, dry_run=dry, problems=problems))
    code, out, err = run(handlers, "reload", "--dry-run")
    assert (code, out.splitlines()) == (1, list(problems))
    assert err == ("bpf-watchdog: reload would be refused, the former configuration stays in force: 2 problems\n")
    code, out, _ = run(handlers, "reload", "--json")
    assert (code, json.loads(out)["problems"]) == (1, list(problems))


@pytest.mark.parametrize("due", [False, True])
def test_a_dry_run_can_exit_by_whether_a_reload_is_due(run, due):
    handlers = reload_handlers(lambda dry: ReloadAnswer(accepted=True, dry_run=dry, due=due))
    assert run(handlers, "reload", "--dry-run")[0] == 0
    assert run(handlers, "reload", "--dry-run", "--exit-code")[0] == int(due)
    assert run(handlers, "reload", "--exit-code")[0] == 2


def test_changes_of_a_reload_are_listed(run):
    note = "a.toml:1: rule: note: " + "has no effect " * 20
    answer = ReloadAnswer(True, False, notes=(note,), rules=9, shipped=6, origin="/rules", added=("a", "b"),
                          removed=("c",) * 40, settings=("route", "sampling"),
                          restart_keys=("sampling.ledger",))  # fmt: skip
    _, out, _ = run(reload_handlers(lambda _: answer), "reload", columns=80)
    assert out.splitlines() == [
        "reloaded: 9 rules from /rules (6 of them shipped)",
        "rules added: a, b",
        "rules removed: " + ("c, " * 22).rstrip(),
        "  " + ("c, " * 18).rstrip(", "),
        "settings changed: route, sampling",
        "need a restart: sampling.ledger",
        note,  # as `check` prints it
    ]
