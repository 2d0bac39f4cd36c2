"""What `make run` needs to be of use at once: a profile with secrets of its own, and something to look at."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.cli.payment_provider import PaymentProvider, served_beside
from src.config import setting_name
from src.core.products import services as products
from src.core.products.schemas import CreateProductRequest, ProductFilters
from src.shared.database import transaction
from src.shared.signatures import make_secret
from src.users import services as users

ADMIN_EMAIL = "admin@example.com"
_SECRET_FILE = Path("var/development.secret")

_PRODUCTS = [
    CreateProductRequest(
        sku=sku, name=name, description=description, price_minor=price_minor, currency="EUR", stock=stock
    )
    for sku, name, description, price_minor, stock in [
        ("KEY-01", "Cellar key", "Opens most doors, some of them twice.", 1250, 120),
        ("LAMP-02", "Storm lamp", "Burns eight hours on one filling.", 3490, 35),
        ("ROPE-10", "Rope, 10 m", "Hemp, three strands.", 1890, 60),
        ("CASK-55", "Oak cask, 55 l", "Empty, to everybody's regret.", 24_900, 4),
        ("MAP-00", "Map of the vaults", "Out of print.", 9900, 0),
    ]
]


def use_development_profile() -> None:
    """Settings of the environment win; a secret is made once, so that sessions outlive a restart."""
    os.environ.setdefault(setting_name("app", "env"), "development")
    os.environ.setdefault(setting_name("auth", "secret"), _own_secret())


@contextmanager
def payments_provided(port: int) -> Iterator[bool]:
    """Orders can be paid at once, by a provider that runs beside the service; False where there is one already."""
    if os.environ.get(setting_name("payments", "url")):
        yield False
        return
    provider = PaymentProvider(
        secrets.token_urlsafe(32), make_secret(), f"http://127.0.0.1:{port}/api/v1/callbacks/payments"
    )
    with served_beside(provider) as url:
        os.environ[setting_name("payments", "url")] = url
        os.environ[setting_name("payments", "api_key")] = provider.api_key
        os.environ[setting_name("payments", "callback_secrets")] = provider.callback_secret
        yield True


def _own_secret() -> str:
    if not _SECRET_FILE.exists():
        _SECRET_FILE.parent.mkdir(parents=True, exist_ok=True)
        _SECRET_FILE.touch(mode=0o600)
        _SECRET_FILE.write_text(secrets.token_urlsafe(48))
    return _SECRET_FILE.read_text()


def new_password() -> str:
    return secrets.token_urlsafe(15)


async def fill() -> None:
    """Products, once: a shop that somebody emptied stays empty."""
    async with transaction() as session:
        if (await session.execute(products.select_products(ProductFilters(), drafts=True).limit(1))).first():
            return
        admin = await users.find_user_by_email(session, ADMIN_EMAIL)
        assert admin is not None
        for request in _PRODUCTS:
            await products.create_product(session, request, actor_id=admin.id)
