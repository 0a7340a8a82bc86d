from __future__ import annotations

import os
import re
import time
from dataclasses import replace

import pytest

from watchdog.config.document import Document
from watchdog.receivers.syslog.syslog_receiver import Syslog
from watchdog.receivers.syslog.wires import wire_from_address
from watchdog.rules.language.rule import Severity

# RFC 5424 §6, limited to the forms that the receiver sends
NAME = rb"[!-<>-\\^-~]{1,32}"
PARAM = NAME + rb'="(?:[^"\\\]]|\\["\\\]])*"'
RECORD = re.compile(
    rb"<(?P<pri>\d{1,3})>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (?P<host>[!-~]{1,255}) bpf-watchdog "
    rb"(?P<procid>\d+) (?P<msgid>[A-Z]{1,32}) (?P<data>\[bpf-watchdog@32473(?: " + PARAM + rb")*\]) "
    rb"\xef\xbb\xbf(?P<msg>.*)",
    re.DOTALL,
)


@pytest.fixture
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def syslog(address="udp://log.example", facility=3, *, use_local_format=False):
    return Syslog("log", wire_from_address(address), facility, use_local_format=use_local_format)


def parsed(record):
    match = RECORD.fullmatch(record)
    assert match is not None, record
    return match


def test_a_record_is_rfc_5424_with_the_facts_as_structured_data(make_notification):
    assert syslog().render(make_notification()) == (
        b"<26>1 2025-06-15T15:06:52.000Z web-1 bpf-watchdog %d FIRING "
        b'[bpf-watchdog@32473 rule="outbound-connection-storm" state="firing" severity="critical" '
        b'fingerprint="0123456789abcdef" notification_id="5f0c7e7a8d9b4c6e8f1a2b3c4d5e6f70" '
        b'value="612.0" threshold="500.0" peak="640.5" started="2025-06-15T15:06:40.000Z" '
        b'process="crawler" unit="crawler.service"] '
        b"\xef\xbb\xbf[FIRING] critical: crawler opens 612/s connections (limit 500/s); "
        b"value 612/s, limit 500/s, peak 640/s; process=crawler, unit=crawler.service; "
        b"since 2025-06-15 15:06:40 UTC, for 12 s; why: value above 500/s for 10 s; "
        b"host web-1, rule outbound-connection-storm" % os.getpid()
    )


def test_the_local_format_is_that_of_syslog3_with_the_facts_at_the_end(make_notification, utc):
    record = syslog("unix:///dev/log", use_local_format=True).render(make_notification())
    assert record.startswith(b"<26>Jun 15 15:06:52 bpf-watchdog[%d]: [FIRING] critical: crawler opens" % os.getpid())
    assert record.endswith(b'process="crawler" unit="crawler.service"]')


def test_a_day_of_one_digit_is_padded_by_a_space(make_notification, utc):
    record = syslog(use_local_format=True).render(make_notification(created=1_748_822_400.0))
    assert record.startswith(b"<26>Jun  2 00:00:00 bpf-watchdog[")


@pytest.mark.parametrize(
    ("changes", "reason", "priority", "message_id"),
    [
        ({}, "first notification", b"26", b"FIRING"),
        ({"severity": Severity.WARNING}, "new alert in group", b"28", b"FIRING"),
        ({}, "repeat", b"26", b"REMINDER"),
        ({"resolved": 1_750_000_100.0}, "resolved", b"29", b"RESOLVED"),
        ({"resolved": 1_750_000_100.0}, "repeat", b"29", b"RESOLVED"),
    ],
)
def test_priority_and_message_id_show_severity_and_event(
    make_alert, make_notification, changes, reason, priority, message_id
):
    record = parsed(syslog().render(make_notification(make_alert(**changes), reason=reason)))
    assert (record["pri"], record["msgid"]) == (priority, message_id)


def test_an_unusual_reason_is_part_of_the_message(make_notification):
    record = parsed(syslog().render(make_notification(reason="escalated", reason_detail="oncall does not answer")))
    assert b"(limit 500/s); escalated: oncall does not answer; value 612/s" in record["msg"]


def test_no_priority_is_above_191(make_alert, make_notification):
    alert = make_alert(resolved=1_750_000_100.0)
    assert parsed(syslog(facility=23).render(make_notification(alert)))["pri"] == b"189"


def test_each_alert_has_its_own_record_worst_first(make_alert, make_notification):
    notification = make_notification(make_alert(severity=Severity.WARNING), make_alert())
    assert [parsed(record)["pri"] for record in syslog().render(notification).split(b"\n")] == [b"26", b"28"]


def test_a_label_never_replaces_a_fact(make_alert, make_notification):
    data = parsed(syslog().render(make_notification(make_alert(labels=(("state", "SYN_SENT"),)))))["data"]
    assert b' state="firing"' in data
    assert b' label_state="SYN_SENT"' in data


def test_the_test_flag_and_the_runbook_are_in_the_structured_data(make_alert, make_notification):
    data = parsed(syslog().render(make_notification(make_alert(runbook="https://wiki.example/a]b"), is_test=True)))[
        "data"
    ]
    assert b' test="true"' in data
    assert data.endswith(rb' runbook="https://wiki.example/a\]b"]')


@pytest.mark.parametrize(("address", "limit"), [("udp://h", 2_048), ("tcp://h", 8_000), ("unix:///log", 8_000)])
def test_hostile_names_make_one_well_formed_record_within_the_limit(hostile_notification, address, limit):
    record = syslog(address).render(hostile_notification)
    assert len(record) <= limit
    assert parsed(record)["msg"].decode().isprintable()
    assert parsed(record)["data"].decode().isprintable()


