"""A host without a free thread, as any user can make it: helper threads begin once there is one again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_BEGIN = """
import logging, os, resource, sys, time
from pathlib import Path

from watchdog.errors import DeliveryError, WatchdogError
from watchdog.clock import SystemClock

PATIENCE = 60.0
log = logging.getLogger("test")
HARD = resource.getrlimit(resource.RLIMIT_NPROC)[1]

def limit(count):
    resource.setrlimit(resource.RLIMIT_NPROC, (count, HARD))

def wait_until(holds):
    end = time.monotonic() + PATIENCE
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.01)
    print(bool(found))

os.setuid(65_534)
"""
_CONTROL = """
from watchdog.control.client import send_request
from watchdog.control.listener import Listener
from watchdog.control.server import ControlServer, Handler

path = Path(sys.argv[1]) / "control.sock"
server = ControlServer(Listener.at(path), {"slow": Handler(lambda given: "done", in_background=True)}, log)
server.start()
limit(0)
try:
    send_request(path, "slow")
except WatchdogError as error:
    print(error)
limit(HARD)
print(send_request(path, "slow"))
server.stop()
"""
_USERS = """
from watchdog.measure.users import UserNames

class Lookup:
    def name(self, uid):
        return "alice"

    def close(self):
        pass

users = UserNames(lookup=Lookup())
limit(0)
users.update([4_000_000], 0)
limit(HARD)
users.update([4_000_000], 1)
def is_known():
    users.update([4_000_000], 2)
    return users.name(4_000_000) == "alice"
wait_until(is_known)
"""
_EVIDENCE = """
from watchdog.alerts.command_request import CommandRequest
from watchdog.daemon.late_evidence import LateEvidence
from watchdog.measure.process_reader import ProcessReader

late = LateEvidence(ProcessReader(), None, lambda: None, SystemClock(), log)
request = CommandRequest("rule", (), "fingerprint", os.getpid(), None)
limit(0)
late.request([request], {})
limit(HARD)
print(late.take_answers())
late.request([request], {})
wait_until(late.take_answers)
late.stop()
"""
_HOLDERS = """
from watchdog.kernel.live_sockets import HolderWalk

class Files:
    steps = 0  # of the round that are left

    def step(self):
        end = time.thread_time() + 0.3
        while self.steps and time.thread_time() < end:
            pass
        self.steps = max(0, self.steps - 1)
        return self.steps > 0

    def close(self):
        pass

files = Files()
walk = HolderWalk(files)
with walk.tick():
    pass
walk._next_round, files.steps = 0.0, 3
limit(0)
with walk.tick():
    pass
limit(HARD)
print(walk.is_unfinished)
with walk.tick():
    pass
wait_until(lambda: not walk.is_unfinished)
walk.close()
"""
_ALERTMANAGER = """
from watchdog.config.secrets import Secret
from watchdog.receivers.alertmanager import Alertmanager
from watchdog.receivers.transport.http import Endpoint
from watchdog.receivers.render.example import example_notifications

receiver = Alertmanager("oncall", [Endpoint(Secret("http://127.0.0.1:1/"))], SystemClock())
for count in (0, HARD):
    limit(count)
    try:
        receiver.send(next(example_notifications("oncall")), 5.0)
    except DeliveryError as error:
        print(error)
receiver.close()
"""
_HEARTBEAT = """
from watchdog.daemon.heartbeat import Heartbeat, RulesInForce
from watchdog.daemon.host_name import HostName

class Monitor:
    interval_ns = 1_000_000_000
    received = 0

    def post(self, body, deadline_seconds, *, is_healthy):
        self.received += 1

monitor = Monitor()
heartbeat = Heartbeat(HostName(lambda: "web-1"), list, SystemClock(), log)
limit(0)
heartbeat.set_target(monitor, RulesInForce(1, ""))
heartbeat.record_tick(succeeded=True, interval_ns=1_000_000_000)
limit(HARD)
heartbeat.record_tick(succeeded=True, interval_ns=1_000_000_000)
wait_until(lambda: monitor.received)
"""
_JOB = """
from watchdog.scheduling.scheduler import Scheduler

logging.disable()  # APScheduler logs each failed begin
scheduler, runs = Scheduler(SystemClock(), log), []
scheduler.start()
limit(0)
scheduler.add_job("tick", 500_000_000, runs.append)
time.sleep(1.0)
limit(HARD)
wait_until(lambda: len(runs) > 0)
scheduler.stop()
"""


def run(program, *arguments):
    finished = subprocess.run(
        [sys.executable, "-c", _BEGIN + program, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines()


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the limit applies to other accounts than root")


def test_the_control_socket_answers_after_a_request_without_a_thread(open_folder):
    os.chown(open_folder, 65_534, -1)
    assert run(_CONTROL, open_folder) == [
        "no further thread can be started on this host: try again later",
        "done",
    ]


def test_users_are_looked_up_later():
    assert run(_USERS) == ["True"]


def test_command_lines_of_later_alerts_are_read():
    assert run(_EVIDENCE) == ["[]", "True"]


def test_a_walk_over_files_goes_on_in_the_next_tick():
    assert run(_HOLDERS) == ["True", "True"]


def test_an_alertmanager_gets_later_notifications():
    without, refused = run(_ALERTMANAGER)
    assert "no further thread can be started on this host" in without
    assert "Connection refused" in refused


def test_a_job_begins_at_a_later_point_of_its_grid():
    assert run(_JOB) == ["True"]


def test_heartbeats_begin_with_a_later_tick():
    assert run(_HEARTBEAT) == ["True"]
