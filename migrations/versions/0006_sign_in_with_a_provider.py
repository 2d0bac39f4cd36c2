"""Sign-in with a provider (OpenID Connect): links, browsers under way, and mails that ask whether to link."""

import sqlalchemy as sa
import sqlmodel
from alembic import op
from alembic.operations import BatchOperations

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_OLD_PURPOSES = ("verify_address", "reset_password", "accept_invitation", "change_address")
_PURPOSES = (*_OLD_PURPOSES, "link_provider")


def upgrade() -> None:
    moment, text = sqlmodel.sql.sqltypes.UTCDateTime, sqlmodel.sql.sqltypes.AutoString
    op.create_table(
        "provider_links",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("issuer", text(length=512), nullable=False),
        sa.Column("subject", text(length=255), nullable=False),
        sa.Column("created_at", moment(), nullable=False),
        sa.Column("last_used_at", moment(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_provider_links_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provider_links")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_provider_links_issuer_subject")),
        sa.UniqueConstraint("user_id", "issuer", name=op.f("uq_provider_links_user_id_issuer")),
    )
    op.create_table(
        "provider_errands",
        sa.Column("token_hash", text(length=64), nullable=False),
        sa.Column("provider", text(length=32), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=True),
        sa.Column("expires_at", moment(), nullable=False),
        sa.Column("used_at", moment(), nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"], ["auth_sessions.id"], name=op.f("fk_provider_errands_session_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_provider_errands")),
    )
    op.create_index("ix_provider_errands_session_id", "provider_errands", ["session_id"])
    with op.batch_alter_table("one_time_tokens") as tokens:
        tokens.add_column(sa.Column("facts", sa.JSON(), nullable=False, server_default="{}"))
        _replace_check(tokens, _PURPOSES)


def downgrade() -> None:
    op.execute("DELETE FROM one_time_tokens WHERE purpose = 'link_provider'")
    with op.batch_alter_table("one_time_tokens") as tokens:
        _replace_check(tokens, _OLD_PURPOSES)
        tokens.drop_column("facts")
    op.drop_table("provider_errands")
    op.drop_table("provider_links")


def _replace_check(tokens: BatchOperations, purposes: tuple[str, ...]) -> None:
    tokens.drop_constraint(op.f("ck_one_time_tokens_one_time_purpose"), type_="check")
    listed = ", ".join(f"'{purpose}'" for purpose in purposes)
    tokens.create_check_constraint(op.f("ck_one_time_tokens_one_time_purpose"), f"purpose IN ({listed})")
