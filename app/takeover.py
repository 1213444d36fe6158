"""Asks the telephony to hand a call over: a signed webhook, a few attempts, and what came of it in the log.

``POST`` to ``DUTING_TAKEOVER_URL`` with a JSON body; ``X-Duting-Timestamp`` is seconds since 1970,
``X-Duting-Signature`` is ``sha256=`` and the hexadecimal HMAC-SHA-256 of timestamp, a dot and the body under
``DUTING_TAKEOVER_SECRET``; ``Idempotency-Key`` is the same for every attempt. A 2xx is a yes; other 4xx than
408, 425 and 429 are a no; everything else is tried again.

Whoever asks may be killed before there is an answer. What was asked for ``ANSWERED_WITHIN_S`` ago, here or at
another gateway, and of which nothing was told has failed: it is ``lost``.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import msgspec
import structlog
from msgspec import structs

from app.errors import StoreError
from app.settings import Settings
from app.store.beside_projection import ANSWERED_WITHIN_S
from app.store.times import written
from streams.events import CallInfo, OutletEvent
from streams.supervising import Takeover

TIMEOUT_S: Final = 5.0
"""Of one attempt, from the first byte of it to the telephony's yes or no."""
PAUSES_S: Final = (0.0, 1.0, 3.0)
"""Before each attempt. With three timeouts all is over within 20 s, so before ``ANSWERED_WITHIN_S``."""
TELL_AGAIN_S: Final = 2.0
"""Between two tries to store what came of it, while the database is away."""
LOOK_S: Final = 10.0
"""Between two looks for what is lost."""
MOST: Final = 50
"""At once. Who asks beyond that is told to come again."""
AGAIN: Final = frozenset({408, 425, 429})

log = structlog.get_logger(__name__)

Append = Callable[[Sequence[OutletEvent]], Awaitable[object]]
Unanswered = Callable[[str], Sequence[Takeover]]
"""Those asked for before that moment (as ``times.written`` writes) that still wait for their answer."""


class Takeovers:
    """For one event loop: ``ask`` as people do, ``start`` and ``aclose`` with the service."""

    def __init__(
        self,
        settings: Settings,
        append: Append,
        transport: httpx.AsyncBaseTransport | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """``append``: into the event log; ``transport``, ``pause``, ``clock`` and ``timeout_s`` are others in
        tests."""
        self._url, self._secret = settings.takeover_url, settings.takeover_secret
        self._append, self._transport, self._pause, self._clock = append, transport, pause, clock
        self._timeout_s = timeout_s
        self._running: dict[asyncio.Task[None], str] = {}
        """With the id of the take-over."""
        self._storing: set[asyncio.Task[None]] = set()
        """Those of them that have their outcome and give it to the log: not to be disturbed."""
        self._ending = False
        self._watching: asyncio.Task[None] | None = None

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
        self._running[task] = takeover.id
        task.add_done_callback(self._forget)

    async def start(self, unanswered: Unanswered) -> None:
        """From here on what is lost is told: what a process that was killed left behind, too.

        ``unanswered`` is asked in a thread.
        """
        self._watching = asyncio.create_task(self._watch(unanswered), name="takeovers")

    async def aclose(self) -> None:
        """What still runs is over: it is lost, and that is told."""
        self._ending = True
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        for task in set(self._running) - self._storing:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def look(self, unanswered: Unanswered) -> int:
        """Tell what is lost; returns how many were. Raises ``StoreError``."""
        before = datetime.fromtimestamp(self._clock(), UTC) - timedelta(seconds=ANSWERED_WITHIN_S)
        found = await asyncio.to_thread(unanswered, written(before))
        here = set(self._running.values())
        lost = [structs.replace(one, state="failed", problem="lost") for one in found if one.id not in here]
        if lost:
            await self._append(lost)
            log.warning("takeover.lost", calls=sorted(one.call_id for one in lost))
        return len(lost)

    async def _watch(self, unanswered: Unanswered) -> None:
        while True:
            try:
                await self.look(unanswered)
            except StoreError as error:  # they are still there the next time
                log.warning("takeover.not_looked_for", error=str(error))
            except Exception:
                log.exception("takeover.not_looked_for")
            await asyncio.sleep(LOOK_S)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)

    async def _ask(self, asked: Takeover, call: CallInfo) -> None:
        told = await self._outcome(asked, call)
        if told.state != "accepted":
            log.warning("takeover.failed", call_id=asked.call_id, problem=told.problem, status=told.status)
        await self._tell(told)

    async def _outcome(self, asked: Takeover, call: CallInfo) -> Takeover:
        """Cancelled, what is known by then."""
        told = structs.replace(asked, state="failed", problem="lost")
        with suppress(asyncio.CancelledError):
            async with httpx.AsyncClient(
                timeout=self._timeout_s, transport=self._transport, follow_redirects=False
            ) as http:
                for number, pause in enumerate(PAUSES_S, 1):
                    if pause:
                        await self._pause(pause)
                    # Cut off in the middle of it, nobody knows what the telephony made of it.
                    told = structs.replace(asked, state="failed", problem="lost", attempts=number)
                    told = await self._attempt(http, structs.replace(asked, attempts=number), call)
                    if told.state == "accepted" or told.problem == "refused":
                        break
        return told

    async def _tell(self, told: Takeover) -> None:
        """As often as it takes; at the end, or cancelled, once more. It is ``lost`` only if that fails."""
        task = asyncio.current_task()
        assert task is not None
        while True:
            self._storing.add(task)
            try:
                await self._append([told])
                return
            except StoreError as error:
                log.error("takeover.not_stored", call_id=told.call_id, state=told.state, error=str(error))
            finally:
                self._storing.discard(task)
            if self._ending or task.cancelling():
                return
            with suppress(asyncio.CancelledError):
                await self._pause(TELL_AGAIN_S)

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
        status: int | None = None
        problem: Any = "unreachable"
        try:
            # Of all of it: a server that sends a byte now and then never lets a single read take too long.
            async with asyncio.timeout(self._timeout_s):
                # Its answer is not read: a yes or a no is all that is asked for.
                async with http.stream("POST", self._url, content=body, headers=headers) as response:
                    status = response.status_code
        except (TimeoutError, httpx.TimeoutException):
            problem = "timeout"
        except Exception as error:  # also an address that is none; whatever it is, who waits must hear of it
            log.warning("takeover.attempt_failed", call_id=asked.call_id, error=type(error).__name__)
        # What was said before something went wrong is said.
        if status is None:
            return structs.replace(asked, state="failed", problem=problem)
        if 200 <= status < 300:
            return structs.replace(asked, state="accepted", status=status)
        final = 400 <= status < 500 and status not in AGAIN
        problem = "refused" if final else "unreachable"
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
