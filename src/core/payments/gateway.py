"""The port: what payments ask of whoever moves the money, and nothing that only one of them has."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID


class ChargeStatus(StrEnum):
    PENDING = "pending"
    """Neither yes nor no yet; a callback will say."""
    SUCCEEDED = "succeeded"
    DECLINED = "declined"


@dataclass(frozen=True, slots=True)
class Charge:
    """One attempt to get the money for one payment, as the provider has it now."""

    status: ChargeStatus
    amount_minor: int
    currency: str
    decline_code: str = ""
    """A word of the provider's: `insufficient_funds`, say."""
    refunded_minor: int = 0


class GatewayUnavailableError(Exception):
    """No answer, or none that can be read: whether the money moved is not known. Its text is for the log."""


class PaymentGateway(Protocol):
    """Each call may be repeated: what a payment's id has done once is not done again.

    Raises:
        GatewayUnavailableError: by each of them.
    """

    async def charge(self, payment_id: UUID, *, amount_minor: int, currency: str, source: str) -> Charge:
        """`source`: what stands for the buyer's card, as the provider's own page gave it out."""
        ...

    async def find_charge(self, payment_id: UUID) -> Charge | None:
        """None: never asked for."""
        ...

    async def refund(self, payment_id: UUID, *, amount_minor: int) -> Charge:
        """All of it, once."""
        ...
