"""A disk that hangs: each write to its file system waits. The status comes all the same, with the reason."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import threading
import time

import pytest
from simulated_host import CALM, PATIENCE, STORM, SimulatedHost

from watchdog.clock import SECOND_NS
from watchdog.control.client import send_request
from watchdog.control.listener import Listener
from watchdog.control.reload_handler import ReloadAnswer
from watchdog.control.server import ControlServer
from watchdog.daemon.control_api import ControlApi
from watchdog.daemon.delivery_record import DeliveryRecordReader
from watchdog.daemon.heartbeat import Heartbeat
from watchdog.daemon.stages import HANGING_NS
from watchdog.daemon.status_report import DaemonFacts
from watchdog.errors import WatchdogError
from watchdog.scheduling.job import ScheduledTick
from watchdog.scheduling.scheduler import Scheduler
from watchdog.scheduling.tick_loop import TickLoop
from watchdog.storage.database import Database
from watchdog.storage.reader import StateReader
from watchdog.systemd import Systemd


class Disk:
    """A file system of its own that can be frozen: then every change of a file waits, as on a disk that hangs."""

    def __init__(self, folder):
        self.folder = folder
        self.is_frozen = False

    def freeze(self):
        subprocess.run(["fsfreeze", "--freeze", str(self.folder)], check=True)
        self.is_frozen = True

    def thaw(self):
        if self.is_frozen:
            subprocess.run(["fsfreeze", "--unfreeze", str(self.folder)], check=True)
            self.is_frozen = False


@pytest.fixture
def disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    disk = Disk(folder)
    yield disk
    disk.thaw()
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def simulation(disk, clock):
    simulation = SimulatedHost(disk.folder, clock)
    simulation.receiver.destination = lambda: "webhook example.net"
    yield simulation
    disk.thaw()
    simulation.pipeline.stop()


@pytest.fixture
def path(simulation, tmp_path):
    """Serve the requests of the simulated daemon; return the path of its control socket."""
    log, clock = logging.getLogger("watchdog"), simulation.clock
    loop = TickLoop(Scheduler(clock, log), Systemd({}), clock, log)
    facts = DaemonFacts(loop, Heartbeat(simulation.host, list, clock, log), simulation.host, clock)
    configuration = simulation.configuration("storm")
    api = ControlApi(
        simulation.pipeline,
        simulation.store,
        facts,
        configuration,
        lambda dry_run: ReloadAnswer(accepted=True, dry_run=dry_run),
    )
    path = tmp_path / "control.sock"
    server = ControlServer(Listener.at(path), api.handlers(), log)
    server.start()
    yield path
    server.stop()


def start(target, *arguments):
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def test_the_status_comes_while_the_commit_of_a_tick_hangs(disk, simulation, path):
    for connects in (CALM, STORM, STORM, STORM, STORM, STORM):
        simulation.tick(connects)
    before = send_request(path, "status")
    assert (before["alerts"]["warning"], before["problems"]) == (1, [])

    disk.freeze()
    clock = simulation.clock
    clock.advance(6)  # a timer runs, whose time is written each five seconds
    now_ns = clock.boottime_ns()
    ticking = start(simulation.pipeline.run_tick, ScheduledTick(now_ns, now_ns, 0.0, 0))
    asking = [start(ask, path, request) for request in ("alerts list", "notifications list", "rules list")]
    deadline = time.monotonic() + PATIENCE
    while (simulation.pipeline._stages._running or [None])[0] != "state":
        assert ticking.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    clock.advance(HANGING_NS / SECOND_NS + 1)
    status = send_request(path, "status")
    assert "tick hangs: stage=state for=11s" in status["problems"]
    assert any(problem.startswith("state file not read, the disk does not answer") for problem in status["problems"])
    assert status["alerts"] == before["alerts"]
    assert status["receivers"][0]["name"] == "oncall"

    disk.thaw()
    for thread in (ticking, *asking):
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert send_request(path, "status")["problems"] == []


def ask(path, request):
    with contextlib.suppress(WatchdogError):  # they may wait for the tick in vain
        send_request(path, request)


class HangingDatabase:
    """A state file of which no reading ends before `answers` is set."""

    def __init__(self, path):
        self.answers = threading.Event()
        self._reader = StateReader(path)

    @contextlib.contextmanager
    def transaction(self):
        assert self.answers.wait(PATIENCE)
        with self._reader.transaction() as connection:
            yield connection


def test_a_reading_that_hangs_is_waited_for_once_and_no_second_one_begins(tmp_path, clock, monkeypatch):
    monkeypatch.setattr("watchdog.daemon.delivery_record.WAIT_SECONDS", 0.2)
    Database(tmp_path / "state.db", clock).close()
    database = HangingDatabase(tmp_path / "state.db")
    reader = DeliveryRecordReader(database, clock)
    try:
        problems = [reader.read()[1]]
        clock.advance(40)
        threads = threading.active_count()
        problems.append(reader.read()[1])
        assert threading.active_count() == threads
    finally:
        database.answers.set()
    assert problems == [
        "state file not read, the disk does not answer: for=1s",
        "state file not read, the disk does not answer: for=40s",
    ]
    deadline = time.monotonic() + PATIENCE
    while reader.read()[1]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_missing_file_is_a_problem_with_its_reason_and_a_transaction_of_the_writer_is_none(tmp_path, clock):
    reader = DeliveryRecordReader(StateReader(tmp_path / "state.db"), clock)
    assert reader.read()[1] == f"state file not read: there is no state file {tmp_path / 'state.db'}"
    database = Database(tmp_path / "state.db", clock)
    try:
        assert reader.read()[1] == ""
        with database.transaction():
            assert reader.read()[1] == ""  # a reader needs no lock of the writer
    finally:
        database.close()
