"""Alerts, notifications, hostile names and the state file, for tests of several rooms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import factories
from watchdog.alerts.alert import Alert
from watchdog.alerts.evidence import Evidence
from watchdog.routing.notification import Notification
from watchdog.state.outbox import Outbox
from watchdog.state.store import Store

# Names that a process can give itself; bytes that are not UTF-8 arrive surrogate-escaped.
HOSTILE_NAMES = (
    "\x1b[2J\x1b]0;owned\x07",
    "line\r\nfeed: <26>1 - - - - - forged",
    "nul\x00nul",
    "\u202egnp.exe",
    "zero\u200bwidth\ufeff",
    "c1\u009b31m",
    "separators\u2028\u2029",
    b"bytes \xff\xfe\x1b".decode("utf-8", "surrogateescape"),
    "lone \ud800 surrogate",
    "<!channel> <@U012AB3CD> <https://evil.example|click>",
    "``` *bold* _it_ ~no~ :fire: @here #general",
    '"] [forged@32473 rule="x"] \\',
    "%s %n {0.__class__} {value} ${x} $(id) `id` ../../etc/passwd",
    "&amp; &lt; <>&",
    "already \\x1b \\u202e \\\\ escaped \\",
    "\U000e0041\U000e0042 tags",
    "a" * 5_000,
    "é" * 5_000,
    "\x1b" * 5_000,
    "",
)


@pytest.fixture(params=HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
def hostile_name(request) -> str:
    """Return each of the names that every receiver must be able to send."""
    return request.param


@pytest.fixture
def store(tmp_path: Path, clock) -> Iterator[Store]:
    """Open a new state file in `tmp_path`."""
    store = Store(tmp_path, clock, "boot1")
    yield store
    store.close()


@pytest.fixture
def outbox(store, clock) -> Outbox:
    """Return the outbox of `store`."""
    return Outbox(store.database, clock)


@pytest.fixture
def evidence() -> Evidence:
    """Return the evidence of a crawler whose connections a server refuses."""
    return factories.make_evidence()


@pytest.fixture
def make_alert() -> Callable[..., Alert]:
    """Return the factory of alerts."""
    return factories.make_alert


@pytest.fixture
def make_notification() -> Callable[..., Notification]:
    """Return the factory of notifications."""
    return factories.make_notification


@pytest.fixture
def hostile_notification(hostile_name) -> Notification:
    """Return a notification with a hostile name in each text that comes from the host."""
    texts = dict.fromkeys(("name", "exe", "user", "unit", "container", "command"), hostile_name)
    evidence = factories.make_evidence(
        top_process=factories.make_top_process(**texts, parents=((1, hostile_name),) * 5),
        peers=(factories.make_peer(address=hostile_name),) * 5,
    )
    alert = factories.make_alert(
        labels=(("process", hostile_name), ("unit", hostile_name)),
        fingerprint="0123456789abcdef",
        summary=hostile_name,
        reason=hostile_name,
        evidence=evidence,
    )
    return factories.make_notification(alert, host=hostile_name)
