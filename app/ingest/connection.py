"""One peer's connection: what its parser says is brought to the call. No socket: an edge is around it.

An edge hands in what arrives (``text``, ``binary``, ``gone``) and awaits ``run``, which returns when the
connection is over; what the peer is to be told goes through the edge's ``send``.

Bounds and what happens at them:

* audio waits in the parser until the runner comes round; with more than ``MOST_READY_MS`` of it (a peer that
  sends faster than speech, or a runner that is late) it is heard at once: the loop reads nothing meanwhile,
  and TCP slows the peer down
* what the peer says beside its audio: at most ``MOST_SAID`` of it waits; with more the connection is closed
* answers: one at a time; a peer that does not take one within ``SEND_TIMEOUT_S`` is gone
"""

from __future__ import annotations

import asyncio
import hmac
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from app.errors import IngestError
from app.ingest.assembly import Assembly
from app.ingest.hints import Hints
from app.ingest.keys import Keys
from app.ingest.peer import Changed, Closed, Opened, Parser, Probe, Reply, Said, Told
from streams.events import AudioFrame, Gap, Hint
from streams.runner import CallRefused

log = structlog.get_logger(__name__)

WRONG_TOKEN = 4401
"""WebSocket close code for a missing or wrong ingest token."""
LOOKED_AT = 20
"""Messages, after which it is looked at how much waits."""
LONG_MESSAGE = 2_048
"""Bytes. Longer than 20 ms of audio are on nearly every wire."""


def authorise(expected: str, *given: str | None, keys: Keys | None = None) -> None:
    """Raise ``IngestError`` unless the first token given is the expected one, or one of the keys."""
    token = next((one for one in given if one), "")
    if not hmac.compare_digest(token.encode(), expected.encode()) and not (keys and keys.fit(token)):
        raise IngestError("the ingest token is missing or wrong: see DUTING_INGEST_TOKEN", WRONG_TOKEN)


class PeerGone(Exception):
    """There is nobody any more whom anything could be told."""


class Edge(Protocol):
    """The socket of a connection."""

    async def send(self, data: str | bytes) -> None:
        """Returns once the peer's system has taken it; ``PeerGone`` where the peer has closed."""
        ...

    async def refuse(self, message: str, code: int) -> None:
        """Tell the peer what was wrong, as its protocol does, and close."""
        ...

    async def close(self) -> None:
        """All is well, and over."""
        ...


