"""Asks the telephony to hand a call over: a signed webhook, a few attempts, and what came of it in the log.

``POST`` to ``DUTING_TAKEOVER_URL`` with a JSON body; ``X-Duting-Timestamp`` is seconds since 1970,
``X-Duting-Signature`` is ``sha256=`` and the hexadecimal HMAC-SHA-256 of timestamp, a dot and the body under
``DUTING_TAKEOVER_SECRET``; ``Idempotency-Key`` is the same for every attempt. A 2xx is a yes; other 4xx than
408, 425 and 429 are a no; everything else is tried again.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import httpx
import msgspec
import structlog
from msgspec import structs

from app.errors import StoreError
from app.settings import Settings
from streams.events import CallInfo, OutletEvent
from streams.supervising import Takeover

TIMEOUT_S: Final = 5.0
PAUSES_S: Final = (0.0, 1.0, 3.0)
"""Before each attempt. With three timeouts all is over within 20 s, so before
``app.store.projection.ANSWERED_WITHIN_S``."""
MOST: Final = 50
"""At once. Who asks beyond that is told to come again."""
AGAIN: Final = frozenset({408, 425, 429})

log = structlog.get_logger(__name__)

Append = Callable[[Sequence[OutletEvent]], Awaitable[object]]


class Takeovers:
    """For one event loop: ``ask`` as people do, ``aclose`` at the end."""

    def __init__(
        self,
        settings: Settings,
        append: Append,
        transport: httpx.AsyncBaseTransport | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``append``: into the event log; ``transport`` and ``pause`` are others in tests."""
        self._url, self._secret = settings.takeover_url, settings.takeover_secret
        self._append, self._transport, self._pause, self._clock = append, transport, pause, clock
        self._running: set[asyncio.Task[None]] = set()

    @property
    def possible(self) -> bool:
        """Whether there is somebody to ask."""
        return self._url is not None and self._secret is not None

    @property
    def crowded(self) -> bool:
        return len(self._running) >= MOST

    def ask(self, takeover: Takeover, call: CallInfo) -> None:
        """Returns at once; what comes of it is told through the event log."""
        task = asyncio.create_task(self._ask(takeover, call), name="takeover")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def aclose(self) -> None:
        """What still runs is over: it has failed, and that is told."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _ask(self, asked: Takeover, call: CallInfo) -> None:
        told = asked
        try:
            async with httpx.AsyncClient(
                timeout=TIMEOUT_S, transport=self._transport, follow_redirects=False
            ) as http:
                for number, pause in enumerate(PAUSES_S, 1):
                    if pause:
                        await self._pause(pause)
                    told = await self._attempt(http, structs.replace(asked, attempts=number), call)
                    if told.state == "accepted" or told.problem == "refused":
                        break
        except asyncio.CancelledError:
            told = structs.replace(told, state="failed", problem=told.problem or "unreachable")
        if told.state != "accepted":
            log.warning("takeover.failed", call_id=asked.call_id, problem=told.problem, status=told.status)
        try:
            await self._append([told])
        except StoreError as error:
            log.error("takeover.not_stored", call_id=asked.call_id, error=str(error))

    async def _attempt(self, http: httpx.AsyncClient, asked: Takeover, call: CallInfo) -> Takeover:
        assert self._url is not None
        assert self._secret is not None
        body = message(asked, call)
        stamp = str(int(self._clock()))
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": asked.id,
            "X-Duting-Timestamp": stamp,
            "X-Duting-Signature": signature(self._secret.get_secret_value(), stamp, body),
        }
        try:
            # Its answer is not read: a yes or a no is all that is asked for.
            async with http.stream("POST", self._url, content=body, headers=headers) as response:
                status = response.status_code
        except httpx.TimeoutException:
            return structs.replace(asked, state="failed", problem="timeout")
        except httpx.HTTPError:
            return structs.replace(asked, state="failed", problem="unreachable")
        if 200 <= status < 300:
            return structs.replace(asked, state="accepted", status=status)
        final = 400 <= status < 500 and status not in AGAIN
        problem: Any = "refused" if final else "unreachable"
        return structs.replace(asked, state="failed", status=status, problem=problem)


def message(asked: Takeover, call: CallInfo) -> bytes:
    """What the telephony is sent. The customer's number is not in it: the call's id is enough."""
    return msgspec.json.encode(
        {
            "id": asked.id,
            "call_id": asked.call_id,
            "by": asked.by,
            "reason": asked.reason,
            "at": asked.at,
            "media_ms": asked.media_ms,
            "agent": call.agent,
            "team": call.team,
            "queue": call.queue,
        }
    )


def signature(secret: str, stamp: str, body: bytes) -> str:
    """What ``X-Duting-Signature`` says."""
    return "sha256=" + hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
