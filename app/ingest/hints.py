"""What agents may say next, on its way back to the telephones that can show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from streams.events import Hint

Taker = Callable[[Hint], None]


class Hints(Protocol):
    """Hands each hint to whoever listens for its call."""

    def listen(self, call_id: str, take: Taker) -> None: ...

    def forget(self, call_id: str, take: Taker) -> None: ...
