"""Commands of a running daemon, led through one night: a storm, its alert, and its end."""

from __future__ import annotations

import json
import time

PRINTED = ("status", "alerts", "rules")


def ask(watchdog, *arguments, code=0):
    found, out, err = watchdog.ask(*arguments)
    assert found == code, (arguments, out, err)
    return out


def answer(watchdog, *arguments, code=0):
    return json.loads(ask(watchdog, *arguments, "--json", code=code))


def test_a_storm_is_seen_and_shown_until_its_end(start_daemon, watchdog, storm, notified, wait_for):
    start_daemon()
    assert answer(watchdog, "alerts") == []
    assert ask(watchdog, "alerts") == ""
    storm.hold()
    notified("firing")

    [alert] = answer(watchdog, "alerts")
    assert (alert["state"], alert["severity"], alert["labels"]) == ("firing", "warning", {"process": storm.name})
    wait_for(lambda: answer(watchdog, "alerts")[0]["receivers"][0]["notified"], "the recorded delivery")
    [receiver] = answer(watchdog, "alerts")[0]["receivers"]
    assert (receiver["receiver"], receiver["notified"], receiver["queued"]) == ("hook", "warning", None)
    assert 0 <= time.time() - receiver["notified_at"] < 600
    table = ask(watchdog, "alerts").splitlines()
    assert [line.split()[0] for line in table] == ["FINGERPRINT", alert["fingerprint"][:8]]
    shown = ask(watchdog, "alerts", "show", alert["fingerprint"][:8])
    assert f"process={storm.name}" in shown
    assert "evidence of" in shown
    status = answer(watchdog, "status")
    assert status["alerts"]["warning"] == 1
    assert [(one["name"], one["state"], one["answer"]) for one in status["receivers"]] == [("hook", "ok", "ok")]
    rule = next(rule for rule in answer(watchdog, "rules") if rule["id"] == "storm")
    assert (rule["state"], rule["origin"], rule["fired_in_7_days"]) == ("firing", "own", 1)
    assert rule["worst"]["labels"] == {"process": storm.name}
    found = answer(watchdog, "explain", "storm", f"process={storm.name}")
    assert (found["state"], found["breached"], found["value"]) == ("firing", "warning", storm.LIMIT + 1)
    assert found["destinations"][0]["notified"] == "warning"
    code, _, err = watchdog.ask("explain", "strom")
    assert (code, err) == (2, 'bpf-watchdog: unknown rule "strom": did you mean "storm"?\n')
    effective = ask(watchdog, "rules", "--effective")
    assert f"fire_above = {storm.LIMIT}" in effective
    for command in (["status"], ["alerts"], ["alerts", "show", alert["fingerprint"]], ["rules"], ["explain", "storm"]):
        print(f"$ bpf-watchdog {' '.join(command)}", ask(watchdog, *command), sep="\n")
    print(effective)

    storm.release()
    notified("firing", "resolved")
    assert answer(watchdog, "alerts") == []


def test_an_acknowledged_storm_goes_on_quietly_and_ends_with_one_resolved_notification(
    start_daemon, watchdog, server, storm, notified, wait_for
):
    start_daemon()
    storm.hold()
    notified("firing")
    [alert] = answer(watchdog, "alerts")
    assert ask(watchdog, "ack", alert["fingerprint"][:8], "--comment", "known")
    wait_for(lambda: answer(watchdog, "alerts")[0]["suppressed_by"], "the acknowledgement")
    shown = ask(watchdog, "explain", "storm")
    assert "withheld   by acknowledgement" in shown
    storm.hold()  # twice as many, and still quiet
    wait_for(lambda: answer(watchdog, "alerts")[0]["value"] > storm.LIMIT + 1, "the higher value")
    assert len(server.notifications()) == 1
    storm.release()
    notified("firing", "resolved")
    assert answer(watchdog, "alerts") == []


def test_commands_report_in_one_line_that_no_daemon_runs(watchdog):
    watchdog.state.mkdir()
    for command in (*PRINTED, "baseline show", "baseline accept storm", "baseline forget storm process=x"):
        code, out, err = watchdog.ask(*command.split())
        assert (code, out, err.count("\n")) == (3, "", 1)
        assert "no daemon answers at" in err
        assert err.endswith(": start it, or name its state folder with --state-dir, its socket with --control\n")