def test_hostile_names_make_one_well_formed_local_record_within_the_limit(hostile_notification):
    record = syslog("unix:///dev/log", use_local_format=True).render(hostile_notification)
    assert len(record) <= 8_000
    assert record.decode().isprintable()
    assert record.endswith(b"]")


def test_labels_that_do_not_fit_are_left_out_and_the_message_is_kept(make_alert, make_notification):
    labels = tuple((f"label{number}", "é" * 1_000) for number in range(30))
    record = syslog("udp://log.example").render(make_notification(make_alert(labels=labels)))
    assert len(record) <= 2_048
    assert parsed(record)["data"].endswith(b' truncated="yes"]')
    assert parsed(record)["data"].count("…".encode()) == 5  # each shown value is cut at 255 octets
    assert parsed(record)["msg"].startswith(b"[FIRING] critical: crawler opens 612/s connections (limit 500/s)")
    assert parsed(record)["msg"].endswith("…".encode())


def test_a_host_name_is_made_printable_ascii(make_notification):
    assert parsed(syslog().render(make_notification(host="wéb 1\n")))["host"] == b"w?b?1?"
    assert parsed(syslog().render(make_notification(host="")))["host"] == b"-"
    assert parsed(syslog().render(make_notification(host="h" * 300)))["host"] == b"h" * 255


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:///dev/log", "unix:///dev/log"),
        ("udp://log.example", "udp://log.example:514"),
        ("tcp://log.example:1514", "tcp://log.example:1514"),
        ("udp://[2001:db8::1]:1514", "udp://[2001:db8::1]:1514"),
        ("tcp://192.0.2.1", "tcp://192.0.2.1:514"),
        ("tls://log.example", "tls://log.example:6514"),
        ("tls://[2001:db8::1]:1514", "tls://[2001:db8::1]:1514"),
    ],
)
def test_reads_addresses(text, address):
    assert str(wire_from_address(text)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/dev/log",
        "unix:dev/log",
        "unix://dev/log",
        "unix://",
        "unix:///",
        "unix:///" + "x" * 107,
        "tls://",
        "ssl://log.example:6514",
        "udp://",
        "udp://:514",
        "udp://log.example:0",
        "udp://log.example:99999",
        "udp://log.example:port",
        "tcp://log.example/path",
        "tcp://user@log.example",
        "udp://log..example",
        "udp://192.0.2.256",
    ],
)
def test_refuses_invalid_addresses(text):
    with pytest.raises(ValueError, match=r"must be|write it like|[Pp]ort"):
        wire_from_address(text)


@pytest.mark.parametrize(
    ("keys", "problems"),
    [
        ({"address": "tcp://h", "framing": "lf"}, []),
        ({"address": "udp://h", "framing": "octet-counting"}, []),
        ({"address": "tls://h", "framing": "lf"}, ['framing: "lf" is for tcp:// addresses: TLS counts octets']),
        ({"address": "udp://h", "framing": "lf"}, ['framing: "lf" is for tcp:// addresses: TLS counts octets']),
        ({"address": "tcp://h", "framing": "crlf"}, ['framing: unknown value "crlf": known are lf, octet-counting']),
        ({"address": "tcp://h", "ca_file": "/ca.pem"}, ["ca_file: is for tls:// addresses"]),
        ({"address": "tls://h", "fingerprints": ["sha-256:" + ":".join(["a1"] * 32)]}, []),
        ({"address": "tls://h", "fingerprints": ["AB:CD"]}, ["fingerprints: write it like sha-256:AB:CD:…, 32 pairs"]),
        ({"address": "tls://h", "ca_file": "ca.pem"}, ["ca_file: must be an absolute path, not 'ca.pem'"]),
        ({"address": "tls://h", "ca_file": "/none"}, ["ca_file: cannot read '/none': No such file or directory"]),
        ({"address": "tls://h", "ca_file": "/proc/version"}, ["ca_file: '/proc/version' is not a file in PEM form"]),
        ({"address": "tls://h", "cert_file": "/dev"}, ["cert_file: cannot read '/dev': Is a directory"]),
        ({"address": "tls://h", "key_env": "HOME"}, ["key_env: only used together with cert_file"]),
    ],
)
def test_reports_keys_that_a_wire_cannot_use(keys, problems):
    document = Document("", keys, "watchdog.toml")
    Syslog.from_table("log", document.root)
    document.root.reject_unknown_keys()
    found = [f"{problem.key}: {problem.message}" for problem in document.problems]
    assert [text.startswith(start) for text, start in zip(found, problems, strict=True)] == [True] * len(problems), (
        found
    )


def test_evidence_is_cut_before_any_fact(make_alert, make_notification, evidence):
    wordy = replace(evidence, top_process=replace(evidence.top_process, command="é" * 128), peers=evidence.peers * 5)
    labels = tuple((f"label{number}", "x" * 100) for number in range(5))
    message = parsed(syslog("udp://log.example").render(make_notification(make_alert(labels=labels, evidence=wordy))))[
        "msg"
    ]
    facts = parsed(syslog("udp://log.example").render(make_notification(make_alert(labels=labels))))["msg"]

    assert message.startswith(facts + b"; process: crawler, pid 4711 ")
    assert message.endswith("…".encode())
