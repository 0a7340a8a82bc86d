"""Commands of a running daemon, led through one night: a storm, its alert, and its end."""

from __future__ import annotations

import json

PRINTED = ("status", "alerts")


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
    print(ask(watchdog, "status"), ask(watchdog, "alerts"), shown, sep="\n")

    storm.release()
    notified("firing", "resolved")
    assert answer(watchdog, "alerts") == []


def test_commands_report_in_one_line_that_no_daemon_runs(watchdog):
    watchdog.state.mkdir()
    for command in PRINTED:
        code, out, err = watchdog.ask(command)
        assert (code, out, err.count("\n")) == (3, "", 1)
        assert "no daemon answers at" in err
