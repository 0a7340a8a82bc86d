"""`bpf-watchdog notifications` against a server and a state file with notifications in every state."""

from __future__ import annotations

import dataclasses
import json
import logging
import sqlite3
import subprocess
import threading

import pytest

import factories
from watchdog.alerts.alert import AlertState
from watchdog.cli.main import main
from watchdog.control import notification_handlers
from watchdog.control.listener import Listener
from watchdog.control.server import ControlServer
from watchdog.routing.notification import NotificationReason
from watchdog.state import audit
from watchdog.state.delivery_states import DELIVERED, FAILED
from watchdog.state.outbox import AttemptOutcome, Outbox
from watchdog.state.store import Store
from watchdog.storage.reader import StateReader

STORM = factories.make_alert(
    labels=(("process", "crawler"),),
    fingerprint="0123456789abcdef",
    summary="crawler\x1b[2J opens 612/s connections",
    fired=1_750_000_000.0,
)
GONE = "connect: 127.0.0.1: cannot connect: Connection refused"
DENIED = "auth: 127.0.0.1 answered 401"
RECEIVERS = ("hook", "oncall", "quiet")
TIME = "2025-06-15 15:06:40"  # of the fake clock

LISTED = f"""\
ID            CREATED (UTC)        RECEIVER  STATE      STATUS    GROUP  ALERTS  ATTEMPTS  RESULT
a4a4a4a4a4a4  {TIME}  oncall    pending    firing    spike       1         0  -
a3a3a3a3a3a3  {TIME}  oncall    pending    resolved  storm       1         1  {GONE}
b2b2b2b2b2b2  {TIME}  hook      failed     firing    storm       1         1  {DENIED}
a1a1a1a1a1a1  {TIME}  oncall    delivered  firing    storm       1         1  ok

RECEIVER  CAUSE OF LOSS  LOST
hook      refused           1
"""
SHOWN = f"""\
notification  {"b2" * 16}
receiver      hook
group         storm
status        firing: first notification
created       {TIME} UTC
state         failed since {TIME} UTC: {DENIED}

alerts:
  firing    crawler\\x1b[2J opens 612/s connections  (0123456789abcdef)

attempts (UTC):
     1  {TIME}  {DENIED}
"""


@pytest.fixture
def store(open_folder, clock):
    store = Store(open_folder, clock, "boot1")
    yield store
    store.close()


@pytest.fixture
def outbox(store, clock):
    return Outbox(store.database, clock)


@pytest.fixture
def put(store, clock):
    def put(id_, receiver, rule="storm", **changes):
        alert = dataclasses.replace(STORM, rule=rule, **changes)
        reason = NotificationReason.FIRST if alert.resolved is None else NotificationReason.RESOLVED
        notification = factories.make_notification(
            alert, id=id_ * 16, receiver=receiver, reason=reason, created=clock.wall()
        )
        store.commit(alerts=(), groups=(), notifications=[notification])

    return put


@pytest.fixture
def history(put, outbox):
    """Write one notification in each state."""
    put("a1", "oncall")
    outbox.finish_attempt(AttemptOutcome(outbox.begin_attempt("oncall"), "delivered", "ok"))
    put("b2", "hook")
    outbox.finish_attempt(AttemptOutcome(outbox.begin_attempt("hook"), "failed", DENIED))
    put("a3", "oncall", state=AlertState.RESOLVED, resolved=1_750_000_100.0)
    outbox.finish_attempt(AttemptOutcome(outbox.begin_attempt("oncall"), "pending", GONE, due_ns=10**15))
    put("a4", "oncall", rule="spike")


