"""A state file of version 4 is opened: everything in it goes on as before, under the names of the glossary.

`state_version_4.sql` was written by the last program of version 4: alerts that are pending, firing and clearing, with
evidence; a receiver that is down, and its escalation; notifications in each state; a Slack bot and a rate limit.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from pathlib import Path

import pytest

from watchdog.alerts.instance import AlertInstance
from watchdog.alerts.lifecycle import Lifecycle
from watchdog.clock import SECOND_NS, Now
from watchdog.config.settings import BUILT_IN_SETTINGS, EscalationSettings, RoutingSettings, SamplingSettings, Settings
from watchdog.delivery.outage_handler import OutageHandler
from watchdog.receivers.slack.thread import MessageStep, SlackMessageState
from watchdog.routing.grouping import Grouping
from watchdog.routing.notification import DIGEST_GROUP_KEY, Notification, NotificationReason
from watchdog.rules.language.load import load_rules
from watchdog.rules.language.rule import Severity
from watchdog.state import audit
from watchdog.state.losses import LossCause
from watchdog.state.outbox import Outbox
from watchdog.state.rate_limit import RateLimit
from watchdog.state.rate_limiter import RateLimiter
from watchdog.state.receiver_state import StoredReceiverState
from watchdog.state.store import Store
from watchdog.storage.checksum import checksum
from watchdog.storage.folder import STATE_FILE_NAME
from watchdog.storage.opening import MAX_FILE_PAGES

SQL = Path(__file__).with_name("state_version_4.sql").read_text()
NOW_NS, WALL = 2_410 * SECOND_NS, 1_750_001_410.0  # of the last commit
RECEIVERS = ("chat", "oncall", "second", "hook")


RULES = """
[[rule]]
id = "storm"
summary = "{process}: {value}"
metric = "connects"
stat = "rate"
window = "10s"
by = ["process"]
fire_above = { warning = 100, critical = 500 }
clear_below = { warning = 60, critical = 300 }
for = "10s"

