"""What a team writes against the generated client; test_python_client.py checks its types and runs it."""

import os
from collections.abc import Iterator
from uuid import uuid4

from undercroft_client import AuthenticatedClient, Client
from undercroft_client.api.auth import auth_login
from undercroft_client.api.orders import orders_place_order
from undercroft_client.api.products import products_create_product
from undercroft_client.api.users import users_create_user, users_list_users
from undercroft_client.models import (
    CreateProductRequest,
    CreateUserRequest,
    ErrorCode,
    ErrorResponse,
    LoginRequest,
    OrderItemRequest,
    OrderResponse,
    OrderResponseEnvelope,
    PageUserResponseEnvelope,
    PlaceOrderRequest,
    ProductResponse,
    ProductResponseEnvelope,
    TokenResponseEnvelope,
    UserResponse,
    UserWithRolesResponse,
    UserWithRolesResponseEnvelope,
)


def main(url: str, email: str, password: str) -> None:
    client = log_in(url, email, password)

    made = [create_user(client) for _ in range(3)]
    seen = {user.id for user in users(client)}
    assert {user.id for user in made} <= seen

    product = create_product(client, stock=3)
    order, key = order_what_there_is(client, product, wanted=5)
    assert [(item.sku, item.quantity) for item in order.items] == [(product.sku, 3)]
    assert order.total_minor == 3 * product.price_minor

    # The answer was lost on its way, say: the same key gets the same order.
    again = orders_place_order.sync(client=client, body=basket(product, 3), idempotency_key=key)
    assert isinstance(again, OrderResponseEnvelope)
    assert again.data.id == order.id
    print(f"{len(seen)} users, order {order.number} of {order.created_at:%Y-%m-%d}")  # noqa: T201 - for who watches


def log_in(url: str, email: str, password: str) -> AuthenticatedClient:
    answer = auth_login.sync(client=Client(base_url=url), body=LoginRequest(email=email, password=password))
    if not isinstance(answer, TokenResponseEnvelope):
        raise refused(answer)
    return AuthenticatedClient(base_url=url, token=answer.data.access_token, raise_on_unexpected_status=True)


def create_user(client: AuthenticatedClient) -> UserWithRolesResponse:
    letter = CreateUserRequest(email=f"{uuid4().hex}@example.com", password=uuid4().hex)
    answer = users_create_user.sync(client=client, body=letter)
    if not isinstance(answer, UserWithRolesResponseEnvelope):
        raise refused(answer)
    return answer.data


def users(client: AuthenticatedClient) -> Iterator[UserResponse]:
    """All of them, page by page."""
    page, pages = 1, 1
    while page <= pages:
        answer = users_list_users.sync(client=client, page=page, size=2)
        if not isinstance(answer, PageUserResponseEnvelope):
            raise refused(answer)
        yield from answer.data.items
        page, pages = page + 1, answer.data.pages


def create_product(client: AuthenticatedClient, stock: int) -> ProductResponse:
    letter = CreateProductRequest(sku=uuid4().hex, name="Storm lamp", price_minor=3490, currency="EUR", stock=stock)
    answer = products_create_product.sync(client=client, body=letter)
    if not isinstance(answer, ProductResponseEnvelope):
        raise refused(answer)
    return answer.data


def order_what_there_is(
    client: AuthenticatedClient, product: ProductResponse, wanted: int
) -> tuple[OrderResponse, str]:
    """The order, for fewer pieces than wanted if need be, and its Idempotency-Key."""
    key = uuid4().hex
    answer = orders_place_order.sync(client=client, body=basket(product, wanted), idempotency_key=key)
    if isinstance(answer, OrderResponseEnvelope):
        return answer.data, key
    if isinstance(answer, ErrorResponse) and answer.code == ErrorCode.PRODUCT_OUT_OF_STOCK:
        (short,) = answer.data["items"]
        return order_what_there_is(client, product, short["available"])
    raise refused(answer)


def basket(product: ProductResponse, quantity: int) -> PlaceOrderRequest:
    return PlaceOrderRequest(items=[OrderItemRequest(product_id=product.id, quantity=quantity)])


def refused(answer: object) -> SystemExit:
    return SystemExit(f"not what was asked for: {answer}")


if __name__ == "__main__":
    main(os.environ["API_URL"], os.environ["API_EMAIL"], os.environ["API_PASSWORD"])
