from __future__ import annotations

import pytest

from watchdog.alerts.alert import AlertState
from watchdog.receivers.render import notification_text
from watchdog.rules.language.rule import OVERFLOW_LABELS, Severity


def test_a_firing_alert_shows_value_labels_times_reason_and_host(make_alert, make_notification):
    notification = make_notification()
    assert [
        notification_text.alert_title(make_alert(), notification),
        *notification_text.detail_lines(make_alert(), notification),
    ] == [
        "[FIRING] critical: crawler opens 612/s connections (limit 500/s)",
        "value 612/s, limit 500/s, peak 640/s",
        "process=crawler, unit=crawler.service",
        "since 2025-06-15 15:06:40 UTC, for 12 s; why: value above 500/s for 10 s",
        "host web-1, rule outbound-connection-storm",
    ]


def test_a_new_alert_shows_no_duration_and_no_peak(make_alert, make_notification):
    alert = make_alert(started=1_750_000_011.8, peak=612.0)
    [amounts, _, times, *_] = notification_text.detail_lines(alert, make_notification(alert, created=1_750_000_012.0))
    assert amounts == "value 612/s, limit 500/s"
    assert times == "since 2025-06-15 15:06:51 UTC; why: value above 500/s for 10 s"


def test_a_resolved_alert_shows_its_duration_and_peak(make_alert, make_notification):
    alert = make_alert(
        state=AlertState.RESOLVED, resolved=1_750_000_426.0, value=3.0, reason="value below 300/s for 10 s"
    )
    assert [
        notification_text.alert_title(alert, make_notification(alert)),
        *notification_text.detail_lines(alert, make_notification(alert)),
    ][:4] == [
        "[RESOLVED] critical: crawler opens 612/s connections (limit 500/s)",
        "lasted 7 min 6 s, peak 640/s, last value 3/s (limit 500/s)",
        "process=crawler, unit=crawler.service",
        "from 2025-06-15 15:06:40 UTC to 2025-06-15 15:13:46 UTC; why: value below 300/s for 10 s",
    ]


def test_a_step_of_the_wall_clock_makes_no_alert_last_longer(make_alert, make_notification):
    alert = make_alert(resolved=1_750_003_600.0, duration_seconds=90.0)
    assert notification_text.detail_lines(alert, make_notification(alert))[0].startswith("lasted 1 min 30 s, ")


def test_evidence_follows_the_facts(make_alert, make_notification, evidence):
    alert = make_alert(evidence=evidence)
    lines = notification_text.detail_lines(alert, make_notification(alert))
    assert lines[:4] == notification_text.detail_lines(make_alert(), make_notification())
    assert [line.partition(":")[0] for line in lines[4:]] == ["process", "command", "parents", "peers", "history"]


def test_many_alerts_have_three_lines_each(make_alert, make_notification, evidence):
    alert = make_alert(evidence=evidence)
    assert len(notification_text.detail_lines(alert, make_notification(*[alert] * 3))) == 9
    assert notification_text.detail_lines(alert, make_notification(*[alert] * 4)) == [
        "value 612/s, limit 500/s, peak 640/s; process=crawler, unit=crawler.service",
        f"since 2025-06-15 15:06:40 UTC, for 12 s; why: {alert.reason}; host web-1, rule outbound-connection-storm",
        *notification_text.evidence_lines(alert, make_notification(alert))[:1],
    ]


def test_numbers_are_written_in_the_format_of_their_rule(make_alert, make_notification):
    alert = make_alert(value=1.5e9, threshold=1e8, peak=2e9, format="bytes/s")
    assert (
        notification_text.detail_lines(alert, make_notification())[0] == "value 1.5 GB/s, limit 100 MB/s, peak 2 GB/s"
    )


def test_the_overflow_alert_shows_the_number_of_instances_and_their_limit(make_alert, make_notification):
    alert = make_alert(value=7.0, peak=7.0, labels=OVERFLOW_LABELS)
    assert notification_text.detail_lines(alert, make_notification(alert))[0] == "value 7, limit 500/s"


