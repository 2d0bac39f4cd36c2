"""The table that the handlers of handlers_app.py write into: what a test reads back."""

from sqlalchemy import Column, Integer, MetaData, String, Table, Uuid

EFFECTS = Table(
    "effects",
    MetaData(),
    Column("number", Integer, primary_key=True),
    Column("event_id", Uuid, nullable=True),
    Column("name", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("process", Integer, nullable=False),
)
