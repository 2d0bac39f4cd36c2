"""Orders that are paid, fulfilled, expired or returned; their history; a ledger of what is reserved, too."""

import sqlalchemy as sa
import sqlmodel
from alembic import op
from alembic.operations import BatchOperations

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_STATUSES = ("placed", "paid", "fulfilled", "cancelled", "expired", "returned")
_OLD_STATUSES = ("placed", "cancelled")
_KINDS = ("initial", "adjustment", "reservation", "release", "fulfilment", "return")
_OLD_KINDS = ("initial", "adjustment")
_UNPAID = sa.text("status = 'placed'")


def upgrade() -> None:
    on_sqlite = _on_sqlite()
    moment = sqlmodel.sql.sqltypes.UTCDateTime
    with op.batch_alter_table("orders") as orders:
        _replace_check(orders, "ck_orders_order_status", "status", _STATUSES)
        orders.add_column(sa.Column("expires_at", moment(), nullable=True))
    # What is open now gets a day from now on, however old it is.
    in_a_day = "strftime('%Y-%m-%d %H:%M:%f000', 'now', '+1 day')" if on_sqlite else "now() + interval '1 day'"
    op.execute(f"UPDATE orders SET expires_at = {in_a_day}")  # noqa: S608 - two constants
    with op.batch_alter_table("orders") as orders:
        orders.alter_column("expires_at", existing_type=moment(), nullable=False)
        orders.create_index("ix_orders_unpaid", ["expires_at"], postgresql_where=_UNPAID, sqlite_where=_UNPAID)

    op.create_table(
        "order_events",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column(
            "status",
            sa.Enum(*_STATUSES, name="order_status", native_enum=False, create_constraint=True, length=16),
            nullable=False,
        ),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", moment(), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_order_events_order_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("order_id", "version", name=op.f("pk_order_events")),
    )
    op.execute(
        "INSERT INTO order_events (order_id, version, status, actor_id, created_at) "
        "SELECT id, 1, 'placed', customer_id, created_at FROM orders"
    )
    # Who cancelled was not written down before: mostly it was the buyer.
    op.execute(
        "INSERT INTO order_events (order_id, version, status, actor_id, created_at) "
        "SELECT id, version, status, customer_id, updated_at FROM orders WHERE version > 1"
    )

    text = sqlmodel.sql.sqltypes.AutoString
    with op.batch_alter_table("stock_movements") as movements:
        _replace_check(movements, "ck_stock_movements_movement_kind", "kind", _KINDS)
        movements.add_column(sa.Column("reserved", sa.BigInteger(), nullable=False, server_default="0"))
        movements.add_column(sa.Column("reference", text(length=64), nullable=False, server_default=""))
        movements.alter_column("actor_id", existing_type=sa.Uuid(), nullable=True)
        movements.drop_index("ix_stock_movements_product_id")
        movements.create_index("ix_stock_movements_product_id_created_at_id", ["product_id", "created_at", "id"])
    _write_ledger_of_orders(on_sqlite=on_sqlite)
    _guard_ledger(on_sqlite=on_sqlite)


def _write_ledger_of_orders(*, on_sqlite: bool) -> None:
    new_id = "lower(hex(randomblob(16)))" if on_sqlite else "gen_random_uuid()"
    parts = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
    hyphenated = " || '-' || ".join(f"substr(orders.id, {start}, {length})" for start, length in parts)
    order_id = hyphenated if on_sqlite else "orders.id::text"
    for kind, sign, moment, which in (
        ("reservation", "", "orders.created_at", "1 = 1"),
        ("release", "-", "orders.updated_at", "status = 'cancelled'"),
    ):
        op.execute(
            "INSERT INTO stock_movements "  # noqa: S608 - constants
            "(id, product_id, kind, quantity, reserved, reason, reference, actor_id, created_at) "
            f"SELECT {new_id}, order_lines.product_id, '{kind}', 0, {sign}order_lines.quantity, '', "
            f"'order:' || {order_id}, orders.customer_id, {moment} "
            f"FROM order_lines JOIN orders ON orders.id = order_id WHERE {which}"
        )


def _guard_ledger(*, on_sqlite: bool) -> None:
    """What is written stays: a mistake is mended by another movement."""
    if on_sqlite:
        for deed in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER stock_movements_no_{deed.lower()} BEFORE {deed} ON stock_movements "
                "BEGIN SELECT RAISE(ABORT, 'the ledger of stock is append-only'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the ledger of stock is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER stock_movements_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON stock_movements "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change()"
    )


def downgrade() -> None:
    on_sqlite = _on_sqlite()
    if on_sqlite:
        for deed in ("update", "delete"):
            op.execute(f"DROP TRIGGER stock_movements_no_{deed}")
    else:
        op.execute("DROP TRIGGER stock_movements_append_only ON stock_movements")
        op.execute("DROP FUNCTION refuse_ledger_change()")
    # What the older version has no word for: the stock stays right.
    op.execute("DELETE FROM stock_movements WHERE kind IN ('reservation', 'release')")
    op.execute("UPDATE stock_movements SET kind = 'adjustment' WHERE kind IN ('fulfilment', 'return')")
    op.execute("UPDATE orders SET status = 'placed' WHERE status = 'paid'")
    op.execute("UPDATE orders SET status = 'cancelled' WHERE status NOT IN ('placed', 'cancelled')")
    # It knows of one step at most; going up again, a history with a gap would come of more.
    op.execute("UPDATE orders SET version = CASE status WHEN 'placed' THEN 1 ELSE 2 END")
    with op.batch_alter_table("stock_movements") as movements:
        movements.drop_index("ix_stock_movements_product_id_created_at_id")
        movements.drop_column("reference")
        movements.drop_column("reserved")
        movements.alter_column("actor_id", existing_type=sa.Uuid(), nullable=False)
        _replace_check(movements, "ck_stock_movements_movement_kind", "kind", _OLD_KINDS)
        movements.create_index("ix_stock_movements_product_id", ["product_id"])
    op.drop_table("order_events")
    with op.batch_alter_table("orders") as orders:
        orders.drop_index("ix_orders_unpaid")
        orders.drop_column("expires_at")
        _replace_check(orders, "ck_orders_order_status", "status", _OLD_STATUSES)


def _on_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _replace_check(table: BatchOperations, name: str, column: str, words: tuple[str, ...]) -> None:
    table.drop_constraint(op.f(name), type_="check")
    table.create_check_constraint(op.f(name), f"{column} IN ({', '.join(repr(word) for word in words)})")
