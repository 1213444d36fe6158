"""How often somebody may try a password."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from threading import Lock

FAILURES = 5
WINDOW_S = 60.0
REMEMBERED = 10_000
"""Pairs of account and address; the one tried longest ago is forgotten first."""


class Attempts:
    """Counts attempts by account and address. In memory: a restart forgets them.

    An attempt counts from its start, and a success takes it back; so many at once get no more tries.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._tries: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def begin(self, username: str, address: str) -> bool:
        """Whether one more may be tried now."""
        now = self._clock()
        key = (username, address)
        with self._lock:
            tries = self._tries.setdefault(key, deque())
            self._tries.move_to_end(key)
            while tries and tries[0] <= now - WINDOW_S:
                tries.popleft()
            if len(tries) >= FAILURES:
                return False
            tries.append(now)
            if len(self._tries) > REMEMBERED:
                self._tries.popitem(last=False)
        return True

    def succeed(self, username: str, address: str) -> None:
        with self._lock:
            self._tries.pop((username, address), None)