def test_a_label_cannot_look_like_two(make_alert, make_notification):
    alert = make_alert(labels=(("process", 'a, unit="b'), ("unit", "")))
    assert notification_text.detail_lines(alert, make_notification())[1] == r'process="a, unit=\"b"'


def test_the_title_of_one_alert_is_its_title_and_the_host(make_notification):
    title = "[FIRING] critical: crawler opens 612/s connections (limit 500/s)"
    assert notification_text.notification_title(make_notification()) == f"{title} on web-1"
    assert notification_text.status_line(make_notification()) == "[FIRING] critical: outbound-connection-storm on web-1"


def test_a_host_in_the_summary_is_not_repeated(make_alert, make_notification):
    titles = [
        notification_text.notification_title(make_notification(make_alert(summary=f"{name} is ill")))
        for name in ("web-1", "web-10")
    ]
    assert titles == ["[FIRING] critical: web-1 is ill", "[FIRING] critical: web-10 is ill on web-1"]


def test_the_title_of_many_alerts_has_their_number(make_alert, make_notification):
    over = make_alert(resolved=1_750_000_011.0)
    notification = make_notification(make_alert(severity=Severity.WARNING), make_alert(severity=Severity.WARNING), over)
    assert (
        notification_text.notification_title(notification)
        == "[FIRING:2, RESOLVED:1] warning: outbound-connection-storm on web-1"
    )


def test_a_test_is_marked_in_every_title(make_alert, make_notification):
    one, two = make_notification(is_test=True), make_notification(make_alert(), make_alert(), is_test=True)
    title = "[TEST] [FIRING] critical: crawler opens 612/s connections (limit 500/s)"
    assert notification_text.notification_title(one) == f"{title} on web-1"
    assert notification_text.notification_title(two) == "[TEST] [FIRING:2] critical: outbound-connection-storm on web-1"


def test_alerts_are_sorted_worst_first_and_resolved_last(make_alert):
    warning = make_alert(severity=Severity.WARNING, fingerprint="w")
    over = make_alert(resolved=1.0, fingerprint="o")
    critical = make_alert(fingerprint="c")
    assert [alert.fingerprint for alert in notification_text.worst_first((over, warning, critical))] == ["c", "w", "o"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (426, "7 min 6 s"),
        (3_600, "1 h 0 min"),
        (7_509, "2 h 5 min"),
        (86_400, "1 d 0 h"),
        (266_400, "3 d 2 h"),
    ],
)
def test_durations_have_their_two_largest_units(seconds, words):
    assert notification_text.duration_text(seconds) == words


def test_timestamps_are_rfc_3339_in_utc():
    assert notification_text.rfc3339(1_750_000_000.25) == "2025-06-15T15:06:40.250Z"
    assert notification_text.rfc3339(0.0) == "1970-01-01T00:00:00.000Z"


def test_dimensions_without_a_value_are_not_shown(make_alert, make_notification):
    alert = make_alert(labels=(("process", "crawler"), ("unit", "")))
    assert notification_text.detail_lines(alert, make_notification())[1] == "process=crawler"


def test_the_next_step_shows_and_silences_the_alert_and_shows_the_delivery(make_notification, make_alert):
    delivery = f"bpf-watchdog notifications show {make_notification().id[:12]}"
    one, other = make_alert(), make_alert(rule="other", fingerprint="fedcba9876543210")
    ended = make_alert(resolved=1_750_000_100.0)
    assert notification_text.next_step(make_notification(one)) == (
        f"next: bpf-watchdog alerts show 01234567; to silence: bpf-watchdog ack 01234567; delivery: {delivery}"
    )
    assert notification_text.next_step(make_notification(one, other)) == (
        f"next: bpf-watchdog alerts; to silence one: bpf-watchdog ack FINGERPRINT; delivery: {delivery}"
    )
    assert notification_text.next_step(make_notification(ended)) == f"next: {delivery}"
    assert notification_text.next_step(make_notification(is_test=True)) == ""
