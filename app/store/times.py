"""Wall-clock time as the store and the events write it."""

from __future__ import annotations

from datetime import UTC, datetime


def written(moment: datetime) -> str:
    """``2026-03-01T08:30:00.125Z``: RFC 3339, UTC, always 24 characters: text order is time order."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def read(text: str) -> datetime:
    """The inverse of ``written``."""
    return datetime.fromisoformat(text)


def now() -> datetime:
    return datetime.now(UTC)
