"""Django Ninja: async views, an orjson renderer, the async ORM as far as Django has it, on unmanaged models."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import django
import jwt
import orjson
from django.conf import settings

from bench.contenders import given as names
from bench.contenders.identifiers import new_id, new_number

given = names.read()
_place = urlsplit(given.db_url)
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    SECRET_KEY=given.secret,
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    INSTALLED_APPS=[],
    MIDDLEWARE=[],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": _place.path.removeprefix("/"),
            "USER": _place.username,
            "PASSWORD": _place.password or "",
            "HOST": _place.hostname,
            "PORT": _place.port,
            "OPTIONS": {"pool": {"min_size": names.POOL_SIZE, "max_size": names.POOL_SIZE}},
        }
    },
    CACHES={"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": given.cache_url}},
    LOGGING_CONFIG=None,
)
django.setup()

from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application
from django.core.cache import cache
from django.db import models, transaction
from django.db.models import F
from django.http import HttpRequest
from django.urls import path as url_path
from ninja import NinjaAPI, Query, Router, Schema, Status
from ninja.errors import HttpError
from ninja.renderers import BaseRenderer
from ninja.security import HttpBearer
from pydantic import Field

T = TypeVar("T")


class UserRow(models.Model):
    id = models.UUIDField(primary_key=True)
    email = models.CharField(max_length=320)
    username = models.CharField(max_length=64, null=True)  # noqa: DJ001 - the service's column
    is_active = models.BooleanField()
    is_verified = models.BooleanField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        app_label, managed, db_table = "bench", False, "users"


class ProductRow(models.Model):
    id = models.UUIDField(primary_key=True)
    sku = models.CharField(max_length=64)
    name = models.CharField(max_length=255)
    price_minor = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    status = models.CharField(max_length=16)
    on_hand = models.BigIntegerField()
    reserved = models.BigIntegerField()
    updated_at = models.DateTimeField()

    class Meta:
        app_label, managed, db_table = "bench", False, "products"


class OrderRow(models.Model):
    id = models.UUIDField(primary_key=True, default=new_id)
    number = models.CharField(max_length=16, default=new_number)
    customer_id = models.UUIDField()
    status = models.CharField(max_length=16, default="placed")
    total_minor = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    version = models.IntegerField(default=1)
    expires_at = models.DateTimeField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        app_label, managed, db_table = "bench", False, "orders"


class OrderLineRow(models.Model):
    pk = models.CompositePrimaryKey("order_id", "product_id")
    order_id = models.UUIDField()
    product_id = models.UUIDField()
    sku = models.CharField(max_length=64)
    name = models.CharField(max_length=255)
    unit_price_minor = models.BigIntegerField()
    quantity = models.IntegerField()

    class Meta:
        app_label, managed, db_table = "bench", False, "order_lines"


class Envelope(Schema, Generic[T]):
    code: int = 200
    msg: str = "success"
    data: T


class Greeting(Schema):
    message: str


class Badge(Schema):
    id: UUID


class User(Schema):
    id: UUID
    email: str
    username: str | None
    is_active: bool
    is_verified: bool
    created_at: datetime
    updated_at: datetime


class UserPage(Schema):
    items: list[User]
    total: int
    page: int
    size: int
    pages: int


class OrderItem(Schema):
    product_id: UUID
    quantity: Annotated[int, Field(ge=1, le=10_000)]


class PlaceOrder(Schema):
    items: Annotated[list[OrderItem], Field(min_length=1, max_length=100)]


class OrderLine(Schema):
    product_id: UUID
    sku: str
    name: str
    unit_price_minor: int
    quantity: int


class Order(Schema):
    id: UUID
    number: str
    status: str
    items: list[OrderLine]
    total_minor: int
    currency: str
    version: int
    created_at: datetime


class Cached(Schema):
    greeting: str
    numbers: list[int]


class ORJSONRenderer(BaseRenderer):
    media_type = "application/json"

    def render(self, request: HttpRequest, data: Any, *, response_status: int) -> bytes:  # noqa: ARG002 - Any: JSON
        return orjson.dumps(data, option=orjson.OPT_UTC_Z)


class JWTBearer(HttpBearer):
    async def authenticate(self, request: HttpRequest, token: str) -> dict[str, Any] | None:  # noqa: ARG002 - Any: claims
        try:
            return jwt.decode(
                token, given.secret, algorithms=[names.ALGORITHM], audience=names.AUDIENCE, issuer=names.ISSUER
            )
        except jwt.InvalidTokenError:
            return None


class MayRead(JWTBearer):
    async def authenticate(self, request: HttpRequest, token: str) -> dict[str, Any] | None:  # Any: as above
        claims = await super().authenticate(request, token)
        if claims is not None and names.PERMISSION not in claims["scopes"]:
            raise HttpError(403, "Not allowed")
        return claims


api = NinjaAPI(renderer=ORJSONRenderer(), docs_url=None, openapi_url=None)
router = Router()


def filler_for(router: Router, path: str) -> None:
    if "{" in path:

        @router.get(path, response=Envelope[Greeting])
        async def one(request: HttpRequest, thing_id: str) -> dict[str, Any]:
            return {"data": {"message": thing_id}}

    else:

        @router.get(path, response=Envelope[Greeting])
        async def many(request: HttpRequest) -> dict[str, Any]:
            return {"data": {"message": names.GREETING}}


for prefix, paths in names.filler_groups(given.filler_routes):
    group = Router()
    for path in paths:
        filler_for(group, path)
    api.add_router(prefix, group)


@router.get("/static", response=Envelope[Greeting])
async def static(request: HttpRequest) -> dict[str, Any]:
    return {"data": {"message": names.GREETING}}


@router.get("/me", response=Envelope[Badge], auth=JWTBearer())
async def me(request: Any) -> dict[str, Any]:
    return {"data": {"id": request.auth["sub"]}}


@router.get("/users", response=Envelope[UserPage], auth=MayRead())
async def list_users(
    request: HttpRequest, page: Annotated[int, Query(ge=1)] = 1, size: Annotated[int, Query(ge=1, le=100)] = 50
) -> dict[str, Any]:
    total = await UserRow.objects.acount()
    rows = [row async for row in UserRow.objects.order_by("id")[(page - 1) * size : page * size]]
    return {"data": {"items": rows, "total": total, "page": page, "size": size, "pages": -(-total // size)}}


@router.get("/users/{user_id}", response=Envelope[User], auth=MayRead())
async def get_user(request: HttpRequest, user_id: UUID) -> dict[str, Any]:
    try:
        return {"data": await UserRow.objects.aget(id=user_id)}
    except UserRow.DoesNotExist:
        raise HttpError(404, "User not found") from None


class OrderEventRow(models.Model):
    pk = models.CompositePrimaryKey("order_id", "version")
    order_id = models.UUIDField()
    version = models.IntegerField()
    status = models.CharField(max_length=16)
    actor_id = models.UUIDField()
    created_at = models.DateTimeField()

    class Meta:
        app_label, managed, db_table = "bench", False, "order_events"


class StockMovementRow(models.Model):
    id = models.UUIDField(primary_key=True, default=new_id)
    product_id = models.UUIDField()
    kind = models.CharField(max_length=16)
    quantity = models.BigIntegerField(default=0)
    reserved = models.BigIntegerField()
    reason = models.CharField(max_length=255, default="")
    reference = models.CharField(max_length=64)
    actor_id = models.UUIDField()
    created_at = models.DateTimeField()

    class Meta:
        app_label, managed, db_table = "bench", False, "stock_movements"


# Transactions have no async form in Django: its documentation puts such work into one synchronous function.
@sync_to_async
@transaction.atomic
def place(basket: dict[UUID, int], customer_id: UUID) -> tuple[OrderRow, list[OrderLineRow]]:
    now = datetime.now(UTC)
    for product_id in sorted(basket):
        quantity = basket[product_id]
        taken = ProductRow.objects.filter(id=product_id, status="active", on_hand__gte=F("reserved") + quantity).update(
            reserved=F("reserved") + quantity, updated_at=now
        )
        if not taken:
            raise HttpError(409, "Not enough in stock")
    products = list(ProductRow.objects.filter(id__in=basket).order_by("id"))
    total = sum(product.price_minor * basket[product.id] for product in products)
    order = OrderRow(
        customer_id=customer_id,
        total_minor=total,
        currency=products[0].currency,
        expires_at=now + timedelta(days=1),
        created_at=now,
        updated_at=now,
    )
    order.save(force_insert=True)
    lines = [
        OrderLineRow(
            order_id=order.id,
            product_id=product.id,
            sku=product.sku,
            name=product.name,
            unit_price_minor=product.price_minor,
            quantity=basket[product.id],
        )
        for product in products
    ]
    OrderLineRow.objects.bulk_create(lines)
    OrderEventRow(order_id=order.id, version=1, status="placed", actor_id=customer_id, created_at=now).save(
        force_insert=True
    )
    StockMovementRow.objects.bulk_create(
        StockMovementRow(
            product_id=line.product_id,
            kind="reservation",
            reserved=line.quantity,
            reference=f"order:{order.id}",
            actor_id=customer_id,
            created_at=now,
        )
        for line in lines
    )
    return order, lines


@router.post("/orders", response={201: Envelope[Order]}, auth=JWTBearer())
async def place_order(request: Any, data: PlaceOrder) -> Any:  # Any: as above
    basket: dict[UUID, int] = {}
    for item in data.items:
        basket[item.product_id] = basket.get(item.product_id, 0) + item.quantity
    order, lines = await place(basket, UUID(request.auth["sub"]))
    return Status(
        201,
        {
            "code": 201,
            "data": {
                "id": order.id,
                "number": order.number,
                "status": order.status,
                "items": lines,
                "total_minor": order.total_minor,
                "currency": order.currency,
                "version": order.version,
                "created_at": order.created_at,
            },
        },
    )


@router.get("/cached", response=Envelope[Cached], auth=JWTBearer())
async def cached(request: HttpRequest) -> dict[str, Any]:
    found = await cache.aget(names.CACHE_KEY)
    if found is None:
        found = names.CACHED
        await cache.aset(names.CACHE_KEY, found, names.CACHE_TTL_SECONDS)
    return {"data": found}


api.add_router("/bench", router)
urlpatterns = [url_path("", api.urls)]
app = get_asgi_application()
