from __future__ import annotations

from watchdog.clock import Now
from watchdog.delivery.receiver_alerts import RECEIVER_REMOVED
from watchdog.delivery.recipient_refused import ALL_REACHED, RecipientRefusedAlerts

NOW = Now(1_000_000_000, 1_750_000_000.0)
REFUSAL = {"mail": "client_error: 1 of 3 recipients refused", "second": ""}


def states(transitions):
    return [(each.alert.labels, each.alert.state.value, each.alert.reason) for each in transitions]


def test_one_warning_to_the_other_receivers_until_all_recipients_are_reached():
    alerts = RecipientRefusedAlerts(["mail", "second"])
    [transition] = alerts.advance(REFUSAL, NOW)
    assert (transition.alert.severity.label, transition.alert.receivers) == ("warning", ("second",))
    assert alerts.advance(REFUSAL, NOW) == []
    assert alerts.advance({}, NOW) == []  # nothing is known after a reload
    assert states(alerts.advance({"mail": "", "second": ""}, NOW)) == [
        ((("receiver", "mail"),), "resolved", ALL_REACHED)
    ]
    assert alerts.firing_alerts() == {}


def test_the_only_receiver_is_not_notified_about_itself():
    assert RecipientRefusedAlerts(["mail"]).advance(REFUSAL, NOW) == []


def test_a_removed_receiver_ends_its_warning():
    alerts = RecipientRefusedAlerts(["mail", "second"])
    alerts.advance(REFUSAL, NOW)
    alerts.replace_receivers(["second", "third"])
    assert states(alerts.advance({}, NOW)) == [((("receiver", "mail"),), "resolved", RECEIVER_REMOVED)]


def test_a_warning_survives_a_restart_without_another_one():
    before = RecipientRefusedAlerts(["mail", "second"])
    before.advance(REFUSAL, NOW)
    [(_, document)] = before.take_changes()
    after = RecipientRefusedAlerts(["mail", "second"])
    assert after.restore([document, {"refusing_receiver": "x"}]) == 1
    assert after.firing_alerts() == before.firing_alerts()
    assert after.advance(REFUSAL, NOW) == []
