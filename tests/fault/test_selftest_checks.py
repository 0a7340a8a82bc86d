"""Each check of the selftest fails when the part that it checks is broken."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from watchdog import sanitize
from watchdog.daemon.configuration import ConfigurationSources, read_configuration
from watchdog.delivery.delivery import Delivery
from watchdog.receivers.webhook import Webhook
from watchdog.scheduling.scheduler import Scheduler
from watchdog.selftest import clock_step, full_disk, full_ledger, hostile_names, hung_receiver, kill, runner
from watchdog.selftest.fakes import ManualClock
from watchdog.selftest.null_receiver import NullReceiver
from watchdog.selftest.result import CheckFailed, CheckStatus
from watchdog.selftest.webhook_server import WebhookServer
from watchdog.state.store import Store


@pytest.fixture
def sources(tmp_path_factory):
    settings = tmp_path_factory.mktemp("settings") / "watchdog.toml"
    settings.write_text('[[receiver]]\nname = "screen"\ntype = "console"\n')
    return ConfigurationSources(str(settings), str(Path(__file__).parents[2] / "rules"))


@pytest.fixture
def setup(sources):
    return read_configuration(sources)


@pytest.fixture
def webhook_servers():
    made = []

    def make(**how):
        made.append(WebhookServer(**how))
        return made[-1]

    yield make
    for webhook_server in made:
        webhook_server.close()


@pytest.mark.parametrize("small_disk", ["48m"], indirect=True)
def test_full_disk_fails_without_reserved_space(small_disk, monkeypatch):
    monkeypatch.setattr(Store, "reserve_space", lambda _: None)
    with pytest.raises(CheckFailed, match=r"^\d+ of 500 commits written, then: .*full"):
        full_disk.check_full_disk(small_disk)


def test_hung_receiver_fails_if_a_receiver_waits_for_another(tmp_path, webhook_servers, monkeypatch):
    monkeypatch.setattr(hung_receiver, "_PATIENCE_SECONDS", 2.0)
    with pytest.raises(CheckFailed, match=r"^while one receiver hung, a notification to the other took more than 2 s$"):
        hung_receiver.notify_both(tmp_path, webhook_servers(hangs=True), webhook_servers(hangs=True))


def test_hung_receiver_fails_if_a_receiver_is_late(tmp_path, webhook_servers, monkeypatch):
    monkeypatch.setattr(hung_receiver, "MAX_DELAY_SECONDS", 0.0)
    with pytest.raises(
        CheckFailed, match=r"^while one receiver hung, 30 notifications reached the other, p50 \d+ ms, max \d+ ms$"
    ):
        hung_receiver.notify_both(tmp_path, webhook_servers(hangs=True), webhook_servers())


def test_kill_fails_if_a_notification_is_sent_again_with_another_id(tmp_path, monkeypatch, webhook_servers):
    send = Webhook.send

    def send_as_another(receiver, notification, deadline_seconds):
        send(receiver, replace(notification, id=uuid.uuid4().hex), deadline_seconds)

    monkeypatch.setattr(Webhook, "send", send_as_another)
    with pytest.raises(CheckFailed, match=r"^a notification arrived with an id that none has$"):
        kill.kill_and_resume(tmp_path)


def test_kill_fails_if_a_notification_is_lost_at_a_kill(tmp_path, monkeypatch):
    start = Delivery.start

    def start_anew(delivery):
        with delivery._outbox._database.transaction() as connection:
            connection.execute("UPDATE notifications SET state = 'delivered' WHERE attempts > 0")
        start(delivery)

    monkeypatch.setattr(Delivery, "start", start_anew)
    with pytest.raises(
        CheckFailed, match=r"^killed 3 times before the answer was recorded; 5 of 5 notifications arrived, 0 copies"
    ):
        kill.kill_and_resume(tmp_path)


RIGHT = full_ledger.LedgerCounts(
    full_ledger.Counter(full_ledger._EXPECTED), detailed=18, folded=182, reported_folded=200
)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"totals": RIGHT.totals - full_ledger.Counter(accepts=1)}, "accepts 99 of 100"),
        ({"reported_folded": 181}, "totals are exact, but 182 of 200 ends folded, 181 reported"),
        ({"folded": 0}, "totals are exact, but 0 of 200 ends folded"),
        ({"reported_lost": 2}, "totals are exact, but 2 connections of the host were lost"),
    ],
)
def test_full_ledger_fails_if_the_ledger_loses_counts(change, error):
    assert (
        full_ledger._check_totals(RIGHT)
        == "100 connections counted exactly, 182 of 200 ends folded, 200 reported for the host"
    )
    with pytest.raises(CheckFailed, match=error):
        full_ledger._check_totals(replace(RIGHT, **change))


def test_full_ledger_fails_if_rules_treat_folded_detail_as_complete_or_losses_of_one_process_as_those_of_all():
    unknown = {"selftest detail", "connect-latency", "round-trip-time"}
    assert full_ledger._check_unknown(13, unknown) == "; 2 of 13 rules need the lost detail, and are unknown"
    with pytest.raises(CheckFailed, match=r"^a rule on the lost detail is not unknown$"):
        full_ledger._check_unknown(13, unknown - {"selftest detail"})
    with pytest.raises(CheckFailed, match=r"^a rule on a process that lost nothing is unknown$"):
        full_ledger._check_unknown(13, unknown | {"selftest other"})


def test_clock_step_fails_if_timers_use_the_wall_clock(tmp_path, setup, monkeypatch):
    monkeypatch.setattr(ManualClock, "boottime_ns", lambda clock: round(clock.wall() * 1e9))
    with pytest.raises(CheckFailed, match=r"^steps change the notifications of .*outbound-connection-storm"):
        clock_step.check_rules(tmp_path, setup)


def test_clock_step_fails_if_the_scheduler_waits_for_the_wall_clock(monkeypatch):
    monkeypatch.setattr("apscheduler.schedulers.base.datetime", dt.datetime)  # restored after the test
    monkeypatch.setattr(Scheduler, "_check", lambda *_: None)
    monkeypatch.setattr(clock_step, "_PATIENCE_SECONDS", 2.0)
    with pytest.raises(CheckFailed, match=r"^a step an hour back ended the ticks$"):
        clock_step.check_scheduler()


class UnsafeReceiver(NullReceiver):
    """A receiver with a replaceable function for names."""

    type = "console"
    form = staticmethod(sanitize.escape_unprintable)
    most = 1_000_000

    def render(self, notification):
        return self.form(dict(notification.alerts[0].labels)["process"]).encode("utf-8", "surrogateescape")

    def limit_usage(self, notification):
        return [f"{len(self.render(notification)):,} of {self.most:,} octets"]


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ({"form": lambda name: name}, "it has a control character"),
        (
            {"form": lambda name: sanitize.escape_unprintable(name).encode().decode("latin-1"), "most": 8},
            "is too large: 1.* of 8",
        ),
        ({"type": "slack"}, "it has a mention or a link"),
        ({"form": lambda name: name.replace("\r", "") if "\udcff" not in name else "x"}, "it has a control character"),
        (
            {"form": lambda name: "\n".join(sanitize.escape_unprintable(name).split())},
            "lines or fields that other names do not cause",
        ),
        ({"form": lambda name: f'{{"name": "{sanitize.escape_unprintable(name)}"}}'}, "is no JSON any more"),
        ({"form": lambda name: name if "\udcff" in name else "x"}, "is no UTF-8 any more"),
        ({"form": lambda name: name[20]}, "cannot be rendered: IndexError"),
    ],
)
def test_hostile_names_fails_if_a_receiver_renders_names_unsafely(monkeypatch, behaviour, error):
    for key, value in behaviour.items():
        monkeypatch.setattr(UnsafeReceiver, key, staticmethod(value) if callable(value) else value)
    names = [name.decode("utf-8", "surrogateescape") for name in hostile_names.HOSTILE_NAMES]
    with pytest.raises(CheckFailed, match=rf"^receiver oncall \({UnsafeReceiver.type}\), process '.*': .*{error}"):
        hostile_names.render_all({"oncall": UnsafeReceiver("oncall")}, names)


def test_a_check_that_hangs_or_crashes_has_failed_and_leaves_no_files(monkeypatch, tmp_path, sources):
    monkeypatch.setattr(runner, "_TEMPORARY", str(tmp_path))
    hung = runner.run_in_process("clock-step", sources, timeout_seconds=1.0)
    crashed = runner.run_in_process("no-such", sources)
    assert (hung.status, hung.detail) == (CheckStatus.FAILED, "no end after 1 s")
    assert (crashed.status, crashed.detail) == (CheckStatus.FAILED, "ended with code 1: KeyError: 'no-such'")
    assert list(tmp_path.iterdir()) == []
