"""Who remembers rights: processes that a write waits for."""

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cache_leases",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("domain", sa.Uuid(), nullable=False),
        sa.Column("lease_seconds", sa.Float(), nullable=False),
        sa.Column("renewed_at", sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cache_leases")),
    )


def downgrade() -> None:
    op.drop_table("cache_leases")
