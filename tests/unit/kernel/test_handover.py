"""The message of the loader is checked before it is used."""

import json
import os
import socket
from pathlib import Path

import pytest

from watchdog.errors import HandoverError, KernelUnfit
from watchdog.kernel import handover
from watchdog.kernel.programs import CONNECT_ERROR_PROBES, MESSAGE_PROBES


@pytest.fixture
def channel():
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.settimeout(5)
    with here, there:
        yield here, there


def open_descriptors():
    return {link.name for link in Path("/proc/self/fd").iterdir()}


def send(there, message, fds):
    socket.send_fds(there, [message], fds)


@pytest.mark.parametrize("count", [0, 1, 60])
def test_a_wrong_number_of_descriptors_is_refused_and_they_are_closed(channel, count):
    here, there = channel
    devices = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    send(there, json.dumps({"fds": handover.manifest(CONNECT_ERROR_PROBES, MESSAGE_PROBES)}).encode(), devices)
    for fd in devices:
        os.close(fd)
    before = open_descriptors()

    with pytest.raises(HandoverError, match=f"unexpected descriptors from the loader: count={count} "):
        handover.receive(here)
    assert open_descriptors() == before


def test_descriptors_of_another_kind_are_refused(channel):
    here, there = channel
    names = handover.manifest(CONNECT_ERROR_PROBES, MESSAGE_PROBES)
    null = os.open("/dev/null", os.O_RDONLY)
    send(there, json.dumps({"fds": names}).encode(), [null] * len(names))
    os.close(null)

    with pytest.raises(HandoverError, match=f"wrong kind of descriptor from the loader: {names[0]}"):
        handover.receive(here)


def test_other_names_are_refused(channel):
    here, there = channel
    names = ["program:other", *handover.manifest(CONNECT_ERROR_PROBES, MESSAGE_PROBES)[1:]]
    null = os.open("/dev/null", os.O_RDONLY)
    send(there, json.dumps({"fds": names}).encode(), [null] * len(names))
    os.close(null)

    with pytest.raises(HandoverError, match="program:other"):
        handover.receive(here)


@pytest.mark.parametrize("message", [b"\xff", b"no json", b"{"])
def test_a_message_that_is_not_json_is_refused(channel, message):
    here, there = channel
    there.send(message)

    with pytest.raises(HandoverError, match="not JSON"):
        handover.receive(here)


def test_a_loader_that_ends_without_a_message_is_an_error(channel):
    here, there = channel
    there.close()

    with pytest.raises(HandoverError, match="the loader ended without a message"):
        handover.receive(here)


def test_a_loader_without_a_message_is_an_error_after_a_time(channel):
    here, _ = channel
    here.settimeout(0.01)

    with pytest.raises(HandoverError, match="no message from the loader within"):
        handover.receive(here)


def test_the_error_of_the_loader_is_raised_unchanged(channel):
    here, there = channel
    handover.send_error(there, KernelUnfit("no BTF", remedy="boot another kernel"))

    with pytest.raises(KernelUnfit, match="no BTF: boot another kernel") as caught:
        handover.receive(here)
    assert caught.value.remedy == "boot another kernel"


def test_steps_are_reported_in_their_order_before_the_result(channel):
    here, there = channel
    steps = []
    for step in handover.LoaderStep:
        handover.send_step(there, step)
    handover.send_error(there, KernelUnfit("no BTF"))

    with pytest.raises(KernelUnfit):
        handover.receive(here, steps.append)
    assert steps == list(handover.LoaderStep)


@pytest.mark.parametrize(
    ("message", "count"),
    [({"step": "mining"}, 0), ({"step": ["compiling"]}, 0), ({"step": handover.LoaderStep.COMPILE}, 1)],
)
def test_an_unknown_step_or_one_with_descriptors_is_refused(channel, message, count):
    here, there = channel
    devices = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    send(there, json.dumps(message).encode(), devices)
    for fd in devices:
        os.close(fd)
    before = open_descriptors()

    with pytest.raises(HandoverError, match="unknown step of the loader"):
        handover.receive(here)
    assert open_descriptors() == before


def test_a_loader_cannot_keep_the_daemon_waiting_by_endless_steps(channel):
    here, there = channel
    for _ in range(100):
        handover.send_step(there, handover.LoaderStep.COMPILE)

    with pytest.raises(HandoverError, match="more than 10 steps"):
        handover.receive(here)


@pytest.mark.parametrize("message", [b"[]", b"1", b'"step"'])
def test_a_message_that_is_no_object_is_refused(channel, message):
    here, there = channel
    there.send(message)

    with pytest.raises(HandoverError, match="not an object"):
        handover.receive(here)


def test_the_descriptor_that_counts_runs_is_known_with_and_without_iterators(channel):
    here, there = channel
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        for sockets in (True, False):
            names = handover.manifest(
                CONNECT_ERROR_PROBES, MESSAGE_PROBES, with_socket_iterator=sockets, with_run_times=True
            )
            assert names[-1] == handover.RUN_TIMES
            send(there, json.dumps({"fds": names}).encode(), [null] * len(names))
            with pytest.raises(HandoverError, match="wrong kind of descriptor"):  # the names are right
                handover.receive(here)
    finally:
        os.close(null)
