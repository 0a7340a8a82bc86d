"""`bpf-watchdog notify test` against real receivers."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
import sys

import pytest


@pytest.fixture
def command(tmp_path):
    """Return a function that runs the command with a configuration and returns its exit code."""

    def run(configuration, *arguments):
        file = tmp_path / "watchdog.toml"
        file.write_text(configuration)
        file.chmod(0o600)
        # A process of its own: it changes its account.
        command = [sys.executable, "-m", "watchdog", "notify", "test", "--config", str(file), *arguments]
        return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode

    return run


def webhook(url):
    return f'[[receiver]]\nname = "hook"\ntype = "webhook"\nurl = "{url}"\n'


def test_a_firing_and_a_resolved_notification_are_sent_marked_test(command, server, capfd):
    assert command(webhook(server.url), "hook") == 0
    documents = [json.loads(body) for _, _, body in server.posts]
    assert [document["status"] for document in documents] == ["firing", "resolved"]
    assert [document["commonLabels"]["test"] for document in documents] == ["true", "true"]
    assert documents[0]["alerts"][0]["fingerprint"] == documents[1]["alerts"][0]["fingerprint"]
    out, _ = capfd.readouterr()
    assert re.fullmatch(
        r"hook: webhook 127\.0\.0\.1 \(as bpf-watchdog\)\nfiring: ok in \d+ ms\nresolved: ok in \d+ ms\n", out
    )


def test_the_error_and_its_remedy_are_shown_without_secrets(command, server, capfd):
    server.answer = (404, {}, b"")
    assert command(webhook(server.url), "hook") == 1
    out, err = capfd.readouterr()
    failure = "failed: 127.0.0.1 answered 404\n    the receiver refuses the message: check the address\n"
    assert out == f"hook: webhook 127.0.0.1 (as bpf-watchdog)\nfiring: {failure}resolved: {failure}"
    assert "secret" not in out + err


def test_json_output_has_the_same_facts(command, server, capfd):
    server.answer = (503, {}, b"")
    assert command(webhook(server.url), "hook", "--json") == 1
    results = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(result["status"], result["ok"], result["reason"]) for result in results] == [
        ("firing", False, "server_error"),
        ("resolved", False, "server_error"),
    ]
    assert [result["notification_id"] for result in results] == [
        headers["X-Notification-Id"] for _, headers, _ in server.posts
    ]


def test_a_dry_run_prints_the_exact_bytes_and_sends_nothing(command, server, capfdbinary):
    assert command(webhook(server.url), "hook", "--dry-run") == 0
    assert server.posts == []
    out, _ = capfdbinary.readouterr()
    bodies = re.fullmatch(
        rb"hook: webhook 127\.0\.0\.1\nfiring, (\d+) bytes:\n(.*)\nresolved, (\d+) bytes:\n(.*)\n", out
    ).groups()
    assert [int(bodies[0]), int(bodies[2])] == [len(bodies[1]), len(bodies[3])]
    assert [json.loads(body)["status"] for body in (bodies[1], bodies[3])] == ["firing", "resolved"]


def test_json_of_a_dry_run_has_the_bytes(command, server, capfd):
    assert command(webhook(server.url), "hook", "--dry-run", "--json") == 0
    results = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(result["status"], result["bytes"] == len(result["body"].encode())) for result in results] == [
        ("firing", True),
        ("resolved", True),
    ]


def test_a_dry_run_on_a_terminal_escapes_invisible_characters(tmp_path):
    file = tmp_path / "watchdog.toml"
    file.write_text('[[receiver]]\nname = "log"\ntype = "syslog"\naddress = "udp://127.0.0.1"\n')
    seen = bytearray()

    def read(descriptor):
        data = os.read(descriptor, 65_536)
        seen.extend(data)
        return data

    command = [sys.executable, "-m", "watchdog", "notify", "test", "--config", str(file), "log", "--dry-run"]
    assert pty.spawn(command, read) == 0
    assert seen.decode().count(r"] \ufeff[TEST] [") == 2


def test_an_unknown_receiver_is_reported_with_the_known_ones(command, server, capfd):
    assert command(webhook(server.url), "hok") == 2
    assert capfd.readouterr().err == 'bpf-watchdog: unknown receiver "hok": did you mean "hook"?\n'


def test_a_command_of_a_receiver_never_runs_as_root(command, tmp_path_factory, capfd):
    folder = tmp_path_factory.mktemp("open")
    for each in (folder, *folder.parents[: len(folder.parents) - 2]):
        each.chmod(0o755)
    script, written = folder / "hook", folder / "written"
    script.write_text(f"#!/bin/sh\ncat > /dev/null\nid --user --name > {written}\n")
    script.chmod(0o755)
    written.touch()
    written.chmod(0o666)
    table = f'[[receiver]]\nname = "one"\ntype = "command"\ncommand = ["{script}"]\n'
    assert command(table, "one") == 0
    assert written.read_text() == "bpf-watchdog\n"
    folder.chmod(0o700)
    assert command(table, "one") == 1
    out = capfd.readouterr().out
    assert out.count("(as bpf-watchdog)\n") == 2
    assert "Permission denied" in out


def test_a_socket_that_only_root_may_write_to_is_reported(command, tmp_path, capfd):
    path = tmp_path / "log.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(str(path))
        path.chmod(0o600)
        assert command(f'[[receiver]]\nname = "log"\ntype = "syslog"\naddress = "unix://{path}"\n', "log") == 1
    assert "check that the socket exists and that the account may write to it" in capfd.readouterr().out


def test_the_console_shows_both_notifications(command, capfd):
    assert command('[[receiver]]\nname = "here"\ntype = "console"\n', "here") == 0
    out, _ = capfd.readouterr()
    assert out.count("[TEST] [FIRING] critical: example opens 612/s connections (limit 500/s)\n") == 1
    assert out.count("[TEST] [RESOLVED] critical: example opens 612/s connections (limit 500/s)\n") == 1


SLACK = """
[[receiver]]
name = "oncall"
type = "slack"
bot_token = "xoxb-secret"
channel = "C024BE91L"
"""


@pytest.mark.parametrize(
    ("configuration", "name", "sizes"),
    [
        (SLACK, "oncall", [r"    [\d,]+ of 8,000 characters; 3 of 50 blocks"] * 2),
        (
            '[[receiver]]\nname = "log"\ntype = "syslog"\naddress = "udp://127.0.0.1"\n',
            "log",
            [r"    [\d,]+ of 2,048 octets"],
        ),
        ('[[receiver]]\nname = "here"\ntype = "journald"\n', "here", [r"    [\d,]+ octets; \d+ of 100 lines"]),
    ],
)
def test_a_dry_run_shows_the_sizes_and_limits(command, capfd, configuration, name, sizes):
    assert command(configuration, name, "--dry-run") == 0
    out = capfd.readouterr().out
    shown = [line for line in out.splitlines() if (line.startswith("    ") and "of " in line) or "octets" in line]
    assert len(shown) == 2 * len(sizes)
    assert all(re.fullmatch(size, line) for size, line in zip(sizes * 2, shown, strict=True)), shown
    assert "secret" not in out


def test_json_of_a_dry_run_has_the_sizes(command, capfd):
    assert command(SLACK, "oncall", "--dry-run", "--json") == 0
    results = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [len(result["limits"]) for result in results] == [2, 2]


TABLES = {
    "alertmanager": 'urls = ["http://127.0.0.1:{port}"]',
    "apprise": 'urls = "json://127.0.0.1:{port}/"',
    "command": 'command = ["/bin/true", "--secret"]',
    "pagerduty": 'url = "http://127.0.0.1:{port}/v2/enqueue"\nrouting_key = "secretsecretsecretsecretsecret00"',
}


# As each service documents them; the receivers accept no other.
ANSWERS = {
    "alertmanager": (200, {}, b""),
    "pagerduty": (202, {"Content-Type": "application/json"}, b'{"status": "success", "message": "", "dedup_key": "x"}'),
}


@pytest.mark.parametrize("kind", TABLES)
def test_notify_test_works_for_every_type(command, server, capfd, kind):
    server.answer = ANSWERS.get(kind, server.answer)
    table = f'[[receiver]]\nname = "one"\ntype = "{kind}"\n{TABLES[kind].format(port=server.server_port)}\n'
    assert command(table, "one") == 0
    assert command(table, "one", "--dry-run") == 0
    out, err = capfd.readouterr()
    assert out.count(": ok in ") == 2
    assert "[TEST] " in out
    assert "secretsecret" not in out + err
    assert len(server.posts) == (0 if kind == "command" else 2)


def test_notify_test_works_for_email(command, unused_port, capfd):
    table = (
        '[[receiver]]\nname = "one"\ntype = "email"\nhost = "127.0.0.1"\nport = {port}\nfrom = "a@b"\nto = ["c@d"]\n'
    )
    assert command(table.format(port=unused_port(1)), "one") == 1
    assert command(table.format(port=1), "one", "--dry-run") == 0
    out, _ = capfd.readouterr()
    assert out.count("failed: 127.0.0.1: cannot connect: Connection refused") == 2
    assert out.count("Subject: [TEST] [FIRING] critical: ") == 1
