"""The answers of the running daemon, from a pipeline on a simulated host."""

from __future__ import annotations

import json
import logging
import re
import shlex
import time

import pytest
from simulated_host import CALM, PATIENCE, RULE, STORM, SimulatedHost

from watchdog.cli.group_labels import parse_labels
from watchdog.cli.main import main
from watchdog.control.reload_handler import ReloadAnswer
from watchdog.daemon.control_api import ControlApi
from watchdog.daemon.heartbeat import Heartbeat
from watchdog.daemon.reload_alert import Refusal
from watchdog.daemon.status_report import DaemonFacts
from watchdog.errors import DeliveryError, DeliveryErrorReason, UsageError, WatchdogError
from watchdog.kernel.layout import FLAG_SOCKMAP
from watchdog.kernel.quality import LOSS_CAUSES, LOSS_WORDS
from watchdog.receivers.render.notification_text import fact_lines
from watchdog.scheduling.scheduler import Scheduler
from watchdog.scheduling.tick_loop import TickLoop
from watchdog.systemd import Systemd


class Console:
    """The commands of one simulated daemon; `ask` returns an answer as it comes out of the socket."""

    def __init__(self, simulation):
        self.simulation = simulation
        log = logging.getLogger("watchdog")
        loop = TickLoop(Scheduler(simulation.clock, log), Systemd({}), simulation.clock, log)
        self.heartbeat = Heartbeat(simulation.host, list, simulation.clock, log)
        facts = DaemonFacts(loop, self.heartbeat, simulation.host, simulation.clock)
        simulation.receiver.destination = lambda: "webhook example.net"
        configuration = simulation.configuration("storm")
        self.api = ControlApi(simulation.pipeline, simulation.store, facts, configuration, self.reload)
        self.reloads = []

    def reload(self, dry_run):
        self.reloads.append(dry_run)
        return ReloadAnswer(accepted=True, dry_run=dry_run)

    def ask(self, request, **arguments):
        handler = self.api.handlers()[request]
        answer = getattr(handler, "handle", handler)(arguments)
        return json.loads(json.dumps(answer, allow_nan=False))

    def alert(self):
        [alert] = self.ask("alerts list")
        return alert


@pytest.fixture
def simulation(tmp_path, clock):
    simulation = SimulatedHost(tmp_path, clock)
    yield simulation
    simulation.receiver.answering.set()
    simulation.pipeline.stop()


@pytest.fixture
def console(simulation):
    return Console(simulation)


def run(simulation, *connects):
    for count in connects:
        simulation.tick(count)


# -------------------------------------------------------------------------------------------------------------- alerts


def test_an_alert_is_shown_from_pending_over_firing_and_clearing_to_its_end(simulation, console):
    assert console.ask("alerts list") == []
    run(simulation, CALM, STORM, STORM)
    pending = console.alert()
    assert (pending["state"], pending["severity"], pending["labels"]) == ("pending", "warning", {"process": "culprit"})
    assert (pending["value"], pending["limit"], pending["share"]) == (10, 5, 2)
    assert pending["timers"] == [
        {"severity": "warning", "state": "pending", "elapsed_seconds": 0, "duration_seconds": 3, "hits": None}
    ]
    assert (pending["receivers"], pending["fired"]) == ([], None)
    run(simulation, *[STORM] * 3)
    firing = console.alert()
    assert firing["fingerprint"] == pending["fingerprint"]
    assert (firing["state"], firing["value_text"], firing["limit_text"]) == ("firing", "10/s", "5/s")
    assert [one["receiver"] for one in firing["receivers"]] == ["oncall"]
    assert firing["fired"] - firing["since"] == pytest.approx(3)
    assert firing["reason"] == "value above 5/s for 3s"
    run(simulation, CALM, CALM, CALM)
    clearing = console.alert()
    [timer] = clearing["timers"]
    assert (clearing["state"], timer["state"], timer["duration_seconds"]) == ("firing", "clearing", 3)
    run(simulation, *[CALM] * 4)
    assert console.ask("alerts list") == []


