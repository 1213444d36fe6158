"""Calls put together from connections: placeholder of the interface, the real one follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from streams.events import AudioFrame, Gap


class Leg(Protocol):
    """What one connection brings of a call."""

    arrived_s: float
    """Clock at which the newest of its audio came in."""

    def take(self) -> Sequence[AudioFrame | Gap]:
        """What has come since the last time; media time is the connection's own."""
        ...

    def drop(self, message: str, code: int) -> None:
        """The call no longer wants it: close the connection. ``code``: of a WebSocket."""
        ...
