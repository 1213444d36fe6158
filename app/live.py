"""Live state that processes share: who is there, who holds what, how often somebody may try, what was left
for whom.

In process here, for one process; in Redis for several, see ``app.redis_live``.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

RATES_REMEMBERED = 10_000
"""Keys whose tries are counted in process; the one tried longest ago is forgotten first."""
MOST_MESSAGES = 100
"""That wait in one inbox; a further one is refused."""
MOST_INBOXES = 5_000
"""With something in them; a further one is refused."""


class Live(Protocol):
    """Every method may raise ``LiveError`` (retryable), within about a second.

    Keys, kinds, names and owners are not empty; durations are more than a millisecond.
    """

    async def announce(self, kind: str, name: str, info: bytes, seconds: float) -> None:
        """Be present under this name, with this to say, for so long; announcing again replaces it."""

    async def withdraw(self, kind: str, name: str) -> None:
        """Be present no more."""

    async def present(self, kind: str) -> dict[str, bytes]:
        """By name, what those who are present had to say."""

    async def claim(self, key: str, owner: str, expected: str | None, seconds: float) -> str | None:
        """Hold ``key`` for so long, if ``expected`` holds it now (``None``: nobody) or ``owner`` does.

        Atomic: of two who expect the same, one gets it. Returns who holds it afterwards. To hold it for
        longer, claim it again.
        """

    async def release(self, key: str, owner: str) -> bool:
        """Let go of ``key``; ``False``, and nothing changes, when somebody else or nobody holds it."""

    async def allow(self, key: str, most: int, seconds: float) -> float:
        """Count one more try: 0.0 when it is one of at most ``most`` within the last ``seconds``; else the
        seconds until the next may be made, and this one does not count."""

    async def forget(self, key: str) -> None:
        """Count no try of this key any more."""

    async def post(self, inbox: str, message: bytes, seconds: float) -> bool:
        """Leave a message for whoever collects it; the inbox is kept for at least so long from then on.

        ``False``, and nothing was left, when ``MOST_MESSAGES`` wait there, or something waits in
        ``MOST_INBOXES`` others.
        """

    async def waiting(self) -> set[str]:
        """The inboxes in which something waits."""

    async def collect(self, inbox: str) -> list[bytes]:
        """Take what waits there, oldest first; of several who collect, one gets it."""

    async def aclose(self) -> None:
        """Let go of connections. What was announced and claimed stays until its time is over."""


class _Held(NamedTuple):
    value: bytes
    until: float


@dataclass
class _Inbox:
    messages: list[bytes] = field(default_factory=list)
    until: float = 0.0


class LocalLive:
    """``Live`` of one process, for one event loop. Never raises.

    Grows with the names present and the keys held, which their callers bound; both pass by themselves.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._present: dict[str, dict[str, _Held]] = {}
        self._held: dict[str, _Held] = {}
        self._tries: OrderedDict[str, deque[float]] = OrderedDict()
        self._inboxes: dict[str, _Inbox] = {}
        self._swept = clock()

    async def announce(self, kind: str, name: str, info: bytes, seconds: float) -> None:
        self._present.setdefault(kind, {})[name] = _Held(info, self._clock() + seconds)

    async def withdraw(self, kind: str, name: str) -> None:
        self._present.get(kind, {}).pop(name, None)

    async def present(self, kind: str) -> dict[str, bytes]:
        names = self._present.get(kind, {})
        self._drop_expired(names)
        return {name: held.value for name, held in names.items()}

    async def claim(self, key: str, owner: str, expected: str | None, seconds: float) -> str | None:
        now = self._clock()
        if now - self._swept > 60:  # keys that nobody asks for again
            self._drop_expired(self._held)
            self._swept = now
        holder = self._holder(key)
        if holder not in (owner, expected):
            return holder
        self._held[key] = _Held(owner.encode(), now + seconds)
        return owner

    async def release(self, key: str, owner: str) -> bool:
        if self._holder(key) != owner:
            return False
        del self._held[key]
        return True

    async def allow(self, key: str, most: int, seconds: float) -> float:
        now = self._clock()
        tries = self._tries.setdefault(key, deque())
        self._tries.move_to_end(key)
        while tries and tries[0] <= now - seconds:
            tries.popleft()
        if len(tries) >= most:
            return max(1e-6, tries[0] + seconds - now)
        tries.append(now)
        if len(self._tries) > RATES_REMEMBERED:
            self._tries.popitem(last=False)
        return 0.0

    async def forget(self, key: str) -> None:
        self._tries.pop(key, None)

    async def post(self, inbox: str, message: bytes, seconds: float) -> bool:
        await self.waiting()
        there = self._inboxes.get(inbox)
        if there is None:
            if len(self._inboxes) >= MOST_INBOXES:
                return False
            there = self._inboxes[inbox] = _Inbox()
        if len(there.messages) >= MOST_MESSAGES:
            return False
        there.messages.append(message)
        there.until = max(there.until, self._clock() + seconds)
        return True

    async def waiting(self) -> set[str]:
        now = self._clock()
        for name in [name for name, there in self._inboxes.items() if there.until <= now]:
            del self._inboxes[name]
        return set(self._inboxes)

    async def collect(self, inbox: str) -> list[bytes]:
        await self.waiting()
        there = self._inboxes.pop(inbox, None)
        return [] if there is None else there.messages

    async def aclose(self) -> None:
        pass

    def _holder(self, key: str) -> str | None:
        held = self._held.get(key)
        return held.value.decode() if held is not None and held.until > self._clock() else None

    def _drop_expired(self, held: dict[str, _Held]) -> None:
        now = self._clock()
        for name in [name for name, one in held.items() if one.until <= now]:
            del held[name]
