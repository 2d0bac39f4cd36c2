"""What can be done with payments, by business verb."""

from typing import Final

from src.core.payments.services.books import INVARIANTS
from src.core.payments.services.callbacks import CALLBACK_RECEIVED, receive_callback, reconcile
from src.core.payments.services.paying import CHARGE_UNSETTLED, carry_on, pay
from src.core.payments.services.reading import get_payment, select_payments
from src.core.payments.services.refunding import carry_out, give_back
from src.core.payments.services.settling import REFUND_DUE
from src.outbox import services as outbox
from src.outbox.services import Handlers

__all__ = ["HANDLERS", "INVARIANTS", "get_payment", "pay", "receive_callback", "select_payments"]

HANDLERS: Final[Handlers] = {
    CHARGE_UNSETTLED: outbox.apart(carry_on),
    CALLBACK_RECEIVED: outbox.apart(reconcile),
    REFUND_DUE: outbox.apart(carry_out),
    "order.cancelled": outbox.once(give_back),
    "order.returned": outbox.once(give_back),
}
"""For the outbox."""