def test_a_threshold_is_changed_and_the_alert_that_the_dry_run_names_resolves(start_daemon, watchdog, storm, notified):
    start_daemon()
    storm.hold()
    notified("firing")
    rules = watchdog.rules / "test.toml"
    raised = rules.read_text().replace(f"fire_above = {storm.LIMIT}", "fire_above = 1000")
    rules.write_text(raised.replace(f"clear_below = {storm.LIMIT}", "clear_below = 900"))

    dry = answer(watchdog, "reload", "--dry-run")
    assert (dry["accepted"], dry["changed"], dry["added"], dry["removed"]) == (True, ["storm"], [], [])
    assert [(one["labels"]["process"], one["effect"]) for one in dry["alerts"]] == [(storm.name, "resolves")]
    print(ask(watchdog, "reload", "--dry-run"))
    assert answer(watchdog, "alerts") != []
    assert "reloaded" not in watchdog.log()

    assert ask(watchdog, "reload").startswith("reloaded: ")
    notified("firing", "resolved")
    assert answer(watchdog, "status")["reload"]["result"] == "accepted"
    assert answer(watchdog, "reload", "--dry-run")["changed"] == []


def ask_status(watchdog):
    return watchdog.ask("status")[1]


def test_a_refused_reload_prints_every_problem_and_reaches_status_and_receiver(
    start_daemon, watchdog, storm, server, notified
):
    start_daemon()
    rules = watchdog.rules / "test.toml"
    right = rules.read_text()
    rules.write_text(right.replace('"open"', '"opn"').replace('"last"', '"lst"'))
    for command in (["reload", "--dry-run"], ["reload"]):
        code, out, err = watchdog.ask(*command)
        assert code == 1
        assert [line.split(": ")[1] for line in out.splitlines()] == ["rule.metric", "rule.stat"]
        assert all(line.startswith(f"{rules}:") for line in out.splitlines())
        assert "refused, the former configuration stays in force: 2 problems" in err
    notified("firing")
    code, out, _ = watchdog.ask("status", "--json")
    assert code == 1
    found = json.loads(out)
    problem = found["reload"]["problem"]
    assert (found["reload"]["result"], problem.startswith(f"{rules}:"), "(and 1 more)" in problem) == (
        "refused",
        True,
        True,
    )
    assert " ".join(ask_status(watchdog).split()).count(problem) == 1  # long lines go on below themselves
    assert [alert["rule"] for alert in answer(watchdog, "alerts")] == ["watchdog-reload-refused"]
    rules.write_text(right)
    assert ask(watchdog, "reload").startswith("reloaded: ")
    notified("firing", "resolved")
    assert answer(watchdog, "status")["problems"] == []


def test_a_start_with_broken_files_guards_by_the_last_good_ones_and_reports_that(
    start_daemon, watchdog, storm, server, notified, wait_for
):
    start_daemon()
    assert watchdog.terminate()[0] == 0
    rules = watchdog.rules / "test.toml"
    right, settings = rules.read_text(), watchdog.config.read_text()
    rules.write_text(right + "\n[[rule]\n")
    watchdog.config.write_text(settings + "\nnonsense = 1\n")
    watchdog.start()
    assert "the files have problems, the daemon starts on its last good configuration:" in watchdog.log()
    assert f"{rules}:" in watchdog.log()
    [refused] = notified("firing")
    assert refused["groupLabels"]["alertname"] == "watchdog-reload-refused"
    storm.hold()
    wait_for(lambda: len(server.notifications()) == 2, "the storm")
    code, out, _ = watchdog.ask("status", "--json")
    status = json.loads(out)
    assert (code, status["reload"]["result"]) == (1, "refused")
    rules_in_force = status["rules"]
    last_good = str(watchdog.state / "last-good" / "rules.d")
    assert (rules_in_force["origin"], rules_in_force["shipped"]) == (last_good, 5)
    rules.write_text(right)
    watchdog.config.write_text(settings)
    assert ask(watchdog, "reload").startswith("reloaded: ")
    rules_in_force = answer(watchdog, "status")["rules"]
    assert (rules_in_force["origin"], rules_in_force["shipped"]) == (str(watchdog.rules), 5)
    assert f"from {watchdog.rules} (5 of them shipped)," in " ".join(ask(watchdog, "status").split())


def test_a_start_with_broken_files_of_another_place_is_refused(start_daemon, watchdog, open_folder, wait_for):
    start_daemon()
    assert watchdog.terminate()[0] == 0
    watchdog.config = open_folder / "other.toml"
    watchdog.config.write_text("nonsense = 1\n")
    watchdog.launch()
    assert watchdog.process.wait(60) == 1
    assert "nonsense" in watchdog.log()
