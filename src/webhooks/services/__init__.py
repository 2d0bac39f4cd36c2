"""What can be done with webhooks, by business verb."""

from src.webhooks.services.announcing import Data, announce, send_test
from src.webhooks.services.deliveries import (
    INVARIANTS,
    get_delivery,
    redeliver,
    select_deliveries,
    sweep,
)
from src.webhooks.services.delivering import dispatch
from src.webhooks.services.endpoints import (
    create_webhook,
    delete_all,
    delete_webhook,
    get_webhook,
    list_event_types,
    refuse_url,
    rotate_secret,
    select_webhooks,
    update_webhook,
)

__all__ = [
    "INVARIANTS",
    "Data",
    "announce",
    "create_webhook",
    "delete_all",
    "delete_webhook",
    "dispatch",
    "get_delivery",
    "get_webhook",
    "list_event_types",
    "redeliver",
    "refuse_url",
    "rotate_secret",
    "select_deliveries",
    "select_webhooks",
    "send_test",
    "sweep",
    "update_webhook",
]
