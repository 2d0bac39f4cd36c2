"""Undercroft: the floor that a backend stands on."""

from sqlmodel import SQLModel

__version__ = "0.1.0"

# Alembic can only drop or alter what has a name, on SQLite above all. Said here, since it counts for tables that are
# declared afterwards, by whatever is imported first.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