class Connection:
    """A call's ``Leg``. For one event loop.

    Args:
        token: what the peer has to present, or one of ``keys``; ``presented`` is what came before its first
            message (a header).
        hints: tells what an agent may say next, where the peer can be told.
    """

    START_TIMEOUT_S = 10.0
    IDLE_TIMEOUT_S = 60.0
    MOST_READY_MS = 1_000
    MOST_SAID = 256
    SEND_TIMEOUT_S = 5.0

    def __init__(
        self,
        parser: Parser,
        assembly: Assembly,
        edge: Edge,
        *,
        token: str,
        presented: str | None,
        hints: Hints | None = None,
        keys: Keys | None = None,
    ) -> None:
        self._parser, self._assembly, self._edge, self._hints = parser, assembly, edge, hints
        self._token, self._presented, self._keys = token, presented, keys
        self._clock = assembly.runner.clock
        self.call_id: str | None = None
        """Of the call that it brings; ``None`` before that, and when another took its place."""
        self._opened: str | None = None
        self._said: deque[Said | Hint] = deque()
        self._more = asyncio.Event()
        self._over: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()
        """How it ended, or what was wrong."""
        self._messages = 0
        self._unheard = 0
        """Messages since the audio was taken or looked at; a long one counts for several."""
        self.arrived_s = self._clock()
        self.pull: Callable[[], None] | None = None
        """Has what has come handed in, where the edge can."""
        self._is_taking = False

    @property
    def has_begun(self) -> bool:
        """Whether it has brought a call."""
        return self._opened is not None

    # ── what the edge hands in ────────────────────────────────────────────────────────────────────

    def text(self, data: str | bytes) -> None:
        """A text message, or its UTF-8. Never raises: what is wrong ends ``run``."""
        self._receive(self._parser.text, (data,))

    def binary(self, data: bytes) -> None:
        """A binary message, or the next bytes of a stream."""
        self._receive(self._parser.binary, (data,))

    def texts(self, messages: Sequence[bytes]) -> None:
        """Text messages that came together, as ``text``."""
        self._receive(self._parser.text, messages)

    def binaries(self, messages: Sequence[bytes]) -> None:
        """Binary messages that came together, as ``binary``."""
        self._receive(self._parser.binary, messages)

    def gone(self, code: int | None = None) -> None:
        """The peer has closed the connection, ``code``: with this word of a WebSocket; or it is just away."""
        if not self._over.done():
            self._over.set_result(self._parser.gone(code))

    def fail(self, error: Exception) -> None:
        """What came cannot be read at all; what was wrong first counts."""
        if not self._over.done():
            self._over.set_exception(error)

    def _receive(self, parse: Callable[..., Sequence[Said]], messages: Sequence[str | bytes]) -> None:
        if self._over.done():
            return
        self._messages += len(messages)
        self.arrived_s = self._clock()
        before = len(self._said)
        try:
            for data in messages:
                self._unheard += 1 + len(data) // LONG_MESSAGE
                if said := parse(data):
                    self._said.extend(said)
        except Exception as error:
            self.fail(error)
        if len(self._said) > before:
            if len(self._said) > self.MOST_SAID:
                self.fail(IngestError(f"expected at most {self.MOST_SAID} messages at once", 1008))
            self._more.set()
        elif self._unheard > LOOKED_AT and self.call_id and not self._is_taking:
            # Counted first: few messages hold more than 20 ms, and those that do count more. All calls are
            # heard, not this one alone: a runner that is late is late for all, and one by one takes longer.
            self._unheard = 0
            if self._parser.ready_ms > self.MOST_READY_MS:
                self._assembly.runner.listen()

    # ── as a call's leg ───────────────────────────────────────────────────────────────────────────

    def take(self) -> Sequence[AudioFrame | Gap]:
        if self.pull is not None:
            # What comes of it is taken at once: nobody need be called for it.
            self._is_taking = True
            try:
                self.pull()
            finally:
                self._is_taking = False
        self._unheard = 0
        return self._parser.take()

    def drop(self, message: str, code: int) -> None:
        self.call_id = None
        self.fail(IngestError(message, code))

    # ── its life ──────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Until the connection is over, whatever happens; the call then goes on, or ends."""
        name, closed, broken = self._parser.name, Closed("disconnected"), False
        try:
            closed = await self._live()
            if closed.reason == "hangup":
                await self._edge.close()
        except IngestError as error:
            log.warning("ingest.refused", protocol=name, call_id=self.call_id, code=error.code)
            await self._refuse(str(error), error.code)
            broken = True
        except CallRefused as error:
            # 1013: try again later (RFC 6455 registry); 1008: policy.
            log.warning("ingest.no_room", protocol=name, retryable=error.retryable)
            await self._refuse(str(error), 1013 if error.retryable else 1008)
        except TimeoutError:
            log.warning("ingest.idle", protocol=name, call_id=self.call_id)
            await self._refuse("nothing came for too long; the stream is closed", 1001)
        finally:
            await self._leave(closed, broken)

    async def _live(self) -> Closed:
        watching = asyncio.create_task(self._watch())
        working = asyncio.create_task(self._work())
        try:
            await asyncio.wait((self._over, watching, working), return_when=asyncio.FIRST_COMPLETED)
            # What the peer said before it went still counts: it may have said that the call is over.
            if self._over.done() and self._over.exception() is None and not working.done():
                self._said.append(self._over.result())
                self._more.set()
                await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
            for ended in (working, watching, self._over):
                if ended.done():
                    return ended.result()
            raise AssertionError("one of them has ended")
        finally:
            # Whatever comes from here on is ignored.
            if not self._over.done():
                self._over.set_result(Closed("disconnected"))
            for task in (watching, working):
                task.cancel()
            await asyncio.gather(watching, working, return_exceptions=True)

    async def _watch(self) -> Closed:
        """Raises ``TimeoutError`` once nothing has come for too long."""
        await asyncio.sleep(self.START_TIMEOUT_S)
        while self.call_id is not None:
            before = self._messages
            await asyncio.sleep(max(self.IDLE_TIMEOUT_S, self._parser.quiet_s))
            if self._messages == before:
                break
        raise TimeoutError

    async def _work(self) -> Closed:
        """Do what the peer says, in order; returns how it ended."""
        while True:
            while not self._said:
                self._more.clear()
                await self._more.wait()
            said = self._said.popleft()
            match said:
                case Reply():
                    await self._send(said.data)
                case Hint():
                    if (data := self._parser.hint(said)) is not None:
                        await self._send(data)
                case Opened():
                    self._open(said)
                case Probe():
                    authorise(self._token, self._presented, said.token, keys=self._keys)
                case Closed():
                    return said
                case Changed() | Told():
                    with suppress(KeyError):  # the call has ended by another way
                        self._tell(said)

    def _tell(self, said: Changed | Told) -> None:
        if self.call_id is None:
            return
        if isinstance(said, Changed):
            self._assembly.change(self.call_id, said.fields)
        else:
            self._assembly.tell(self.call_id, said)

    async def _send(self, data: str | bytes) -> None:
        try:
            # Not `wait_for`: in Python 3.11 it can swallow a cancellation.
            async with asyncio.timeout(self.SEND_TIMEOUT_S):
                await self._edge.send(data)
        except PeerGone:
            pass  # what it said before it went still counts: maybe that the call is over
        except TimeoutError:
            raise IngestError(f"an answer was not read within {self.SEND_TIMEOUT_S:.0f} s", 1008) from None

    def _open(self, opened: Opened) -> None:
        authorise(self._token, self._presented, opened.token, keys=self._keys)
        if self._opened is not None:
            raise IngestError("expected one call per connection, got a second one")
        self._assembly.join(opened, self)
        self.call_id = self._opened = opened.call.call_id
        if self._hints is not None:
            self._hints.listen(self.call_id, self._hint)

    def _hint(self, hint: Hint) -> None:
        # A hint that finds no room is not told: the peer does not read, and late it would only confuse.
        if len(self._said) < self.MOST_SAID // 2:
            self._said.append(hint)
            self._more.set()

    async def _refuse(self, message: str, code: int) -> None:
        try:
            async with asyncio.timeout(self.SEND_TIMEOUT_S):
                told = self._parser.refusal(message, code)
                if told is not None:
                    await self._edge.send(told)
                await self._edge.refuse(message, code)
        except (TimeoutError, PeerGone, RuntimeError, OSError):
            pass  # it does not listen any more

    async def _leave(self, closed: Closed, broken: bool) -> None:
        if self._parser.late_chunks:
            log.info("ingest.late_chunks", call_id=self.call_id, chunks=self._parser.late_chunks)
        if self._hints is not None and self._opened is not None:
            self._hints.forget(self._opened, self._hint)
        if self.call_id is None:
            return
        await self._assembly.leave(self, self.call_id, closed, self._parser.finish(), broken)
