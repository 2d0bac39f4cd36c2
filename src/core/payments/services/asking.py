"""Asking the provider about a payment of ours, outside of any transaction."""

from uuid import UUID

from loguru import logger

from src.core.payments.gateway import Charge, ChargeStatus, GatewayUnavailableError, PaymentGateway
from src.core.payments.http_gateway import get_gateway
from src.core.payments.models import Payment

__all__ = ["charge", "find_charge", "get_gateway", "refund", "warn"]


async def charge(gateway: PaymentGateway, payment: Payment, source: str) -> Charge:
    """
    Raises:
        GatewayUnavailableError: as the next two.
    """
    if payment.amount_minor == 0:
        return _nothing(payment)
    return _its_own(
        payment,
        await gateway.charge(payment.id, amount_minor=payment.amount_minor, currency=payment.currency, source=source),
    )


async def find_charge(gateway: PaymentGateway, payment: Payment) -> Charge | None:
    charged = await gateway.find_charge(payment.id)
    return None if charged is None else _its_own(payment, charged)


async def refund(gateway: PaymentGateway, payment: Payment) -> Charge:
    if payment.amount_minor == 0:
        return _nothing(payment)
    charged = _its_own(payment, await gateway.refund(payment.id, amount_minor=payment.amount_minor))
    if charged.refunded_minor != payment.amount_minor:
        raise GatewayUnavailableError("has not given it all back yet")
    return charged


def _nothing(payment: Payment) -> Charge:
    """No provider takes it."""
    return Charge(ChargeStatus.SUCCEEDED, 0, payment.currency)


def _its_own(payment: Payment, charged: Charge) -> Charge:
    if (charged.amount_minor, charged.currency) != (payment.amount_minor, payment.currency):
        raise GatewayUnavailableError("speaks of another sum")
    return charged


def warn(payment_id: UUID, error: GatewayUnavailableError) -> None:
    logger.bind(payment_id=str(payment_id), reason=str(error)[:200]).warning("The payment provider does not answer")