[[rule]]
id = "slow"
summary = "{process}: {value}"
metric = "connects"
stat = "rate"
window = "10s"
by = ["process"]
fire_above = { warning = 100 }
clear_below = { warning = 60 }
receivers = ["oncall"]
"""


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    path.chmod(0o644)
    return load_rules([path], receivers=RECEIVERS).rules


@pytest.fixture
def clock(clock):
    clock.advance((NOW_NS - clock.boottime_ns()) / SECOND_NS)
    return clock


@pytest.fixture
def old(tmp_path):
    """Return a connection to the file of version 4, before it is opened."""
    connection = sqlite3.connect(tmp_path / STATE_FILE_NAME)
    connection.executescript(SQL)
    yield connection
    connection.close()


@pytest.fixture
def open_store(old, tmp_path, clock):
    opened = []

    def open_now():
        old.commit()
        old.close()
        opened.append(Store(tmp_path, clock, "boot1"))
        return opened[-1]

    yield open_now
    for store in opened:
        store.close()


def rows(store, query):
    with store.database.transaction() as connection:
        return connection.execute(query).fetchall()


def test_alerts_go_on_with_their_timers_and_evidence(open_store):
    saved = open_store().load()
    instances = {dict(document["labels"])["process"]: AlertInstance.from_json(document, 0) for document in saved.alerts}
    crawler, begins = instances["crawler"], instances["begins"]
    assert crawler.severity is Severity.CRITICAL
    assert crawler.has_running_timer  # clears since the last tick
    assert (crawler.alert.peak, crawler.alert.fired) == (700.0, 1_750_000_015.0)
    evidence = crawler.alert.evidence
    assert (evidence.tick_seconds, evidence.missing_reason, evidence.peer_count) == (1.0, "", 33)
    assert (evidence.top_process.other_process_count, evidence.top_process.has_exited) == (2, False)
    assert (begins.alert, begins.severity, begins.has_running_timer) == (None, None, True)
    assert begins.to_json()["evidence"]["top_process"]["name"] == "crawler"
    assert (saved.boottime_shift_ns, saved.downtime_ns) == (0, 0)


def test_firing_alerts_and_escalations_go_on_without_being_news(open_store, rules, clock):
    store = open_store()
    saved, now = store.load(), Now.read(clock)
    routing = RoutingSettings(("chat", "oncall", "hook"), 0, 60 * SECOND_NS, 4 * 3600 * SECOND_NS, 600 * SECOND_NS)
    escalations = {"oncall": EscalationSettings("second", 120 * SECOND_NS)}
    settings = Settings(BUILT_IN_SETTINGS, SamplingSettings(), routing, (), escalations=escalations)
    lifecycle = Lifecycle("web-1")
    assert lifecycle.restore(saved.alerts, rules, now.boottime_ns, 0, 0) == 0
    outages = OutageHandler(store.database, settings, RECEIVERS, "web-1", logging.getLogger("test"))
    assert outages.restore(saved, lifecycle.firing_alerts(), now) == 0
    firing = {**lifecycle.firing_alerts(), **outages.firing_alerts()}
    assert sorted(alert.rule for alert in firing.values()) == ["slow", *["storm"] * 4, "watchdog-delivery-dead"]
    notified = [each for each in saved.notified if not outages.owes_resolved(*each)]
    grouping = Grouping(routing, "web-1", is_escalated_to=outages.was_notified)
    assert grouping.restore(saved.groups, firing, RECEIVERS, now, 0, notified) == 0
    made = grouping.advance([], firing, now)
    assert [notification.reason for notification in made if notification.receiver != "hook"] == []
    assert outages.escalate({}, [], firing, grouping.is_routed_to, now) == []
    crawler = next(alert for alert in firing.values() if ("process", "crawler") in alert.labels)
    assert outages.was_notified("second", crawler)
    assert outages.owes_resolved("second", crawler)


def test_notifications_keep_id_order_state_and_cause(old, open_store):
    before = old.execute(
        "SELECT place, id, receiver, rule, status, state, attempts, created_ns, due_ns, ended "
        "FROM notices ORDER BY place"
    ).fetchall()
    store = open_store()
    after = rows(
        store,
        "SELECT sequence, id, receiver, group_key, status, state, attempts, created_ns, due_ns, ended "
        "FROM notifications ORDER BY sequence",
    )
    states = {"done": "delivered", "dead": "failed"}
    assert after == [(*row[:5], states.get(row[5], row[5]), *row[6:]) for row in before]
    assert rows(store, "SELECT receiver, loss_cause, last_error FROM notifications WHERE state = 'failed'") == [
        ("hook", "refused", "client_error: answered 404"),
        ("gone", "receiver_removed", "receiver removed"),
    ]
    [(merged, into, error)] = rows(
        store, "SELECT id, merged_into, last_error FROM notifications WHERE state = 'merged'"
    )
    assert (into, error) == (rows(store, f"SELECT id FROM notifications WHERE id = '{into}'")[0][0], None)
    assert audit.read_notification(store.database, merged).notification.error == f"merged into {into}"


def test_bodies_are_readable_and_columns_agree_with_them(open_store):
    store = open_store()
    for body, expected, reason, has_evidence in rows(
        store, "SELECT body, checksum, reason, has_evidence FROM notifications"
    ):
        notification = Notification.from_json_text(body)
        assert checksum(body) == expected
        assert notification.reason == reason
        assert has_evidence == any(alert.evidence is not None for alert in notification.alerts)
    reasons = dict(rows(store, "SELECT reason, min(body) FROM notifications GROUP BY reason"))
    assert {"first notification", "severity changed", "new alert in group", "digest", "escalated"} <= reasons.keys()
    escalated = Notification.from_json_text(reasons["escalated"])
    assert escalated.reason is NotificationReason.ESCALATED
    assert escalated.reason_detail == "oncall does not answer since 2025-06-15 15:08:20 UTC"
    labelled = rows(store, "SELECT body FROM notifications WHERE group_key LIKE '{%'")
    assert Notification.from_json_text(labelled[0][0]).group_labels == (("unit", "crawler.service"),)
    assert dict(Notification.from_json_text(labelled[0][0]).alerts[0].labels) == {"process": "n\udcff"}


def test_pending_notifications_leave_in_the_old_order(old, open_store, clock):
    keys = old.execute("SELECT receiver, lane, place FROM lanes ORDER BY receiver, lane, place").fetchall()
    [(attempts,)] = old.execute("SELECT attempts FROM notices WHERE rule = 'slow' AND receiver = 'oncall'").fetchall()
    store = open_store()
    query = "SELECT receiver, ordering_key, sequence FROM ordering_keys ORDER BY receiver, ordering_key, sequence"
    assert rows(store, query) == keys
    clock.advance(120)
    outbox = Outbox(store.database, clock)
    first, second = outbox.begin_attempt("hook"), outbox.begin_attempt("oncall")
    assert (first.notification.id, first.notification.group_key, first.number) == ("d" * 32, DIGEST_GROUP_KEY, 1)
    assert (second.notification.group_key, second.number) == ("slow", attempts + 1)


def test_attempts_losses_and_notified_alerts_are_kept(old, open_store, clock):
    attempts = old.execute("SELECT place, notice, number, at, result FROM attempts ORDER BY place").fetchall()
    told = old.execute("SELECT receiver, fingerprint FROM told ORDER BY receiver, rule, fingerprint").fetchall()
    store = open_store()
    query = "SELECT sequence, notification_id, number, ended, result FROM attempts ORDER BY sequence"
    assert rows(store, query) == attempts
    assert Outbox(store.database, clock).losses() == {
        ("gone", LossCause.RECEIVER_REMOVED): 1,
        ("hook", LossCause.REFUSED): 1,
    }
    assert rows(store, "SELECT receiver, fingerprint FROM notified ORDER BY receiver, rule, fingerprint") == told
    notified = [(receiver, alert.fingerprint) for receiver, alert in store.load().notified]
    assert [each for each in told if each not in notified] == [("oncall", "e4078a62b64b722b")]  # its end is pending
    assert rows(store, "SELECT part, boot_id, boottime_ns, wall FROM clocks ORDER BY part") == [
        ("notifications", "boot1", NOW_NS, WALL),
        ("state", "boot1", NOW_NS, WALL),
    ]


def test_receivers_keep_their_state(open_store, clock):
    store = open_store()
    chat = StoredReceiverState(store.database, "chat", clock)
    message = SlackMessageState.from_json(chat.get("message:storm"))
    assert (message.step, message.configured_channel, message.channel_id) == (
        MessageStep.REPLIED,
        "C024BE91L",
        "C024BE91L",
    )
    assert (message.is_resolved, message.is_edited, message.posted_at) == (False, True, 1_750_000_015.0)
    outage = json.loads(StoredReceiverState(store.database, "oncall", clock).get("outage"))
    assert outage == {
        "boot_id": "boot1",
        "since_ns": 1_100 * SECOND_NS,
        "since": 1_750_000_100.0,
        "reason": "timeout: no answer",
    }
    limiter = RateLimiter(RateLimit(30, 3600 * SECOND_NS), clock)
    with store.database.transaction() as connection:
        debts = limiter._debts(connection, "chat", 2_125 * SECOND_NS)
    assert debts == (257_142_857_143, 0)


def test_damaged_rows_stay_damaged(old, open_store, clock):
    old.execute("UPDATE alerts SET state = replace(state, 'crawler', 'brawler') WHERE state LIKE '%\"crawler\"%700%'")
    old.execute("UPDATE groups SET state = replace(state, 'crawler', 'brawler') WHERE receiver = 'chat'")
    damaged = "UPDATE notices SET body = replace(body, 'crawler', 'brawler'), checksum = checksum WHERE id = ?"
    old.execute("DROP TRIGGER notices_altered")
    old.execute(damaged, ("e" * 32,))
    old.execute(
        "CREATE TRIGGER notices_altered AFTER UPDATE OF body ON notices WHEN NEW.checksum IS OLD.checksum "
        "BEGIN UPDATE notices SET checksum = NULL WHERE place = NEW.place; END"
    )
    store = open_store()
    saved = store.load()
    assert {} in saved.alerts
    assert {} in saved.groups
    with store.database.transaction() as connection:
        query = "SELECT body, checksum FROM notifications WHERE id = ?"
        body, expected = connection.execute(query, ("e" * 32,)).fetchone()
    assert checksum(body) != expected


def test_a_damaged_file_of_version_4_is_salvaged(old, open_store, tmp_path, clock):
    pending = old.execute("SELECT id, receiver, rule FROM notices WHERE state = 'pending' ORDER BY place").fetchall()
    counts = [old.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("alerts", "groups", "told")]
    root = old.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'notices_ended'").fetchone()[0]
    page_bytes = old.execute("PRAGMA page_size").fetchone()[0]
    old.commit()
    with (tmp_path / STATE_FILE_NAME).open("r+b") as file:
        file.seek((root - 1) * page_bytes)
        file.write(b"\xff" * 64)
    store = open_store()
    [quarantined] = store.quarantined
    assert (quarantined.salvaged, quarantined.lost) == (len(pending), 0)
    assert rows(store, "SELECT id, receiver, group_key FROM notifications ORDER BY sequence") == pending
    assert [rows(store, f"SELECT count(*) FROM {table}")[0][0] for table in ("alerts", "groups", "notified")] == counts
    saved = store.load()
    assert {} not in (*saved.alerts, *saved.groups, *saved.outages.alerts, *saved.outages.groups)
    assert len(saved.outages.progress) == 1
    assert rows(store, "SELECT count(*) FROM receiver_state WHERE key = 'rate_limit'") == [(1,)]
    assert dict(Outbox(store.database, clock).losses())["hook", LossCause.REFUSED] == 1


def test_a_full_file_is_updated_though_its_converted_rows_need_more_space(old, open_store):
    [(body,)] = old.execute("SELECT body FROM notices WHERE id = ?", ("f" * 32,)).fetchall()
    document = json.loads(body)
    bodies = [json.dumps(document | {"id": f"{number:032x}"}, separators=(",", ":")) for number in range(20_000)]
    old.executemany(
        "INSERT INTO notices (id, receiver, rule, status, created_ns, due_ns, checksum, body) "
        "VALUES (?, 'gone', 'storm', 'firing', 0, 0, ?, ?)",
        [(f"{number:032x}1", checksum(body), body) for number, body in enumerate(bodies)],
    )
    assert old.execute("PRAGMA page_count").fetchone()[0] < MAX_FILE_PAGES
    store = open_store()
    assert rows(store, "PRAGMA page_count")[0][0] > MAX_FILE_PAGES
    assert rows(store, "SELECT count(*) FROM notifications WHERE receiver = 'gone' AND state = 'pending'") == [
        (20_000,)
    ]
