"""Requests on silences and acknowledgements, over a real state file."""

import pytest

import factories
from watchdog.clock import SECOND_NS
from watchdog.control.silence_handlers import SilencedAlerts, silence_handlers
from watchdog.errors import UsageError, WatchdogError
from watchdog.routing.alert_matching import ROUTE_DIMENSIONS

STORM = factories.make_alert(labels=(("process", "crawler"),))
SPIKE = factories.make_alert(rule="spike", labels=(("process", "crawler"),))
FIRING = {alert.fingerprint: alert for alert in (STORM, SPIKE)}


@pytest.fixture
def ask(store, clock):
    handlers = silence_handlers(store.silences, SilencedAlerts(lambda: FIRING, lambda: ROUTE_DIMENSIONS), clock)

    def ask(name, **arguments):
        handler = handlers[name]
        return getattr(handler, "handle", handler)(arguments)

    return ask


def add(ask, *matchers, **arguments):
    defaults = {"matchers": list(matchers) or ["rule=spike"], "comment": "move", "author": "ada", "duration": "2h"}
    return ask("silence add", **{**defaults, **arguments})


def test_added_silence_is_listed_with_the_alerts_that_it_silences(ask, clock):
    added = add(ask, "rule=spike", "process=crawl*", "process!=x")
    clock.advance(3600)
    (listed,) = ask("silence list")["silences"]
    assert listed == added
    assert listed["ends_at"] == clock.wall() + 3600
    assert listed["alerts"] == [SPIKE.fingerprint]
    assert listed["matchers"] == {"rule": ["spike"], "process": ["crawl*", "!x"]}
    assert (listed["kind"], listed["author"], listed["comment"]) == ("silence", "ada", "move")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"duration": None}, "no duration: give --for"),
        ({"duration": "8d"}, "8d is more than 7d"),
        ({"duration": "soon"}, "not a duration"),
        ({"duration": "0s"}, "at least 1s"),
        ({"comment": " "}, "comment is missing"),
        ({"comment": None}, "comment is missing"),
        ({"comment": "x" * 501}, "at most 500"),
        ({"matchers": ["proces=x"]}, "process"),
        ({"until": "2h"}, "unknown argument"),
    ],
)
def test_silence_that_is_no_silence_is_refused(ask, arguments, message):
    with pytest.raises(UsageError, match=message):
        add(ask, **arguments)
    assert ask("silence list") == {"silences": []}


def test_silence_for_long_needs_a_reason(ask, store, clock):
    assert add(ask, duration="7d")["permanent_reason"] is None
    assert add(ask, duration="30d", permanent_reason="retired soon")["permanent_reason"] == "retired soon"
    assert add(ask, duration=None, permanent_reason="retired")["ends_at"] is None
    assert [silence.ends_ns for silence in store.silences.current] == [
        clock.boottime_ns() + 7 * 86_400 * SECOND_NS,
        clock.boottime_ns() + 30 * 86_400 * SECOND_NS,
        None,
    ]


def test_silences_expire_by_the_first_characters_of_their_ids(ask):
    added = add(ask)
    assert ask("silence expire", ids=[added["id"][:6], added["id"]]) == [
        {"id": added["id"], "expired": True, "reason": None},
        {
            "id": added["id"],
            "expired": False,
            "reason": "there is no such silence, or it has ended: see bpf-watchdog silence list",
        },
    ]
    assert ask("silence list") == {"silences": []}
    assert not ask("silence expire", ids=[""])[0]["expired"]


def test_acknowledgement_is_of_one_firing_alert_and_made_once(ask, store):
    first = ask("ack", fingerprint=STORM.fingerprint[:8], author="ada")
    assert (first["kind"], first["fingerprint"]) == ("acknowledgement", STORM.fingerprint)
    assert first["alerts"] == [STORM.fingerprint]
    assert ask("ack", fingerprint=STORM.fingerprint, author="bob") == first
    assert len(store.silences.current) == 1


def test_alert_that_does_not_fire_or_is_not_one_cannot_be_acknowledged(ask):
    with pytest.raises(WatchdogError, match="no alert feedfeed is firing: see bpf-watchdog alerts"):
        ask("ack", fingerprint="feedfeed", author="ada")
    with pytest.raises(UsageError, match="fingerprint is missing"):
        ask("ack", fingerprint="", author="ada")
