"""The registry of what webhooks can be told."""

from typing import Final

EVENT_TYPES = {
    "order.placed": "An order was placed",
    "order.paid": "An order was paid",
    "order.fulfilled": "An order left the house",
    "order.cancelled": "An order was called off",
    "order.expired": "An order was not paid in time",
    "order.returned": "An order came back",
    "webhook.test": "Somebody asked for a test",
}
"""A new domain adds its own here."""

TEST: Final = "webhook.test"
