"""Whose fault an error of the store is: the database's, which goes away, or that of what it was given."""

from __future__ import annotations

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from app.errors import StoreError


def is_outage(error: Exception) -> bool:
    """Whether the database is the trouble (gone, locked, full, a standby): the same again may succeed later.

    In doubt it is: an event that waits is not lost.
    """
    cause = error.__cause__ if isinstance(error, StoreError) else None
    if not isinstance(cause, DBAPIError):
        return isinstance(cause, NoConnectionFree)
    # PostgreSQL's class 54: longer than an index takes. psycopg counts it among the server's own troubles.
    too_long = str(getattr(cause.orig, "sqlstate", None)).startswith("54")
    return not too_long and not isinstance(cause, DataError | IntegrityError)


def is_lost(error: StoreError) -> bool:
    """Whether the connection broke. When it did not, a transaction that failed has left nothing."""
    cause = error.__cause__
    return isinstance(cause, DBAPIError) and cause.connection_invalidated
