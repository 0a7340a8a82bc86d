from __future__ import annotations

import re

import pytest

from watchdog.config.document import Document
from watchdog.receivers.journald import FIRING_MESSAGE_ID, REMINDER_MESSAGE_ID, RESOLVED_MESSAGE_ID, Journald
from watchdog.rules.language.rule import Severity


@pytest.fixture
def journald():
    return Journald("journal", "/run/systemd/journal/socket")


def parsed(octets):
    """Parse entries as systemd.io, "Journal native protocol", describes: one field after the other."""
    entries, fields = [], {}
    while octets:
        line, _, octets = octets.partition(b"\n")
        if not line:  # end of an entry
            entries.append(fields)
            fields = {}
            continue
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(octets[:8], "little")
            value, end, octets = octets[8 : 8 + size], octets[8 + size : 9 + size], octets[9 + size :]
            assert end == b"\n"
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name), name
        assert name not in fields, name
        fields[name.decode()] = value.decode()
    return [*entries, fields]


def test_an_entry_has_a_field_for_each_fact(journald, make_alert, make_notification):
    [entry] = parsed(journald.render(make_notification(make_alert(runbook="https://wiki.example/storm"))))
    assert entry == {
        "MESSAGE": "[FIRING] critical: crawler opens 612/s connections (limit 500/s)\n"
        "value 612/s, limit 500/s, peak 640/s\n"
        "process=crawler, unit=crawler.service\n"
        "since 2025-06-15 15:06:40 UTC, for 12 s; why: value above 500/s for 10 s\n"
        "host web-1, rule outbound-connection-storm",
        "PRIORITY": "2",
        "MESSAGE_ID": "3be99c91d943483786b7b7eb0620bb01",
        "SYSLOG_IDENTIFIER": "bpf-watchdog",
        "SYSLOG_FACILITY": "3",
        "DOCUMENTATION": "https://wiki.example/storm",
        "WATCHDOG_RULE": "outbound-connection-storm",
        "WATCHDOG_STATE": "firing",
        "WATCHDOG_SEVERITY": "critical",
        "WATCHDOG_FINGERPRINT": "0123456789abcdef",
        "WATCHDOG_NOTIFICATION_ID": "5f0c7e7a8d9b4c6e8f1a2b3c4d5e6f70",
        "WATCHDOG_NOTIFICATION_REASON": "first notification",
        "WATCHDOG_REASON": "value above 500/s for 10 s",
        "WATCHDOG_HOST": "web-1",
        "WATCHDOG_VALUE": "612.0",
        "WATCHDOG_THRESHOLD": "500.0",
        "WATCHDOG_PEAK": "640.5",
        "WATCHDOG_STARTED": "2025-06-15T15:06:40.000Z",
        "WATCHDOG_LABEL_PROCESS": "crawler",
        "WATCHDOG_LABEL_UNIT": "crawler.service",
    }


@pytest.mark.parametrize(
    ("changes", "reason", "priority", "identity"),
    [
        ({}, "first notification", "2", FIRING_MESSAGE_ID),
        ({"severity": Severity.WARNING}, "new alert in group", "4", FIRING_MESSAGE_ID),
        ({}, "repeat", "2", REMINDER_MESSAGE_ID),
        ({"resolved": 1_750_000_100.0}, "resolved", "5", RESOLVED_MESSAGE_ID),
    ],
)
def test_priority_and_message_id_follow_the_event(
    journald, make_alert, make_notification, changes, reason, priority, identity
):
    [entry] = parsed(journald.render(make_notification(make_alert(**changes), reason=reason)))
    assert (entry["PRIORITY"], entry["MESSAGE_ID"]) == (priority, identity)
    assert ("WATCHDOG_RESOLVED" in entry) == ("resolved" in changes)


def test_each_alert_has_its_own_entry_worst_first(journald, make_alert, make_notification):
    notification = make_notification(make_alert(severity=Severity.WARNING), make_alert(), is_test=True)
    entries = parsed(journald.render(notification))
    assert [entry["PRIORITY"] for entry in entries] == ["2", "4"]
    assert {entry["WATCHDOG_TEST"] for entry in entries} == {"true"}


def test_a_label_cannot_replace_a_fact(journald, make_alert, make_notification):
    [entry] = parsed(journald.render(make_notification(make_alert(labels=(("state", "SYN_SENT"), ("a-b", "x"))))))
    assert (entry["WATCHDOG_STATE"], entry["WATCHDOG_LABEL_STATE"]) == ("firing", "SYN_SENT")
    assert entry["WATCHDOG_LABEL_A_B"] == "x"


def test_hostile_names_stay_in_their_field(journald, hostile_notification, make_notification):
    [entry] = parsed(journald.render(hostile_notification))
    [plain] = parsed(journald.render(make_notification()))
    assert entry.keys() == plain.keys()
    for name, value in entry.items():
        assert all(line.isprintable() for line in (value.split("\n") if name == "MESSAGE" else [value]))
        assert len(value) <= (7_200 if name == "MESSAGE" else 1_024)


def test_limit_usage_has_the_size_of_each_entry(journald, make_alert, make_notification):
    notification = make_notification(make_alert(), make_alert(resolved=1_750_000_100.0))
    first = len(journald.render(make_notification()))
    second = len(journald.render(notification)) - first - 1
    assert journald.limit_usage(notification) == [
        f"{first:,} octets; 5 of 100 lines",
        f"{second:,} octets; 5 of 100 lines",
    ]


@pytest.mark.parametrize(
    ("keys", "destination", "problems"),
    [
        ({}, "journal unix:///run/systemd/journal/socket", 0),
        (
            {"address": "unix:///run/systemd/journal.alerts/socket"},
            "journal unix:///run/systemd/journal.alerts/socket",
            0,
        ),
        ({"address": "udp://journal"}, "journal unix:///run/systemd/journal/socket", 1),
    ],
)
def test_the_address_is_read(keys, destination, problems):
    document = Document("", keys, "watchdog.toml")
    assert Journald.from_table("journal", document.root).destination() == destination
    assert len(document.problems) == problems
