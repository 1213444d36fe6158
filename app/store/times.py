"""Wall-clock time as the store and the events write it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec import Struct

from streams.events import Severity


def written(moment: datetime) -> str:
    """``2026-03-01T08:30:00.125Z``: RFC 3339, UTC, always 24 characters: text order is time order."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def read(text: str) -> datetime:
    """The inverse of ``written``."""
    return datetime.fromisoformat(text)


def now() -> datetime:
    return datetime.now(UTC)


class Patience(Struct, frozen=True, kw_only=True):
    """How long an alert waits for somebody before it escalates, by severity. Seconds; ``None``: for ever."""

    critical: float | None = 30
    warning: float | None = 120
    info: float | None = None

    def until(self, severity: Severity, at: str) -> str | None:
        """The deadline of an alert that waits since ``at``, both as ``written``."""
        seconds: float | None = getattr(self, severity)
        return None if seconds is None else written(read(at) + timedelta(seconds=seconds))
