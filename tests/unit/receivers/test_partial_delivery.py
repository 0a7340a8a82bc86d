"""Only parts of a notification without a final result are sent again."""

import pytest

from watchdog.errors import DeliveryError, DeliveryErrorReason, PartialDeliveryError
from watchdog.receivers.base import VolatileReceiverState
from watchdog.receivers.partial_delivery import PartialDelivery, UnfinishedNotifications

LATER = DeliveryError(DeliveryErrorReason.SERVER_ERROR, "later", retryable=True)
NEVER = DeliveryError(DeliveryErrorReason.CLIENT_ERROR, "never", retryable=False)


def test_parts_with_a_final_result_are_not_sent_again():
    delivery = PartialDelivery()
    assert delivery.record(["a", "b", "c"], {"b": NEVER, "c": LATER}) is LATER
    assert delivery.remaining(["a", "b", "c"]) == ["c"]
    assert delivery.record(["c"], {}) is None
    assert delivery.remaining(["a", "b", "c"]) == []


@pytest.mark.parametrize(("part_count", "text"), [(1, "never"), (3, "1 of 3 events refused: never")])
def test_a_refusal_of_every_part_is_final(part_count, text):
    delivery = PartialDelivery()
    delivery.record(["a"], {"a": NEVER})
    with pytest.raises(DeliveryError) as caught:
        delivery.raise_if_incomplete(part_count, "events")
    assert not isinstance(caught.value, PartialDeliveryError)
    assert (str(caught.value), caught.value.reason, caught.value.retryable) == (text, "client_error", False)


def test_an_error_of_some_parts_is_partial():
    delivery = PartialDelivery()
    deferred = delivery.record(["a", "b", "c"], {"b": NEVER, "c": LATER})
    with pytest.raises(PartialDeliveryError, match=r"^2 of 3 recipients not reached: later$") as caught:
        delivery.raise_if_incomplete(3, "recipients", deferred)
    assert caught.value.retryable
    with pytest.raises(PartialDeliveryError, match=r"^1 of 3 recipients refused: never$") as caught:
        delivery.raise_if_incomplete(3, "recipients")
    assert not caught.value.retryable


def test_results_survive_a_restart_without_the_names_of_the_parts():
    state = VolatileReceiverState()
    before = UnfinishedNotifications(state)
    parts = ["a@example.net", "b@example.net", "c@example.net"]
    before.delivery_of("n1").record(parts, {parts[1]: NEVER, parts[2]: LATER})
    before.save("n1")
    assert "example" not in str(state._values)
    after = UnfinishedNotifications(state)
    delivery = after.delivery_of("n1")
    assert delivery.remaining(parts) == ["c@example.net"]
    with pytest.raises(PartialDeliveryError, match="1 of 3 recipients refused: never"):
        delivery.raise_if_incomplete(3, "recipients")
    after.finish("n1")
    assert state._values == {}


@pytest.mark.parametrize("text", ["", "[]", '{"accepted": 5}', '{"accepted": [], "refused": {"x": ["unknown", "y"]}}'])
def test_unreadable_results_count_as_none(text):
    state = VolatileReceiverState()
    state.put("parts of n1", text)
    assert UnfinishedNotifications(state).delivery_of("n1").remaining(["a"]) == ["a"]


def test_the_newest_hundred_unfinished_notifications_are_kept():
    unfinished = UnfinishedNotifications(VolatileReceiverState())
    for number in range(101):
        unfinished.delivery_of(str(number)).record(["a"], {})
    assert len(unfinished) == 100
    assert unfinished.delivery_of("100").remaining(["a"]) == []
    unfinished.finish("100")
    assert unfinished.delivery_of("100").remaining(["a"]) == ["a"]
