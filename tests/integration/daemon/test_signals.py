"""SIGTERM and SIGHUP to the running daemon."""

from __future__ import annotations

import signal

STOP_SECONDS = 17.0  # below TimeoutStopSec of the unit


def alerts_of(documents):
    return [(alert["labels"]["alertname"], alert["status"]) for document in documents for alert in document["alerts"]]


def test_it_stops_in_time_although_the_receiver_hangs_and_the_end_follows_without_a_copy_after_the_next_start(
    start_daemon, watchdog, server, storm, wait_for
):
    server.answering.clear()
    start_daemon()
    storm.hold()
    wait_for(lambda: server.posts, "the request")
    code, took = watchdog.terminate()
    assert (code, took < STOP_SECONDS) == (0, True)
    server.answering.set()
    watchdog.start()
    storm.release()
    states = "SELECT state FROM notifications ORDER BY sequence"
    wait_for(lambda: watchdog.saved(states) == ["merged", "delivered"], "the end")
    assert server.statuses() == ["firing", "resolved"]


def test_it_stops_in_time_in_the_middle_of_a_reload_too(start_daemon, watchdog, server, storm, wait_for):
    server.answering.clear()
    start_daemon()
    storm.hold()
    wait_for(lambda: server.posts, "the request")
    watchdog.process.send_signal(signal.SIGHUP)
    code, took = watchdog.terminate()

    assert (code, took < STOP_SECONDS) == (0, True)


def test_a_reload_keeps_the_windows_of_rules_that_stay_the_same(watchdog, server, storm, notified):
    halfway = storm.rule(stat="sum", window="1m", fire_above=99, clear_below=1)
    whole = storm.rule(stat="sum", window="1m", fire_above=199, clear_below=1)
    rules = {"halfway": halfway, "whole": whole}
    hook = {"hook": server.as_receiver()}
    watchdog.configure(hook, rules)
    watchdog.start()
    storm.open(100)
    notified("firing")
    watchdog.configure(hook, {**rules, "other": storm.rule(fire_above=1_000_000)})
    assert "reloaded: rules=8 " in watchdog.reload()
    storm.open(100)
    documents = notified("firing", "firing")

    assert alerts_of(documents) == [("halfway", "firing"), ("whole", "firing")]
    assert float(documents[1]["alerts"][0]["annotations"]["value"]) == 200


def test_a_reload_applies_new_rules_and_resolves_alerts_of_removed_ones(
    start_daemon, watchdog, server, storm, notified
):
    hook = {"hook": server.as_receiver()}
    start_daemon()
    storm.hold()
    notified("firing")
    second = storm.crowd_rule(fire_above=storm.LIMIT - 1, clear_below=storm.LIMIT - 1)
    watchdog.configure(hook, {"storm": storm.crowd_rule(), "second": second})
    assert "reloaded: rules=7 " in watchdog.reload()
    assert alerts_of(notified("firing", "firing")) == [("storm", "firing"), ("second", "firing")]
    watchdog.configure(hook, {"second": second})
    watchdog.reload()
    last = notified("firing", "firing", "resolved")[-1]
    assert alerts_of([last]) == [("storm", "resolved")]
    assert last["alerts"][0]["annotations"]["reason"] == "rule removed"
    storm.release()
    assert alerts_of(notified("firing", "firing", "resolved", "resolved")[-1:]) == [("second", "resolved")]


def test_broken_files_change_nothing_and_the_log_has_their_lines(start_daemon, watchdog, storm, notified):
    start_daemon()
    rules, settings = watchdog.rules / "test.toml", watchdog.config
    right = {file: file.read_text() for file in (rules, settings)}
    rules.write_text(right[rules].replace('"open"', '"opn"'))
    settings.write_text(right[settings].replace('"webhook"', '"webhok"'))
    metric = right[rules].splitlines().index('metric = "open"') + 1
    kind = right[settings].splitlines().index('type = "webhook"') + 1
    refusal = watchdog.reload()
    assert [line.split(" ", 1)[1] for line in refusal.splitlines()[:1]] == [
        "ERROR reload refused, the former configuration stays in force:"
    ]
    assert sorted(refusal.splitlines()[1:]) == sorted(
        [
            f'  {rules}:{metric}: rule.metric: unknown metric "opn": did you mean "open"?',
            f'  {settings}:{kind}: receiver.type: unknown type "webhok": did you mean "webhook"?',
        ]
    )
    storm.hold()
    notified("firing", "firing")  # of the refused reload, and of the storm by the former rules
    for file, text in right.items():
        file.write_text(text)
    assert "reloaded: rules=6 " in watchdog.reload()
    storm.release()
    notified("firing", "firing", "resolved", "resolved")


def test_a_reload_refuses_files_that_only_root_can_read(start_daemon, watchdog, storm, notified):
    start_daemon()
    watchdog.config.chmod(0o600)
    assert f"{watchdog.config}:1: file: cannot read: Permission denied: it must be" in watchdog.reload()
    storm.hold()
    notified("firing", "firing")


def test_a_receiver_added_by_a_reload_gets_the_firing_alerts_and_the_others_get_nothing(
    start_daemon, watchdog, server, other_server, storm, notified, wait_for
):
    start_daemon()
    storm.hold()
    notified("firing")
    watchdog.configure({"hook": server.as_receiver(), "new": other_server.as_receiver()}, {"storm": storm.crowd_rule()})
    watchdog.reload()
    wait_for(lambda: other_server.posts, "the new receiver's notice")
    storm.release()
    wait_for(lambda: len(other_server.posts) == 2, "the end")

    assert other_server.statuses() == ["firing", "resolved"]
    notified("firing", "resolved")


def test_a_reload_names_the_changed_keys_that_need_a_restart(start_daemon, watchdog, server, storm):
    start_daemon()
    file = watchdog.config
    file.write_text(file.read_text().replace("[sampling]\n", "[sampling]\nledger = 1024\n"))
    assert "changed keys take effect at a restart only, former values stay: keys=sampling.ledger\n" in watchdog.reload()
    assert "changed keys" in watchdog.reload()