def test_an_alert_is_queued_until_its_receiver_has_taken_it(simulation, console, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def shown(*command):
        answer = console.ask(" ".join(command[:2]), **({"fingerprint": command[2]} if command[2:] else {}))
        monkeypatch.setattr("watchdog.cli.alerts.ask_daemon", lambda *_, **__: answer)
        main([*command])
        return capsys.readouterr().out

    simulation.receiver.answering.clear()
    run(simulation, *[STORM] * 6)
    alert = console.alert()
    queued = {"notified": None, "notified_at": None, "queued": "warning"}
    assert alert["receivers"] == [{"receiver": "oncall", **queued}]
    [destination] = console.ask("explain", rule="storm")["destinations"]
    assert queued.items() <= destination.items()
    assert shown("alerts", "list").endswith("oncall (queued)\n")
    assert "receiver     oncall: queued as warning\n" in shown("alerts", "show", alert["fingerprint"])

    simulation.receiver.answering.set()
    deadline = time.monotonic() + PATIENCE
    while not console.alert()["receivers"][0]["notified"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    wall = simulation.clock.wall()
    delivered = {"notified": "warning", "notified_at": wall, "queued": None}
    assert console.alert()["receivers"] == [{"receiver": "oncall", **delivered}]
    [destination] = console.ask("explain", rule="storm")["destinations"]
    assert delivered.items() <= destination.items()
    assert shown("alerts", "list").endswith("  oncall\n")
    assert re.search(
        r"receiver     oncall: delivered 20.* UTC as warning\n", shown("alerts", "show", alert["fingerprint"])
    )


def test_connections_in_a_sockmap_are_counted_as_of_the_newest_tick(simulation, console):
    simulation.kernel.flags |= FLAG_SOCKMAP
    run(simulation, STORM, STORM, STORM)
    assert console.ask("status")["quality"] == {"sockmap_connections": STORM}
    simulation.kernel.missed_events = 3
    run(simulation, CALM, CALM)
    assert console.ask("status")["quality"] == {"missed_events": 6}


def test_critical_alerts_come_first_and_pending_ones_last(simulation, console):
    run(simulation, STORM, STORM, STORM)
    simulation.pipeline.report_refused_reload(Refusal("rules.toml:1: rule.id: missing"))
    simulation.tick(STORM)
    states = [(alert["rule"], alert["severity"], alert["state"]) for alert in console.ask("alerts list")]
    assert states == [
        ("watchdog-reload-refused", "critical", "firing"),
        ("storm", "warning", "pending"),
    ]


def test_one_alert_is_found_by_the_first_characters_of_its_fingerprint(simulation, console):
    run(simulation, *[STORM] * 6)
    fingerprint = console.alert()["fingerprint"]
    detail = console.ask("alerts show", fingerprint=fingerprint[:6])
    assert detail["active"]["fingerprint"] == fingerprint
    assert (detail["alert"]["state"], detail["alert"]["identity"]["host"]) == ("firing", "web-1")
    assert detail["evidence"]["metric"] == "connects"
    assert (detail["rule_file"], detail["rule_line"]) == (str(simulation.rules), 1)
    with pytest.raises(WatchdogError, match="no alert zzz is pending or firing") as caught:
        console.ask("alerts show", fingerprint="zzz")
    assert caught.value.exit_code == 1
    with pytest.raises(UsageError, match="fingerprint is missing"):
        console.ask("alerts show")


def test_a_prefix_of_two_alerts_names_none(simulation, console):
    from watchdog.control.alert_handlers import find_fingerprint

    assert find_fingerprint("ab1", ["ab12", "ab2"]) == "ab12"
    with pytest.raises(UsageError, match="2 alerts have a fingerprint that begins with ab: give more characters"):
        find_fingerprint("ab", ["ab12", "ab2"])


# -------------------------------------------------------------------------------------------------------------- status


def test_the_status_counts_alerts_and_losses_and_has_the_answers_of_receivers(simulation, console, capsys, monkeypatch):
    simulation.kernel.missed_events = 3
    run(simulation, *[STORM] * 6)
    simulation.settle()
    status = console.ask("status")
    assert status["alerts"] == {"pending": 0, "critical": 0, "warning": 1}
    assert status["quality"] == {"missed_events": 18}
    assert LOSS_WORDS.keys() == set(LOSS_CAUSES)
    monkeypatch.setattr("watchdog.cli.status.ask_daemon", lambda *_, **__: status)
    main(["status"])
    assert "lost data  18 events skipped by the kernel: missed_events\n" in capsys.readouterr().out
    assert (status["host"], status["rules"]["count"], status["rules"]["origin"]) == ("web-1", 1, "here")
    assert status["reload"] == {"result": "none", "at": None, "problem": None}
    [receiver] = status["receivers"]
    assert (receiver["name"], receiver["state"], receiver["destination"]) == ("oncall", "ok", "webhook example.net")
    assert (receiver["pending"], receiver["lost"]) == (0, {})


def test_the_status_and_the_alerts_have_the_silences(simulation, console):
    nothing = {"silences": 0, "acknowledgements": 0, "mute_times": [], "suppressed_alerts": 0, "withheld": {}}
    assert console.ask("status")["suppression"] == nothing
    added = console.ask("silence add", matchers=["rule=storm"], duration="1h", comment="move")
    run(simulation, *[STORM] * 6)
    assert console.alert()["suppressed_by"] == [f"silence {added['id']}"]
    acknowledged = console.ask("ack", fingerprint=console.alert()["fingerprint"])
    simulation.tick(STORM)
    assert console.alert()["suppressed_by"] == [f"acknowledgement {acknowledged['id']}", f"silence {added['id']}"]
    assert console.ask("status")["suppression"] == {
        "silences": 1,
        "acknowledgements": 1,
        "mute_times": [],
        "suppressed_alerts": 1,
        "withheld": {"silence": 1},
    }


def test_the_status_of_a_receiver_that_fails_has_its_reason_and_queue(simulation, console):
    simulation.receiver.error = DeliveryError(DeliveryErrorReason.CONNECT, "refused", retryable=True)
    simulation.others = {"none": simulation.receiver}  # no waiting for deliveries
    run(simulation, *[STORM] * 6)

    def oncall():
        return next(one for one in console.ask("status")["receivers"] if one["name"] == "oncall")

    for _ in range(1_000):  # the attempt is made by the receiver's thread
        if oncall()["answer"]:
            break
        time.sleep(0.01)
    assert oncall()["state"] == "failing"
    assert (oncall()["reason"], oncall()["pending"], oncall()["answer"]) == ("connect: refused", 1, "connect: refused")


# ------------------------------------------------------------------------------------------------------------- rules


def rule_of(console):
    [rule] = console.ask("rules list")
    return rule


def test_a_rule_is_listed_from_never_matched_over_pending_and_firing_with_its_history(simulation, console):
    run(simulation, CALM)
    before = rule_of(console)
    assert (before["state"], before["has_matched"], before["worst"], before["groups"]) == ("inactive", False, None, 0)
    assert (before["file"], before["line"], before["origin"]) == (str(simulation.rules), 1, "own")
    assert (before["last_fired"], before["fired_in_7_days"]) == (None, 0)
    run(simulation, STORM, STORM)
    pending = rule_of(console)
    assert (pending["state"], pending["pending"], pending["has_matched"]) == ("pending", 1, True)
    assert pending["timer"]["duration_seconds"] == 3
    assert pending["worst"] == {"labels": {"process": "culprit"}, "value": 10, "value_text": "10/s", "share": 2}
    run(simulation, *[STORM] * 3)
    firing = rule_of(console)
    assert (firing["state"], firing["firing"], firing["fired_in_7_days"]) == ("firing", 1, 1)
    assert firing["last_fired"] == pytest.approx(simulation.clock.wall(), abs=1)


def add_wider_rule(simulation, console, waits):
    wider = RULE.format(id="wider").replace("{process}", "{user}").replace('for = "3s"\n', waits, 1)
    simulation.more_rules = wider.replace('by = ["process"]', 'by = ["user"]\nunless_firing = ["storm"]')
    simulation.pipeline.reload(simulation.configuration("storm"))
    console.api.configuration = simulation.configuration("storm")


def test_a_wider_rule_that_would_fire_names_the_rule_that_reports_its_group(simulation, console):
    add_wider_rule(simulation, console, 'for = "5s"\n')
    run(simulation, *[STORM] * 9)
    states = {rule["id"]: (rule["state"], rule["reason"]) for rule in console.ask("rules list")}
    assert states == {"storm": ("firing", ""), "wider": ("inactive", "reported by storm")}


def test_a_wider_rule_waits_for_the_narrower_one_and_explains_it(simulation, console):
    add_wider_rule(simulation, console, "")
    run(simulation, *[STORM] * 3)
    assert {rule["id"]: rule["state"] for rule in console.ask("rules list")} == {"storm": "pending", "wider": "pending"}
    assert console.ask("explain", rule="wider")["conclusion"] == (
        "it is pending (a narrower rule is about to report it): it fires if that rule does not"
    )
    run(simulation, *[STORM] * 4)
    assert {rule["id"]: rule["state"] for rule in console.ask("rules list")} == {"storm": "firing", "wider": "inactive"}


def test_the_history_of_a_rule_survives_a_restart_and_forgets_after_seven_days(simulation):
    run(simulation, *[STORM] * 6)
    simulation.pipeline.stop()
    simulation.begin("storm")
    [rule] = Console(simulation).ask("rules list")
    assert rule["fired_in_7_days"] == 1
    simulation.clock.advance(8 * 24 * 3_600)
    [later] = Console(simulation).ask("rules list")
    assert (later["fired_in_7_days"], later["last_fired"]) == (0, rule["last_fired"])


def test_a_rule_without_a_tick_since_the_reload_is_unknown(simulation, console):
    run(simulation, CALM)
    simulation.pipeline.reload(simulation.configuration("storm", "other"))
    states = [(rule["id"], rule["state"], rule["reason"]) for rule in console.ask("rules list")]
    assert states == [
        ("storm", "unknown", "no tick since the reload or start"),
        ("other", "unknown", "no tick since the reload or start"),
    ]
    with pytest.raises(WatchdogError, match="rule storm cannot be explained: no tick since the reload"):
        console.ask("explain", rule="storm")


def test_effective_values_have_their_file_and_line(simulation, console):
    [rule] = console.ask("rules effective")
    assert (rule["id"], rule["origin"]) == ("storm", "own")
    assert {value["key"]: (value["toml"], value["file"]) for value in rule["values"]} == {
        key: (toml, f"{simulation.rules}:{line}")
        for line, (key, toml) in enumerate(
            [
                ("id", '"storm"'),
                ("summary", '"{process}: {value}"'),
                ("metric", '"connects"'),
                ("stat", '"rate"'),
                ("window", '"2s"'),
                ("by", '["process"]'),
                ("where.process", '"culprit*"'),
                ("fire_above", "5"),
                ("for", '"3s"'),
                ("keep_firing_for", '"3s"'),
            ],
            start=2,
        )
    }


def test_an_explanation_has_the_exceptions_and_whether_they_are_needed(simulation, console):
    except_ = '[[rule.except]]\nwhere = {{ process = "{}" }}\nowner = "ada"\nreason = "nightly"\n'
    simulation.rule_labels = except_.format("culprit") + except_.format("gone") + "until = 2099-12-31\n"
    configuration = simulation.configuration("storm")
    simulation.pipeline.reload(configuration)
    console.api.take_configuration(configuration)
    run(simulation, CALM, STORM, STORM)
    found = console.ask("explain", rule="storm")
    assert found["rows_selected"] == 0
    usual = {"owner": "ada", "reason": "nightly"}
    assert found["exceptions"] == [
        {"where": {"process": ["culprit"]}, **usual, "until": None, "has_excluded": True},
        {"where": {"process": ["gone"]}, **usual, "until": "2099-12-31", "has_excluded": False},
    ]
    [effective] = console.ask("rules effective")
    assert "nightly" in json.dumps(effective)


def test_an_explanation_has_rows_values_timers_and_receivers(simulation, console):
    run(simulation, CALM, STORM, STORM, STORM)
    found = console.ask("explain", rule="storm")
    assert (found["labels"], found["state"], found["breached"]) == ({"process": "culprit"}, "pending", "warning")
    assert (found["rows_selected"], found["rows_group"]) == (10, 10)
    assert found["metrics"] == [{"metric": "connects", "statistic": "sum", "window": 20, "newest": 10}]
    assert (found["value"], found["low"], found["high"]) == (10, 10, 10)
    assert [(one["severity"], one["breached"], one["cleared"]) for one in found["thresholds"]] == [
        ("warning", True, False)
    ]
    assert (found["earliest_seconds"], found["conclusion"]) == (
        2,
        "it is pending: it fires in 2s if the condition stays true",
    )
    [destination] = found["destinations"]
    assert (destination["receiver"], destination["group_key"], destination["notified"]) == ("oncall", "storm", None)
    run(simulation, STORM, STORM)
    assert console.ask("explain", rule="storm", labels={"process": "culprit"})["conclusion"] == "it fires"


def test_an_explanation_of_a_calm_group_says_what_would_have_to_change(simulation, console):
    run(simulation, CALM, 2, 2)
    found = console.ask("explain", rule="storm", labels={"process": "culprit"})
    assert (found["state"], found["breached"], found["has_group"]) == ("inactive", None, True)
    assert found["conclusion"] == "it does not fire: it fires 3s after its value gets above 5/s, at the earliest"
    missing = console.ask("explain", rule="storm", labels={"process": "nobody"})
    assert (missing["has_group"], missing["rows_group"], missing["by"]) == (False, 0, ["process"])
    assert missing["conclusion"].startswith("it does not fire (the group has no rows now): it fires ")


NOVELTY = """
[[rule]]
id = "new"
summary = "{process} is new"
metric = "connects"
by = ["process", "unit"]
[rule.novelty]
learn = "1s"
"""


def test_the_first_sight_of_a_group_is_explained_and_listed_without_a_limit(simulation, console, capsys, monkeypatch):
    simulation.more_rules = NOVELTY
    simulation.pipeline.reload(simulation.configuration("storm"))
    run(simulation, CALM, 0, 0, 2, 0)
    found = console.ask("explain", rule="new")
    assert found["conclusion"] == "it fires, and is cleared: it resolves in 1h"
    monkeypatch.setattr("watchdog.cli.explain.ask_daemon", lambda *_, **__: found)
    assert main(["explain", "new"]) == 0
    text = capsys.readouterr().out
    assert "warning    fires when a group is seen for the first time, at any value" in text
    alert = console.alert()
    assert alert["limit_text"] == "none"
    [notification] = simulation.receiver.notifications
    assert "value 2, limit none" in "\n".join(fact_lines(notification.alerts[0], notification))
    detail = console.ask("alerts show", fingerprint=alert["fingerprint"])
    monkeypatch.setattr("watchdog.cli.alerts.ask_daemon", lambda *_, **__: detail)
    assert main(["alerts", "show", alert["fingerprint"]]) == 0
    [command] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("explain ")]
    assert shlex.split(command)[3:] == ["new", "process=culprit", "unit="]
    assert parse_labels(shlex.split(command)[4:]) == parse_labels(["process=culprit", "unit=-"]) == alert["labels"]


def test_alerts_of_the_daemon_about_itself_have_a_runbook_and_nothing_to_explain(
    simulation, console, capsys, monkeypatch
):
    simulation.pipeline.report_refused_reload(Refusal("/etc/x.toml:3: rule.stat: unknown"))
    run(simulation, CALM)
    detail = console.ask("alerts show", fingerprint=console.alert()["fingerprint"])
    assert detail["runbook"] == "https://wiki/#watchdog-reload-refused"
    monkeypatch.setattr("watchdog.cli.alerts.ask_daemon", lambda *_, **__: detail)
    assert main(["alerts", "show", "x"]) == 0
    shown = capsys.readouterr().out
    assert "runbook      https://wiki/#watchdog-reload-refused" in shown
    assert "bpf-watchdog explain" not in shown


def test_names_of_processes_are_quoted_in_the_command_that_explains_an_alert(simulation, console, capsys, monkeypatch):
    run(simulation, CALM, *[STORM] * 6)
    detail = console.ask("alerts show", fingerprint=console.alert()["fingerprint"])
    detail["active"]["labels"] = {"process": "$(reboot) x"}
    monkeypatch.setattr("watchdog.cli.alerts.ask_daemon", lambda *_, **__: detail)
    assert main(["alerts", "show", "x"]) == 0
    assert "bpf-watchdog explain storm 'process=$(reboot) x'" in capsys.readouterr().out


def test_unknown_rules_and_labels_are_named_in_an_explanation(simulation, console):
    run(simulation, CALM)
    with pytest.raises(UsageError, match='unknown rule "strom": did you mean "storm"'):
        console.ask("explain", rule="strom")
    with pytest.raises(UsageError, match='unknown rule "other": known are storm'):
        console.ask("explain", rule="other")
    with pytest.raises(UsageError, match=r'"watchdog-receiver-down" has no rule: .* see bpf-watchdog alerts'):
        console.ask("explain", rule="watchdog-receiver-down")
    with pytest.raises(UsageError, match='unknown label "proces": did you mean "process"'):
        console.ask("explain", rule="storm", labels={"proces": "x"})
    with pytest.raises(UsageError, match="labels must be an object of texts"):
        console.ask("explain", rule="storm", labels={"process": 3})
