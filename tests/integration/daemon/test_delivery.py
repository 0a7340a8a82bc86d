"""One run of the daemon against real receivers, read at their end."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import os
import re
import socket
import time

from watchdog.alerts.alert import fingerprint

SECRET = "made-up"
WIRES = {"local0": "log5424", "local1": "udp", "local2": "tcp"}  # by facility
FACILITIES = (16, 17, 18)
LEVELS = {"FIRING": 4, "RESOLVED": 5}


def test_firing_and_resolved_reach_every_receiver_and_name_the_process(
    watchdog, server, other_server, rsyslog, storm, start_storm, wait_for
):
    calm = start_storm(f"calm-{os.getpid()}")
    syslogs = {
        facility: {"type": "syslog", "address": rsyslog.address(wire), "facility": facility}
        for facility, wire in WIRES.items()
    }
    watchdog.configure(
        receivers={
            "hook": server.as_receiver(hmac_secret=SECRET),
            "oncall": {"type": "slack", "webhook_url": other_server.url},
            **syslogs,
        },
        rules={"storm": storm.rule(where={"process": [storm.name, calm.name]}, keep_firing_for="1s")},
    )
    watchdog.start()
    began = time.time()
    calm.rage(storm.LIMIT / 5)
    storm.rage()
    rsyslog.arrived(3)
    wait_for(lambda: server.posts and other_server.posts, "the first notices")
    storm.rest()
    records = rsyslog.arrived(6)
    wait_for(lambda: len(server.posts) == len(other_server.posts) == 2, "the last notices")
    assert watchdog.terminate()[0] == 0

    check_webhook(server, storm, began)
    check_slack(other_server, storm)
    check_syslog(rsyslog.arrived(6), storm)
    ids = [
        *server.notifications(),
        *other_server.notifications(),
        *(parameter(record, "notification_id") for record in records),
    ]
    assert len(set(ids)) == len(ids) == 2 * (2 + len(WIRES))


def check_webhook(server, storm, began):
    documents = list(server.notifications().values())
    assert len(server.posts) == 2
    assert [(document["version"], document["status"]) for document in documents] == [("4", "firing"), ("4", "resolved")]
    assert [document["notification_reason"] for document in documents] == ["first notification", "resolved"]
    first, last = (alert for document in documents for alert in document["alerts"])
    assert (first["status"], last["status"]) == ("firing", "resolved")
    host = socket.gethostname()
    labels = {"alertname": "storm", "process": storm.name, "severity": "warning", "host": host, "instance": host}
    assert first["labels"] == last["labels"] == labels
    assert first["fingerprint"] == last["fingerprint"] == fingerprint("storm", (("process", storm.name),))
    assert first["endsAt"] == "0001-01-01T00:00:00Z"
    assert first["startsAt"] == last["startsAt"]
    assert began < seconds(last["startsAt"]) < seconds(last["endsAt"]) <= time.time()
    assert first["annotations"]["summary"].startswith(f"{storm.name} opens ")
    value, peak = float(first["annotations"]["value"]), float(last["annotations"]["peak"])
    # The process opens no more than ordered, but after a pause of a busy machine it catches up within a window.
    assert storm.LIMIT < value <= peak <= 2 * storm.RATE
    assert float(last["annotations"]["value"]) < storm.LIMIT / 2
    for _, headers, body in server.posts:
        signed = hmac.new(SECRET.encode(), headers["X-Watchdog-Timestamp"].encode() + b":" + body, hashlib.sha256)
        assert headers["X-Watchdog-Signature"] == f"sha256={signed.hexdigest()}"
        assert began - 1 <= int(headers["X-Watchdog-Timestamp"]) <= time.time()


def check_slack(server, storm):
    messages = list(server.notifications().values())
    assert len(server.posts) == len(messages) == 2
    for message, state in zip(messages, LEVELS, strict=True):
        title = f"[{state}] warning: {storm.name} opens "
        assert title in message["text"]
        section = message["blocks"][1]["text"]["text"]
        assert title in section
        assert f"process={storm.name}" in section


def check_syslog(records, storm):
    assert len(records) == 6
    assert {(record["pri"], record["msgid"]) for record in records} == {
        (str(facility * 8 + level), state) for facility in FACILITIES for state, level in LEVELS.items()
    }
    for record in records:
        assert (record["app"], record["host"]) == ("bpf-watchdog", socket.gethostname())
        assert parameter(record, "process") == storm.name
        assert parameter(record, "state") == record["msgid"].lower()
        assert parameter(record, "fingerprint") == fingerprint("storm", (("process", storm.name),))
        assert f"[{record['msgid']}] warning: {storm.name} opens " in record["msg"]


def parameter(record, name):
    return re.search(rf' {name}="([^"]*)"', record["data"])[1]


def seconds(timestamp):
    return dt.datetime.fromisoformat(timestamp).timestamp()


def test_a_hostile_process_name_is_harmless_wherever_it_arrives(
    watchdog, server, other_server, rsyslog, start_storm, wait_for
):
    storm, shown = start_storm("<!channel>\n\x1b[2J"), r"<!channel>\x0a\x1b[2J"
    watchdog.configure(
        receivers={
            "hook": server.as_receiver(),
            "oncall": {"type": "slack", "webhook_url": other_server.url},
            "log": {"type": "syslog", "address": rsyslog.address("log5424")},
            "terminal": {"type": "console"},
        },
        rules={"storm": storm.rule(where={"process": "<!chan*"}, keep_firing_for="1s")},
    )
    watchdog.start()
    storm.rage()
    rsyslog.arrived(1)
    wait_for(lambda: server.posts and other_server.posts, "the notices")
    storm.rest()
    firing, resolved = rsyslog.arrived(2)
    wait_for(lambda: len(server.posts) == len(other_server.posts) == 2, "the ends")
    assert watchdog.terminate()[0] == 0

    for document in server.notifications().values():
        assert [alert["labels"]["process"] for alert in document["alerts"]] == [shown]
    for message in other_server.notifications().values():
        assert "&lt;!channel&gt;" in message["text"]
        assert "<!" not in json.dumps(message)
    assert len(rsyslog.arrived(2)) == 2
    for record, state in ((firing, "FIRING"), (resolved, "RESOLVED")):
        assert record["msgid"] == state
        assert parameter(record, "process") == shown.replace("\\", "\\\\")
        assert f"{shown} opens " in record["msg"]
    assert f"[FIRING] warning: {shown} opens " in watchdog.output()
    assert "\x1b" not in watchdog.output() + watchdog.log()
