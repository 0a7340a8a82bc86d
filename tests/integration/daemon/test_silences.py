"""The commands `silence` and `ack` against the real daemon."""

from __future__ import annotations

import json


def silences(watchdog):
    code, out, err = watchdog.ask("silence", "list", "--json")
    assert code == 0, err
    return json.loads(out)["silences"]


def test_an_acknowledged_alert_ends_once_and_its_acknowledgement_with_it(
    start_daemon, watchdog, storm, notified, wait_for
):
    start_daemon()
    storm.hold()
    [notification] = notified("firing")
    fingerprint = notification["alerts"][0]["fingerprint"]
    code, out, err = watchdog.ask("ack", fingerprint[:10], "--author", "ada")
    assert (code, err) == (0, "")
    assert out.startswith(f"acknowledged: alert {fingerprint} is silenced until it resolves")
    matchers = (f"process={storm.name}", "severity=warning", "severity=critical")
    code, out, _ = watchdog.ask("silence", "add", *matchers, "--for", "1h", "--comment", "move", "--json")
    assert (code, json.loads(out)["alerts"]) == (0, [fingerprint])

    watchdog.kill()
    watchdog.start()
    assert next((one["kind"], one["author"]) for one in silences(watchdog)) == ("acknowledgement", "ada")
    storm.release()
    notified("firing", "resolved")
    wait_for(lambda: len(silences(watchdog)) == 1, "the end of the acknowledgement")
    assert watchdog.ask("ack", fingerprint)[0] == 1
    [silence] = silences(watchdog)
    assert watchdog.ask("silence", "list")[1].splitlines()[1].startswith(silence["id"])
    assert watchdog.ask("silence", "expire", silence["id"]) == (0, f"{silence['id']}: ended\n", "")
    assert watchdog.ask("silence", "expire", silence["id"])[0] == 1
    assert watchdog.ask("silence", "add", "proces=x", "--for", "1h", "--comment", "x")[0] == 2
    code, out, _ = watchdog.ask("silence", "add", "unit=-", "--for", "1h", "--comment", "x", "--json")
    assert (code, json.loads(out)["matchers"]) == (0, {"unit": [""]})


def test_without_a_daemon_the_commands_say_so_in_one_line(watchdog):
    watchdog.state.mkdir()
    for command in (("silence", "list"), ("ack", "feed")):
        code, out, err = watchdog.ask(*command)
        assert (code, out, err.count("\n")) == (3, "", 1)