@pytest.fixture
def answering(store, open_folder, clock):
    handlers = notification_handlers.notification_handlers(store.database, clock, lambda: RECEIVERS)
    server = ControlServer(Listener.at(open_folder / "control.sock"), handlers, logging.getLogger("watchdog"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def command(open_folder, capfd):
    """Run a command; return its exit code, its output and its words on standard error."""

    def command(*arguments, folder=open_folder):
        code = main(["notifications", *arguments, "--state-dir", str(folder)])
        told = capfd.readouterr()
        return code, told.out, told.err

    return command


def test_the_list_shows_receiver_state_result_and_losses(history, answering, command):
    assert command("list") == (0, LISTED, "")


def test_the_list_fits_the_terminal_and_keeps_ids_and_states(history, answering, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = command("list")[1].splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].split()[:6] == ["a3a3a3a3a3a3", *TIME.split(), "oncall", "pending", "resolved"]


def test_the_list_can_be_of_one_receiver_one_state_and_some_lines(history, answering, command):
    def ids(*arguments):
        listed = json.loads(command("list", "--json", *arguments)[1])
        return [notification["notification_id"][:2] for notification in listed]

    assert ids("--receiver", "hook") == ["b2"]
    assert ids("--state", "pending") == ["a4", "a3"]
    assert ids("--receiver", "oncall", "--limit", "2") == ["a4", "a3"]
    assert command("list", "--receiver", "quiet") == (0, "", "no notifications match\n")
    assert command("list", "--limit", "0")[0] == 2


@pytest.mark.parametrize("arguments", [["list"], ["retry", "--failed"]])
def test_a_receiver_that_does_not_exist_is_an_error(history, answering, command, arguments):
    code, out, err = command(*arguments, "--receiver", "oncal")
    assert (code, out) == (2, "")
    assert 'unknown receiver "oncal": did you mean "oncall"?' in err
    assert command("list", "--receiver", "quiet")[0] == 0  # configured, without notifications


def test_a_state_file_knows_the_receivers_that_it_names(history, command, open_folder):
    assert command("list", "--receiver", "oncall")[0] == 0
    code, _, err = command("list", "--receiver", "quiet")
    assert (code, 'unknown receiver "quiet": known are ' in err) == (2, True)


def test_a_notification_is_shown_with_its_alerts_and_attempts_escaped_for_a_terminal(history, answering, command):
    assert command("show", "b2b2") == (0, SHOWN, "")
    assert json.loads(command("show", "b2" * 16, "--json")[1])["alerts"][0]["summary"] == STORM.summary


def test_an_attempt_without_a_result_is_shown(put, outbox, answering, command):
    put("a1", "oncall")
    outbox.begin_attempt("oncall")
    assert "attempts: none\n  1 more: in progress, or without a recorded result" in command("show", "a1")[1]


@pytest.mark.parametrize(
    ("id_", "words"),
    [("c", "no notification c: it never existed"), ("a", "several notifications"), ("%", "no notification %")],
)
def test_an_unknown_or_ambiguous_id_is_reported(history, answering, command, id_, words):
    code, out, err = command("show", id_)
    assert (code, out) == (2 if id_ == "a" else 1, "")
    assert words in err


def test_a_failed_notification_is_sent_again_by_retry(history, answering, command, outbox):
    assert command("retry", "b2b2") == (0, f"{'b2' * 16}: will be sent again\n", "")
    assert outbox.begin_attempt("hook").notification.id == "b2" * 16
    assert command("retry", "b2b2")[0] == 1
    assert audit.RETRIED_RESULT in command("show", "b2")[1]


def test_all_that_was_given_up_is_sent_again_the_oldest_first_in_batches(put, outbox, answering, command, monkeypatch):
    monkeypatch.setattr(notification_handlers, "MAX_RETRIED", 2)
    for number in range(5):
        put(f"d{number}", "hook", rule=f"rule-{number}")
        outbox.finish_attempt(AttemptOutcome(outbox.begin_attempt("hook"), "failed", DENIED))
    put("e1", "oncall")
    outbox.finish_attempt(AttemptOutcome(outbox.begin_attempt("oncall"), "failed", DENIED))
    code, out, _ = command("retry", "--failed", "--receiver", "hook")
    assert (code, [line[:2] for line in out.splitlines()]) == (0, ["d0", "d1", "d2", "d3", "d4"])
    [left] = json.loads(command("list", "--state", FAILED, "--json")[1])
    assert left["notification_id"][:2] == "e1"


@pytest.mark.parametrize(
    ("id_", "reason"),
    [
        ("a1", f"it is {DELIVERED}, and only {FAILED} notifications can be sent again"),
        ("cc", "there is no such notification: see bpf-watchdog notifications list"),
        ("a", "several notifications have an id that begins with these characters"),
    ],
)
def test_a_notification_that_cannot_be_sent_again_is_skipped_with_the_reason(history, answering, command, id_, reason):
    code, out, _ = command("retry", id_, "b2")
    assert code == 1
    assert out.splitlines()[0].endswith(f": not sent again: {reason}")
    assert out.splitlines()[1].endswith(": will be sent again")


def test_a_superseded_notification_is_not_sent_again(history, put, outbox, answering, command):
    put("b5", "hook")
    outbox.finish_attempt(AttemptOutcome(outbox.begin_attempt("hook"), "delivered", "ok"))
    assert f"superseded by {'b5' * 16}, which was delivered later" in command("retry", "b2")[1]
    assert f"superseded    by {'b5' * 16}; it cannot be sent again" in command("show", "b2")[1]


@pytest.mark.parametrize("arguments", [(), ("a1", "--failed"), ("a1", "--receiver", "hook")])
def test_retry_needs_ids_or_failed(command, arguments):
    code, _, err = command("retry", *arguments)
    assert code == 2
    assert "either ids or --failed" in err or "needs --failed" in err


def test_a_list_waits_for_no_transaction_of_the_daemon_and_holds_none_up(history, answering, command, store):
    with store.database.transaction() as connection:
        connection.execute("UPDATE notifications SET attempts = 9")
        listed = threading.Thread(target=lambda: results.append(command("list")))
        results = []
        listed.start()
        listed.join(60)
        assert results == [(0, LISTED, "")]  # as it was before


# ----------------------------------------------------------------------------------------------------- without a daemon


def test_without_a_daemon_the_file_is_read_and_not_changed(history, store, open_folder, command):
    store.close()
    before = contents(open_folder)
    code, out, err = command("list")
    assert (code, out) == (0, LISTED)
    socket, state = open_folder / "control.sock", open_folder / "state.sqlite3"
    assert err == f"no daemon answers at {socket}: No such file or directory; read from {state}:\n"
    assert command("show", "b2")[1] == SHOWN
    assert contents(open_folder) == before


def contents(folder):
    # Not the index of the log, where SQLite's readers leave their marks.
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}


def test_after_a_crash_the_last_commit_is_read_too(history, store, open_folder, command, tmp_path):
    for file in open_folder.iterdir():  # as they are while the daemon has them open
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert (tmp_path / "state.sqlite3-wal").stat().st_size > 0
    assert command("list", folder=tmp_path)[:2] == (0, LISTED)


def test_without_a_daemon_nothing_is_sent_again(history, open_folder, command):
    code, _, err = command("retry", "b2")
    assert code == 3
    assert err.startswith(f"bpf-watchdog: no daemon answers at {open_folder}/control.sock: No such file or directory")


def test_without_a_daemon_and_a_file_both_are_reported(tmp_path, command):
    code, _, err = command("list", folder=tmp_path)
    assert code == 3
    assert "no daemon answers at" in err
    assert f"no state file {tmp_path}/state.sqlite3" in err


def test_an_account_that_may_not_read_the_file_is_named_the_remedy(history, store, open_folder, open_command):
    store.close()
    (open_folder / "state.sqlite3").chmod(0o600)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", open_command]
    done = subprocess.run(
        [*nobody, "notifications", "list", "--state-dir", open_folder], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.endswith(
        f"; this user may not read {open_folder}/state.sqlite3: run this command as root, or as the account of the"
        " daemon\n"
    )


def test_a_file_that_is_not_a_state_file_is_reported(tmp_path, command):
    (tmp_path / "state.sqlite3").write_bytes(b"no database" * 1000)
    code, _, err = command("list", folder=tmp_path)
    assert code == 3
    assert f"cannot read {tmp_path}/state.sqlite3: file is not a database" in err


def test_without_a_daemon_the_default_socket_and_the_remedy_are_reported(monkeypatch, capfd):
    monkeypatch.setattr("watchdog.control.socket_path.DEFAULT_RUNTIME_FOLDER", "/nowhere")
    assert main(["notifications", "list"]) == 3
    assert capfd.readouterr().err == (
        "bpf-watchdog: no daemon answers at /nowhere/control.sock: No such file or directory: start it, or read its"
        " state file with --state-dir /var/lib/bpf-watchdog\n"
    )


def test_a_reader_cannot_write(history, open_folder):
    reader = StateReader(open_folder / "state.sqlite3")
    with reader.transaction() as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM notifications")
