"""Only parts of a notification without a final result are sent again."""

import pytest

from watchdog.errors import DeliveryError, DeliveryErrorReason
from watchdog.receivers.partial_delivery import PartialDelivery, UnfinishedNotifications

LATER = DeliveryError(DeliveryErrorReason.SERVER_ERROR, "later", retryable=True)
NEVER = DeliveryError(DeliveryErrorReason.CLIENT_ERROR, "never", retryable=False)


def test_parts_with_a_final_result_are_not_sent_again():
    delivery = PartialDelivery()
    with pytest.raises(DeliveryError, match="later"):
        delivery.record(["a", "b", "c"], {"b": NEVER, "c": LATER})
    assert delivery.remaining(["a", "b", "c"]) == ["c"]
    delivery.record(["c"], {})
    assert delivery.remaining(["a", "b", "c"]) == []


@pytest.mark.parametrize(("part_count", "text"), [(1, "never"), (3, "1 of 3 events refused: never")])
def test_a_refusal_is_final_and_counted_among_several_parts(part_count, text):
    delivery = PartialDelivery(refused={"a": NEVER})
    with pytest.raises(DeliveryError) as caught:
        delivery.raise_if_refused(part_count, "events")
    assert (str(caught.value).endswith(text), caught.value.reason, caught.value.retryable) == (
        True, "client_error", False,
    )  # fmt: skip


def test_the_newest_hundred_unfinished_notifications_are_kept():
    unfinished = UnfinishedNotifications()
    for number in range(101):
        unfinished.delivery_of(str(number)).accepted.add("a")
    assert len(unfinished) == 100
    assert unfinished.delivery_of("100").accepted == {"a"}
    unfinished.finish("100")
    assert unfinished.delivery_of("100").accepted == set()
