"""Payments of orders."""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_STATUSES = ("pending", "succeeded", "declined", "abandoned", "refunding", "refunded")
_OPEN = sa.text("status IN ('pending', 'succeeded')")


def upgrade() -> None:
    moment, text = sqlmodel.sql.sqltypes.UTCDateTime, sqlmodel.sql.sqltypes.AutoString
    op.create_table(
        "payments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("payer_id", sa.Uuid(), nullable=False),
        sa.Column("intent", text(length=64), nullable=False),
        sa.Column("fingerprint", text(length=64), nullable=False),
        sa.Column(
            "status",
            sa.Enum(*_STATUSES, native_enum=False, create_constraint=True, length=16, name="payment_status"),
            nullable=False,
        ),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", text(length=3), nullable=False),
        sa.Column("decline_code", text(length=64), nullable=False),
        sa.Column("settled_at", moment(), nullable=True),
        sa.Column("refunded_at", moment(), nullable=True),
        sa.Column("created_at", moment(), nullable=False),
        sa.Column("updated_at", moment(), nullable=False),
        sa.CheckConstraint("amount_minor >= 0", name=op.f("ck_payments_amount_not_negative")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_payments_order_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payments")),
    )
    op.create_index("uq_payments_intent", "payments", ["order_id", "intent"], unique=True)
    op.create_index(
        "uq_payments_open", "payments", ["order_id"], unique=True, postgresql_where=_OPEN, sqlite_where=_OPEN
    )


def downgrade() -> None:
    op.drop_table("payments")
