"""The real Apprise, against a local HTTP server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback

import pytest

from watchdog.config.secrets import Secret
from watchdog.errors import DeliveryError, PartialDeliveryError
from watchdog.receivers.apprise.apprise_receiver import Apprise

DEADLINE = 30.0  # importing Apprise takes seconds on a busy machine


def receiver_of(*servers, more=()):
    urls = (f"json://127.0.0.1:{server.server_port}/secret-path" for server in servers)
    return Apprise("all", tuple(Secret(url) for url in (*urls, *more)))


def failure_of(receiver, notification, deadline=DEADLINE):
    with pytest.raises(DeliveryError) as caught:
        receiver.send(notification, deadline)
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    return caught.value


def test_every_service_gets_firing_and_resolved(server, other_server, firing, resolved):
    receiver = receiver_of(server, other_server)
    for notification in (firing, resolved):
        receiver.send(notification, DEADLINE)
    for each in (server, other_server):
        documents = [json.loads(body) for _, _, body in each.posts]
        assert [document["type"] for document in documents] == ["failure", "success"]
        assert documents[0]["title"].startswith("[FIRING] critical: crawler opens 612/s connections")
        assert documents[0]["message"].rstrip() == json.loads(receiver.render(firing))["body"].rstrip()


def test_if_one_service_fails_only_that_one_is_notified_again(server, other_server, firing):
    other_server.answer = (500, {}, b"")
    receiver = receiver_of(server, other_server)
    failure = failure_of(receiver, firing)
    assert isinstance(failure, PartialDeliveryError)
    assert (failure.reason, failure.retryable) == ("server_error", True)
    other_server.answer = (200, {}, b"")
    receiver.send(firing, DEADLINE)
    assert (len(server.posts), len(other_server.posts)) == (1, 2)


def test_if_every_service_fails_none_was_reached(server, other_server, firing):
    server.answer = other_server.answer = (500, {}, b"")
    failure = failure_of(receiver_of(server, other_server), firing)
    assert not isinstance(failure, PartialDeliveryError)
    assert (failure.reason, failure.retryable) == ("server_error", True)


def test_an_unknown_url_is_reported_and_the_other_services_are_notified(server, firing):
    failure = failure_of(receiver_of(server, more=("nonsense://secret",)), firing)
    assert (failure.reason, failure.retryable) == ("client_error", False)
    assert str(failure) == "1 of 2 services refused: Apprise does not support the URL"
    assert len(server.posts) == 1


def test_a_service_that_hangs_ends_at_the_deadline(server, firing):
    server.answering.clear()
    began = time.monotonic()
    failure = failure_of(receiver_of(server), firing, 2.0)
    assert time.monotonic() - began < 4
    assert (failure.reason, failure.retryable) == ("timeout", True)
    server.answering.set()


def test_the_child_with_the_urls_leaves_no_core_file():
    program = (
        "import ctypes\n"
        "from watchdog.receivers.apprise import child\n"
        "child.main()\n"
        "print('dumpable:', ctypes.CDLL(None).prctl(3))\n"  # PR_GET_DUMPABLE
    )
    call = '{"urls": [], "title": "", "body": "", "type": "info"}'
    done = subprocess.run([sys.executable, "-c", program], input=call, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "dumpable: 0"


def test_sending_imports_nothing_into_the_daemon(server):
    program = (
        "import sys\n"
        "from watchdog.receivers.render.example import example_notifications\n"
        "from watchdog.receivers.apprise.apprise_receiver import Apprise\n"
        "from watchdog.config.secrets import Secret\n"
        "receiver = Apprise('all', (Secret(sys.argv[1]),))\n"
        "before = set(sys.modules)\n"
        "for notification in example_notifications('all'): receiver.send(notification, 30.0)\n"
        "print(sorted(set(sys.modules) - before))\n"
    )
    url = f"json://127.0.0.1:{server.server_port}/"
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, timeout=170, check=True)
    assert done.stdout == "[]\n"
    assert len(server.posts) == 2
