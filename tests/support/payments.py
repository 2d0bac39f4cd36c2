"""The development's payment provider on a real port, in this process: a test reads its books."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

from src.cli.payment_provider import Booked, PaymentProvider, served_beside
from src.shared.signatures import make_secret


@dataclass(frozen=True)
class Bank:
    url: str
    provider: PaymentProvider

    def settings(self, **differently: str) -> dict[str, str]:
        """For the service that is paid through it."""
        return {
            "PAYMENTS__URL": self.url,
            "PAYMENTS__API_KEY": self.provider.api_key,
            "PAYMENTS__CALLBACK_SECRETS": self.provider.callback_secret,
            # As short as a request that gives up: nobody waits for a test.
            "PAYMENTS__TIMEOUT_SECONDS": "2",
            "PAYMENTS__UNSETTLED_SECONDS": "2.5",
        } | differently

    def calls_back(self, service_url: str) -> None:
        self.provider.callback_url = f"{service_url}/api/v1/callbacks/payments"

    @property
    def books(self) -> dict[str, Booked]:
        return self.provider.books

    def kept_minor(self) -> int:
        """All the money that it has taken, and not given back."""
        taken = [each for each in self.books.values() if each.status == "succeeded"]
        return sum(each.amount_minor - each.refunded_minor for each in taken)


@contextmanager
def running_bank() -> Iterator[Bank]:
    provider = PaymentProvider(uuid4().hex, make_secret(), "")
    with served_beside(provider) as url:
        yield Bank(url, provider)
