"""The log of a running daemon in each format, and the run time of its BPF programs, which it may not be permitted."""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import time
import urllib.request

import pytest
from ports import free_port

pytestmark = pytest.mark.timeout(300)  # a loaded machine takes long to load the programs
PATIENCE = 120.0


def program_runs(port):
    """Return the runs and seconds of BPF programs by name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
        page = response.read().decode()
    found = re.findall(
        r'^bpf_watchdog_bpf_program_(runs|run_seconds)_total\{program="(\w+)"\} (.+)$', page, re.MULTILINE
    )
    kinds = {kind: {program: float(value) for one, program, value in found if one == kind} for kind, _, _ in found}
    return kinds.get("runs", {}), kinds.get("run_seconds", {})


def test_text_then_json_after_a_reload_and_the_runs_of_programs(watchdog, server, storm, notified, wait_for):
    port = free_port()
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.crowd_rule()})
    watchdog.configure_more(f'[web]\nlisten = "127.0.0.1:{port}"\nbpf_stats = true')
    watchdog.start()
    at_start = watchdog.log()
    stamp = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) "
    assert all(re.match(stamp, line) for line in at_start.splitlines()), at_start
    assert "run time of BPF programs not counted" not in at_start

    watchdog.configure_more('[log]\nformat = "json"')
    watchdog.process.send_signal(signal.SIGHUP)
    wait_for(lambda: '"event": "reloaded"' in watchdog.log(), "the reload")
    storm.hold()
    notified("firing")
    wait_for(lambda: "firing: storm" in watchdog.log(), "the alert in the log")
    log = watchdog.log()
    events = [json.loads(line) for line in log[log.index("{") :].splitlines()]
    [reloaded] = [one for one in events if one["event"] == "reloaded"]
    assert reloaded["rules"] > 1
    assert (reloaded["from"], reloaded["shipped"]) == (str(watchdog.rules), 5)
    [firing] = [one for one in events if one.get("transition") == "firing"]
    assert (firing["rule"], firing["severity"], firing["label_process"]) == ("storm", "warning", storm.name)
    assert firing["level"] == "info"

    runs, seconds = program_runs(port)
    assert runs.keys() == seconds.keys()
    # Each connection changes its state; each tick walks over sockets.
    assert runs["inet_sock_set_state"] >= 2 * storm.LIMIT
    assert 0 < seconds["inet_sock_set_state"] < 60
    assert max(runs.get("bpf_sk_storage_map", 0), runs["task_file"]) > 0
    assert watchdog.terminate()[0] == 0


@pytest.fixture
def journal(open_folder):
    """Return the socket of a journal that every account can write to, and its path."""
    path = open_folder / "journal.socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        path.chmod(0o666)
        yield receiver, path


def test_fields_in_the_journal_and_one_note_where_runs_may_not_be_counted(watchdog, journal, storm):
    receiver, path = journal
    port = free_port()
    watchdog.configure({"out": {"type": "console"}}, {"storm": storm.crowd_rule()})
    watchdog.configure_more(f'[web]\nlisten = "127.0.0.1:{port}"\nbpf_stats = true')
    place = "/run/systemd/journal"
    prepare = (
        f"mount -t tmpfs none /run && mkdir -p {place} && touch {place}/socket && mount --bind {path} {place}/socket"
    )
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{prepare} && exec "$@"', "sh"]
    without = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-all"]
    watchdog.launch(*private, *without, JOURNAL_STREAM=watchdog.log_stream())
    entries = []
    deadline = time.monotonic() + PATIENCE
    while not any("SIGHUP reads the files again" in one["WATCHDOG_EVENT"] for one in entries):
        assert select.select([receiver], [], [], max(0.0, deadline - time.monotonic()))[0], watchdog.log()
        entries.append(dict(line.split("=", 1) for line in receiver.recv(1 << 20).decode().splitlines()))

    def is_about_runs(entry):
        return entry["WATCHDOG_EVENT"].startswith("run time of BPF programs not counted")

    while not any(map(is_about_runs, entries)):
        assert select.select([receiver], [], [], max(0.0, deadline - time.monotonic()))[0], watchdog.log()
        entries.append(dict(line.split("=", 1) for line in receiver.recv(1 << 20).decode().splitlines()))
    events = [one["WATCHDOG_EVENT"] for one in entries]
    assert events == [" ".join(event.split()) for event in events]  # no blanks that align lines
    [note] = filter(is_about_runs, entries)
    assert (note["PRIORITY"], note["SYSLOG_IDENTIFIER"]) == ("4", "bpf-watchdog")
    assert note["WATCHDOG_REASON"] == "cannot count the run time of BPF programs: Operation not permitted"
    assert note["MESSAGE"].endswith(f': reason="{note["WATCHDOG_REASON"]}"')
    watchdog.wait_for(lambda: _is_served(port), "the metrics")
    assert program_runs(port) == ({}, {})
    assert "INFO" not in watchdog.log()
    assert watchdog.terminate()[0] == 0


def _is_served(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60):
            return True
    except OSError:
        return False
