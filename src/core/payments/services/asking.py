"""Asking the provider about a payment of ours, outside of any transaction."""

from uuid import UUID

from loguru import logger

from src.core.payments.gateway import Charge, ChargeStatus, GatewayUnavailableError, PaymentGateway
from src.core.payments.http_gateway import get_gateway
from src.core.payments.models import Payment
from src.exceptions import BusinessException


async def find_gateway() -> PaymentGateway:
    """For the outbox: a provider that is switched off is one that does not answer now.

    Raises:
        GatewayUnavailableError: as all that follow.
    """
    try:
        return await get_gateway()
    except BusinessException as error:
        raise GatewayUnavailableError(error.code.name) from error


async def charge(gateway: PaymentGateway, payment: Payment, source: str) -> Charge:
    if payment.amount_minor == 0:
        return _nothing(payment)
    charged = await gateway.charge(
        payment.id, amount_minor=payment.amount_minor, currency=payment.currency, source=source
    )
    return _its_own(payment, charged)


async def charge_once_more(gateway: PaymentGateway, payment: Payment, source: str, *, is_wanted: bool) -> Charge | None:
    """Of one that was asked for before, what became of it. Asked for again only where the provider has not heard of it:
    to an old key providers tell what they told then, and very old ones they forget."""
    found = await find_charge(gateway, payment)
    return await charge(gateway, payment, source) if found is None and is_wanted else found


async def find_charge(gateway: PaymentGateway, payment: Payment) -> Charge | None:
    if payment.amount_minor == 0:
        return _nothing(payment)
    charged = await gateway.find_charge(payment.id)
    return None if charged is None else _its_own(payment, charged)


async def refund(gateway: PaymentGateway, payment: Payment) -> None:
    """Returns when all of it was given back, by us or by hand."""
    if payment.amount_minor == 0:
        return
    refusal: GatewayUnavailableError | None = None
    try:
        charged: Charge | None = await gateway.refund(payment.id, amount_minor=payment.amount_minor)
    except GatewayUnavailableError as error:
        charged, refusal = None, error
    if charged is None or charged.refunded_minor != payment.amount_minor:
        charged = await gateway.find_charge(payment.id)
    if charged is None or _its_own(payment, charged).refunded_minor != payment.amount_minor:
        raise refusal or GatewayUnavailableError("has not given it all back yet")


def _nothing(payment: Payment) -> Charge:
    """No provider takes it."""
    return Charge(ChargeStatus.SUCCEEDED, 0, payment.currency)


def _its_own(payment: Payment, charged: Charge) -> Charge:
    if (charged.amount_minor, charged.currency) != (payment.amount_minor, payment.currency):
        raise GatewayUnavailableError("speaks of another sum")
    return charged


def warn(payment_id: UUID, error: Exception) -> None:
    reason = str(error)[:200] or type(error).__name__
    logger.bind(payment_id=str(payment_id), reason=reason).warning("The payment provider does not answer")
