"""Sentences that are true of the tables while nothing is wrong, whoever did what."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import TextClause, bindparam, text
from sqlmodel.sql.sqltypes import UTCDateTime


@dataclass(frozen=True, slots=True)
class Invariant:
    sentence: str
    violations: str
    """One SELECT, in SQL that each database reads: the rows for which it is not true, what names them first."""
    ago: timedelta | None = None
    """With it, `:moment` in the SELECT is the moment so long ago."""

    def query(self) -> TextClause:
        if self.ago is None:
            return text(self.violations)
        moment = bindparam("moment", datetime.now(UTC) - self.ago, type_=UTCDateTime())
        return text(self.violations).bindparams(moment)
