"""Commands that query the running daemon, or its state file after its end."""

from __future__ import annotations

import json
import os
import pwd
import stat

from watchdog.config.permissions import ACCOUNT


def listed(watchdog):
    code, out, err = watchdog.ask("notifications", "list", "--json")
    assert code == 0, err
    return json.loads(out), err


def lost(watchdog):
    return json.loads(watchdog.ask("notifications", "list", "--lost", "--json")[1])


def test_a_failed_notification_is_listed_and_sent_on_retry(start_daemon, watchdog, server, storm, wait_for):
    server.answer = (404, {}, b"")
    start_daemon()
    storm.hold()
    wait_for(lambda: [notification["state"] for notification in listed(watchdog)[0]] == ["failed"], "the refusal")
    [refused], err = listed(watchdog)
    assert (refused["receiver"], refused["attempts"], refused["error"]) == (
        "hook",
        1,
        "client_error: 127.0.0.1 answered 404",
    )
    assert err == ""  # the daemon itself has answered
    assert lost(watchdog) == [{"receiver": "hook", "cause": "refused", "count": 1}]
    server.answer = (200, {}, b"")
    code, out, _ = watchdog.ask("notifications", "retry", "--failed")
    assert (code, out) == (0, f"{refused['notification_id']}: will be sent again\n")
    wait_for(lambda: [notification["state"] for notification in listed(watchdog)[0]] == ["delivered"], "the delivery")

    assert [id_ for id_, _ in server.documents()] == [refused["notification_id"]] * 2
    assert (
        "client_error: 127.0.0.1 answered 404" in watchdog.ask("notifications", "show", refused["notification_id"])[1]
    )


def test_the_socket_belongs_to_the_account_and_is_removed_at_the_end(start_daemon, watchdog):
    start_daemon()
    status = (watchdog.state / "control.sock").lstat()
    account = pwd.getpwnam(ACCOUNT)
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (account.pw_uid, account.pw_gid, 0o660)
    assert watchdog.terminate()[0] == 0
    assert not (watchdog.state / "control.sock").exists()


def test_after_a_kill_the_state_file_is_read_and_the_next_daemon_replaces_the_socket(
    start_daemon, watchdog, storm, notified
):
    start_daemon()
    storm.hold()
    notified("firing")
    watchdog.kill()
    assert (watchdog.state / "control.sock").is_socket()
    notifications, err = listed(watchdog)
    assert [notification["state"] for notification in notifications] == ["delivered"]
    assert "no daemon answers at" in err
    watchdog.start()
    assert listed(watchdog) == (notifications, "")


def test_a_second_daemon_does_not_replace_the_firsts_socket_and_works_without(
    start_daemon, watchdog, open_folder, wait_for, storm, notified
):
    start_daemon()
    first, first_state = watchdog.process, watchdog.state
    path = first_state / "control.sock"
    watchdog.state = open_folder / "second"
    watchdog.launch(more=["--control", path])
    try:
        complaint = f"another daemon listens on {path}: choose another socket with --control"
        wait_for(lambda: complaint in watchdog.log(), "the complaint")
        wait_for(lambda: "SIGHUP reads the files again" in watchdog.log(), "the second daemon")
        assert watchdog.terminate()[0] == 0
    finally:
        watchdog.end()
        watchdog.process, watchdog.state = first, first_state
    assert listed(watchdog)[1] == ""  # the first still answers


def test_daemon_and_commands_use_the_socket_given_by_control(watchdog, server, storm, open_folder, wait_for):
    folder = open_folder / "run"
    folder.mkdir()
    account = pwd.getpwnam(ACCOUNT)
    os.chown(folder, account.pw_uid, account.pw_gid)
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.crowd_rule()})
    watchdog.launch(more=["--control", folder / "own.sock"])
    wait_for((folder / "own.sock").is_socket, "the socket")
    code, _, err = watchdog.ask("notifications", "list", "--control", folder / "own.sock")
    assert (code, err) == (0, "no notifications yet\n")


def test_a_daemon_without_its_socket_logs_that_and_works(start_daemon, watchdog, storm, notified):
    watchdog.state.mkdir()
    account = pwd.getpwnam(ACCOUNT)
    (watchdog.state / "control.sock").write_text("letters")
    (watchdog.state / "control.sock").chmod(0o644)
    start_daemon()
    path = watchdog.state / "control.sock"
    assert f"{path} is not a socket: move it away, or choose another socket with --control" in watchdog.log()
    storm.hold()
    notified("firing")
    assert path.read_text() == "letters"
    assert watchdog.state.stat().st_uid == account.pw_uid
