"""Users of the host's name service, looked up by a real child."""

from __future__ import annotations

import os
import pwd
import sys
import time

import pytest

from watchdog.measure.name_service import NameService

PATIENCE = 60.0
PROGRAM = "import os, time; os.write(1, b'0\\n'); time.sleep(60)"
NEVER_ANSWERS = (os.path.realpath(sys.executable), "-I", "-S", "-c", PROGRAM)


@pytest.fixture
def service():
    service = NameService(seconds=PATIENCE)
    yield service
    service.close()


def test_users_have_the_names_of_the_name_service_and_unknown_ones_none(service):
    known = {entry.pw_uid: pwd.getpwuid(entry.pw_uid).pw_name for entry in pwd.getpwall()[:5]}
    unknown = next(uid for uid in range(1_000_000, 2_000_000) if uid not in {one.pw_uid for one in pwd.getpwall()})
    assert {uid: service.name(uid) for uid in known} == known
    assert service.name(unknown) is None
    assert service.name(2**32 - 1) is None


def test_a_name_service_that_never_answers_costs_its_limit_and_leaves_no_process():
    service = NameService(NEVER_ANSWERS, 0.2)
    began = time.monotonic()
    assert [service.name(uid) for uid in (1000, 1001)] == [None, None]
    assert 0.4 <= time.monotonic() - began < PATIENCE
    assert (service._child, service._stuck) == (None, [])


def test_a_child_that_cannot_be_started_or_ends_gives_no_name():
    service = NameService((NEVER_ANSWERS[0], "-c", "pass"), PATIENCE)
    assert service.name(1000) is None
    service = NameService((*NEVER_ANSWERS[:-1], "import os; os.write(1, b'0\\n'); os.read(0, 1)"), PATIENCE)
    assert service.name(1000) is None
