"""Commands that root calls act as the account of the daemon."""

from __future__ import annotations

import pwd
import re
import subprocess

from watchdog.config.permissions import ACCOUNT

SERVICE = pwd.getpwnam(ACCOUNT)
NOBODY = pwd.getpwnam("nobody")


def test_a_command_receiver_of_the_daemon_does_not_run_as_root(watchdog, storm, open_folder, wait_for):
    script, written = open_folder / "hook", open_folder / "written"
    script.write_text(
        f"#!/bin/sh\ncat >/dev/null\nid --user --name >{written}\ngrep ^Cap /proc/self/status >>{written}\n"
    )
    script.chmod(0o755)
    written.touch()
    written.chmod(0o666)
    watchdog.configure({"cmd": {"type": "command", "command": [str(script)]}}, {"storm": storm.crowd_rule()})
    watchdog.start()
    storm.hold()
    wait_for(lambda: "CapAmb" in written.read_text(), "the command")
    name, *capabilities = written.read_text().splitlines()

    assert name == ACCOUNT
    assert {line.split()[1] for line in capabilities if not line.startswith("CapBnd")} == {"0" * 16}


def test_root_reads_a_state_file_as_its_owner(watchdog, server, storm, open_folder):
    watchdog.give_to_nobody()
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.rule()})
    ambient = ["--inh-caps=+bpf,+perfmon", "--ambient-caps=+bpf,+perfmon"]
    watchdog.start("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *ambient)
    watchdog.kill()
    trace = open_folder / "trace"
    command = [watchdog.command, "notifications", "list", "--state-dir", watchdog.state]
    traced = ["strace", "--output", trace, "--trace=setresuid,openat", *command]
    done = subprocess.run(traced, capture_output=True, text=True, check=False)
    calls = trace.read_text().splitlines()
    changed = next(number for number, call in enumerate(calls) if call.startswith(f"setresuid({NOBODY.pw_uid}, "))
    opened = [number for number, call in enumerate(calls) if re.search(r"state\.sqlite3", call)]

    assert (done.returncode, "read from" in done.stderr) == (0, True), done.stderr
    assert opened
    assert changed < min(opened)


def test_notify_test_names_files_that_only_root_can_read(watchdog, server, storm, open_folder):
    secret = open_folder / "secret"
    secret.write_text("made-up")
    secret.chmod(0o600)
    watchdog.configure({"hook": server.as_receiver(hmac_secret_file=str(secret))}, {"storm": storm.rule()})
    watchdog._keep_private()
    command = [watchdog.command, "notify", "test", "hook", "--config", watchdog.config]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert "note: a reload of the daemon would be refused:\n" in done.stderr
    assert f"cannot read '{secret}': Permission denied" in done.stderr
