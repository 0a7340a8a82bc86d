"""Commands of a running daemon, led through one night: a storm, its alert, and its end."""

from __future__ import annotations

import json

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
    assert alert["receivers"] == [{"receiver": "hook", "notified": "warning"}]
    table = ask(watchdog, "alerts").splitlines()
    assert [line.split()[0] for line in table] == ["ALERT", alert["fingerprint"][:8]]
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


def test_commands_report_in_one_line_that_no_daemon_runs(watchdog):
    watchdog.state.mkdir()
    for command in PRINTED:
        code, out, err = watchdog.ask(command)
        assert (code, out, err.count("\n")) == (3, "", 1)
        assert "no daemon answers at" in err
