"""The daemon while its log is not read: a paused terminal, a stuck pager."""

from __future__ import annotations

import fcntl
import os
import subprocess

PATIENCE = 60.0


def test_a_stuck_reader_of_the_log_blocks_neither_the_daemon_nor_its_stop(watchdog, server, storm, notified):
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.crowd_rule()})
    reading, writing = os.pipe()
    size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"x" * size)  # full before the first line of the daemon
    command = [watchdog.command, "run", "--config", watchdog.config, "--rules", watchdog.rules]
    watchdog.process = subprocess.Popen(
        [*command, "--state-dir", watchdog.state], stdin=subprocess.DEVNULL, stdout=writing, stderr=writing
    )
    os.close(writing)
    storm.hold()
    notified("firing")
    code, seconds = watchdog.terminate()
    os.close(reading)

    assert code == 0
    assert seconds < 5
