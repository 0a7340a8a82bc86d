"""Files that root can read and the daemon's account cannot: a checkout in root's home, settings of mode 0600."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

from watchdog.config.permissions import ACCOUNT

KEEP = "or keep {} in /etc/bpf-watchdog\n"


def test_from_a_private_checkout_it_starts_evaluates_and_reloads(
    watchdog, private_command, server, storm, notified, wait_for, open_folder
):
    watchdog.command = private_command
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.rule()})
    watchdog.start()
    storm.rage()
    notified("firing")
    assert "reloaded: rules=6 " in watchdog.reload()
    storm.rest()
    notified("firing", "resolved")

    assert "Error" not in watchdog.log()
    assert "refused" not in watchdog.log()
    assert watchdog.terminate()[0] == 0


def test_the_shipped_rules_of_a_private_checkout_can_be_reloaded_and_are_logged_with_their_usual_path(
    installation, private_command, open_folder, wait_for
):
    rules = installation / "rules"
    log = open_folder / "log"
    with log.open("wb") as output:
        daemon = subprocess.Popen([private_command, "run", "--state-dir", open_folder / "state"], stderr=output)
    try:
        wait_for(lambda: "SIGHUP reads" in log.read_text(), "the daemon")
        daemon.send_signal(signal.SIGHUP)
        wait_for(lambda: "reloaded" in log.read_text(), "the reload")
    finally:
        daemon.terminate()
        daemon.wait(60)

    assert f" from {rules} (shipped)" in log.read_text()
    assert re.search(rf"reloaded: rules=(\d+) shipped=\1 from={re.escape(str(rules))}\n", log.read_text())
    assert "refused" not in log.read_text()


def test_other_commands_work_from_a_private_checkout_too(private_command):
    for arguments in (["doctor"], ["sample", "--for", "1s"], ["check"]):
        done = subprocess.run([private_command, *arguments], check=False, capture_output=True, text=True, cwd="/")
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stdout + done.stderr


def test_files_that_a_reload_could_not_read_are_logged_at_the_start(watchdog, server, storm, notified):
    secret = watchdog.config.with_name("secret")
    secret.write_text("made-up")
    secret.chmod(0o600)
    hook = server.as_receiver(hmac_secret_file=str(secret))
    watchdog.configure({"hook": hook}, {"storm": storm.rule()})
    watchdog.start()
    line = watchdog.config.read_text().splitlines().index(f'hmac_secret_file = "{secret}"') + 1
    warned = (
        "a reload (SIGHUP) would be refused: the account cannot read what root read at the start\n"
        f"  {watchdog.config}:{line}: receiver.hmac_secret_file: cannot read '{secret}': Permission denied: "
        f"it must be readable to the account {ACCOUNT}: chgrp {ACCOUNT} {secret} && chmod g+r {secret}, "
        + KEEP.format("it")
    )

    assert warned in watchdog.log()
    storm.rage()
    notified("firing")


def test_a_folder_that_is_closed_later_is_not_taken_for_missing(watchdog, open_folder, server, storm, notified):
    inner = Path(open_folder, "inner")
    inner.mkdir()
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.rule()})
    watchdog.rules = watchdog.rules.rename(inner / "rules.d")
    watchdog.start()
    inner.chmod(0o700)
    refusal = watchdog.reload()

    assert "reload refused, the former configuration stays in force:\n" in refusal
    remedy = f"the account {ACCOUNT} cannot enter the folder {inner}: chgrp {ACCOUNT} {inner} && chmod g+x {inner}, "
    assert f"{watchdog.rules}:1: file: cannot read: Permission denied: {remedy}{KEEP.format('the file')}" in refusal
    storm.rage()
    notified("firing")
    inner.chmod(0o755)
    assert "reloaded: rules=6 " in watchdog.reload()
