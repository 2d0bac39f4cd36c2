"""Statistics: indexes for what is counted, none of which an order that is placed has to keep."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_MOVED = sa.text("status <> 'placed'")
_MONEY = sa.text("status IN ('paid', 'cancelled', 'returned')")


def upgrade() -> None:
    op.create_index("ix_orders_moved", "orders", ["status"], postgresql_where=_MOVED, sqlite_where=_MOVED)
    op.create_index(
        "ix_order_events_money",
        "order_events",
        ["created_at", "status", "order_id", "version"],
        postgresql_where=_MONEY,
        sqlite_where=_MONEY,
    )


def downgrade() -> None:
    op.drop_index("ix_order_events_money", table_name="order_events")
    op.drop_index("ix_orders_moved", table_name="orders")
