"""What a receiver hears: each message until it is heard, one id, one body, in order, and from one of us at a time."""

import json

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.receiver import Receiver, says
from tests.webhooks.conftest import Office


def test_a_receiver_that_fails_three_times_sees_one_id_one_body_and_a_signature_each_time(
    office: Office, receiver: Receiver
) -> None:
    receiver.script = [says(500), says(503), says(404)]
    webhook = office.register(receiver)

    order_id = office.place_order()

    requests = receiver.wait_for(4)
    office.wait_for_state(webhook, "delivered")
    assert len(receiver.requests) == 4
    assert len(set(receiver.ids)) == 1
    assert len({request.body for request in requests}) == 1
    reference = Webhook(webhook["secret"])
    for request in requests:
        told = reference.verify(request.body, request.headers)
        assert (told["type"], told["data"]["id"], told["data"]["status"]) == ("order.placed", order_id, "placed")
    with pytest.raises(WebhookVerificationError):
        reference.verify(requests[0].body.replace(b"placed", b"paid"), requests[0].headers)
    (delivery,) = office.deliveries(webhook)
    detail = office.delivery(webhook, delivery)
    assert detail["message_id"] == receiver.ids[0]
    assert detail["body"].encode() == requests[0].body
    assert [attempt["status"] for attempt in detail["attempts"]] == [204, 404, 503, 500]
    assert json.loads(detail["body"]).keys() == {"type", "timestamp", "data"}
