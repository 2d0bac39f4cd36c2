"""The signboard: every prefix and tag of the API on one page."""

from fastapi import APIRouter

from src.http.controllers import (
    audit,
    auth,
    health,
    orders,
    outbox,
    payments,
    products,
    statistics,
    users,
    webhooks,
)

api = APIRouter(prefix="/api/v1")
api.include_router(auth.router, prefix="/auth", tags=["auth"])
api.include_router(auth.security, prefix="/profile/security", tags=["auth"])
api.include_router(users.router, tags=["users"])
api.include_router(audit.router, prefix="/audit", tags=["audit"])
api.include_router(outbox.router, prefix="/outbox", tags=["outbox"])
api.include_router(products.router, prefix="/products", tags=["products"])
api.include_router(orders.router, prefix="/orders", tags=["orders"])
api.include_router(payments.router, tags=["payments"])
api.include_router(webhooks.router, prefix="/webhooks", tags=["webhooks"])
api.include_router(webhooks.event_types, prefix="/webhook-event-types", tags=["webhooks"])
api.include_router(statistics.router, prefix="/admin", tags=["admin"])

root = APIRouter()
root.include_router(health.router, prefix="/health", tags=["health"])
root.include_router(auth.well_known, prefix="/.well-known", tags=["auth"])
root.include_router(api)
