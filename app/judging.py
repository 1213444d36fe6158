"""What channels sound like is judged in a process of its own, so that one interpreter need not do everything.

Judging is half of the work of hearing calls (``streams.judge``) and takes nothing but samples. With 150 calls
the rest of the path has a whole core more to itself (``python -m benchmarks.capacity``).

``JudgingProcess`` is the server's side and a ``Judge``; ``python -m app.judging`` is the other. Down the
child's standard input go orders, up its standard output its answers: MessagePack behind four bytes of length,
little-endian. The child ends when its input does, also when the server was killed.

The judge is never missing. Calls that begin while the child is not ready are judged here, in the server's
process; when the child dies, or does not answer for ``ANSWER_TIMEOUT_S``, so are its calls, beginning with
what it was asked and did not answer: no audio is lost. A second later another child is started for the calls
that begin then.

What waits is bounded by the runner: one question a channel, of what came while the one before was judged.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, BinaryIO

import msgspec
import numpy as np
import structlog
from prometheus_client import Counter

from app import logs
from app.piped import framed, read_message, taken, widen
from app.settings import for_a_child
from streams import silero
from streams.events import Channel, Hold, Trouble
from streams.judge import Answer, LocalJudge, Question
from streams.silero import WINDOW

ANSWER_TIMEOUT_S = 5.0
"""From a question to its answer; usually 20 ms. Calls hear nothing for so long when the child hangs."""
LOOK_S = 1.0
"""How often it is looked at that."""
AGAIN_S = 1.0
"""From a child's end to the next one's start."""
STOP_TIMEOUT_S = 5.0
_READ_BYTES = 2**18

log = structlog.get_logger(__name__)
RESTARTS = Counter("duting_judging_restarts", "Times that the process which judges had died")


# ── what is said ──────────────────────────────────────────────────────────────────────────────────


class Opened(msgspec.Struct, tag=0, array_like=True):
    call_id: str
    channels: tuple[Channel, ...]


class Told(msgspec.Struct, tag=1, array_like=True):
    hold: Hold


class Asked(msgspec.Struct, tag=2, array_like=True):
    """Each question: call, channel, first sample, windows."""

    ticket: int
    questions: list[tuple[str, Channel, int, bytes]]


class Closed(msgspec.Struct, tag=3, array_like=True):
    call_id: str


class Ready(msgspec.Struct, tag=0, array_like=True):
    pass


class Answered(msgspec.Struct, tag=1, array_like=True):
    """One answer a question: probabilities, what was found."""

    ticket: int
    answers: list[tuple[bytes, list[Hold | Trouble]]]


Order = Opened | Told | Asked | Closed
Answering = Ready | Answered
_ORDERS = msgspec.msgpack.Decoder(Order)
_ANSWERS = msgspec.msgpack.Decoder(Answering)


# ── the server's side ─────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Ticket:
    """Questions that belong together, and the answers that there are."""

    questions: Sequence[Question]
    answers: list[Answer | None]
    then: Callable[[Sequence[Answer]], None]
    since_s: float
    abroad: list[int] = field(default_factory=list)
    """Which of them the child was asked, in its order."""


class JudgingProcess:
    """Judges all running calls in a process of its own. For one event loop.

    ``start`` before the first call, ``aclose`` after the last.
    """

    def __init__(
        self,
        log_level: str = "info",
        log_json: bool = False,
        local: Callable[[], LocalJudge] = LocalJudge,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = [sys.executable, "-m", "app.judging", "--log-level", log_level]
        self._command += ["--log-json"] if log_json else []
        self._clock = clock
        self._local = local()
        """For calls that the child does not judge."""
        self._abroad: dict[str, tuple[Channel, ...]] = {}
        """Calls that the child judges."""
        self._held: dict[str, Hold] = {}
        """The last that the telephony told of each of them."""
        self._tickets: dict[int, _Ticket] = {}
        self._number = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self._unsent: deque[memoryview] = deque()
        self._got = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    @property
    def is_ready(self) -> bool:
        """Whether calls that begin now are judged by the child."""
        return self._is_ready

    def start(self) -> None:
        """Start the child. It is ready a moment later; until then calls are judged here."""
        try:
            # A terminal's Ctrl-C is for the server, which then ends it in good order.
            self._child = subprocess.Popen(  # noqa: S603 – our own interpreter
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env={**for_a_child(), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        except OSError as error:
            log.error("judging.not_started", error=error.strerror)
            self._later(AGAIN_S, self.start)
            return
        for end in (self._in, self._out):
            os.set_blocking(end.fileno(), False)
            widen(end.fileno())
        asyncio.get_running_loop().add_reader(self._out.fileno(), self._read)
        self._later(LOOK_S, self._look)

    async def aclose(self) -> None:
        """End the child. Questions that wait for an answer get none."""
        self._is_over = True
        self._tickets.clear()
        child = self._let_go()
        if child is None:
            return
        try:
            await asyncio.to_thread(child.wait, STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.error("judging.not_stopped", waited_s=STOP_TIMEOUT_S)
            child.kill()
            child.wait()

    # ── as a judge ────────────────────────────────────────────────────────────────────────────────

    def open(self, call_id: str, channels: Sequence[Channel]) -> None:
        if self._is_ready:
            self._abroad[call_id] = tuple(channels)
            self._order(Opened(call_id, tuple(channels)))
        else:
            self._local.open(call_id, channels)

    def close(self, call_id: str) -> None:
        self._held.pop(call_id, None)
        if self._abroad.pop(call_id, None) is None:
            self._local.close(call_id)
        else:
            self._order(Closed(call_id))

    def told(self, hold: Hold) -> None:
        if hold.call_id in self._abroad:
            self._held[hold.call_id] = hold
            self._order(Told(hold))
        else:
            self._local.told(hold)

    def judge(self, questions: Sequence[Question], then: Callable[[Sequence[Answer]], None]) -> None:
        here = [n for n, question in enumerate(questions) if question.call_id not in self._abroad]
        answers: list[Answer | None] = [None] * len(questions)
        for n, answer in zip(here, self._local.answers([questions[n] for n in here]), strict=True):
            answers[n] = answer
        if len(here) == len(questions):
            then([answer for answer in answers if answer is not None])
            return
        self._number += 1
        ticket = _Ticket(questions, answers, then, self._clock())
        ticket.abroad = [n for n, answer in enumerate(answers) if answer is None]
        self._tickets[self._number] = ticket
        asked = [questions[n] for n in ticket.abroad]
        self._order(
            Asked(self._number, [(q.call_id, q.channel, q.first, q.windows.tobytes()) for q in asked])
        )

    def wait(self, asking: Callable[[], bool]) -> None:
        until_s = self._clock() + ANSWER_TIMEOUT_S
        while self._tickets and asking():
            # Not `select`, which takes no descriptor beyond 1023.
            pipes = select.poll()
            pipes.register(self._out, select.POLLIN)
            if self._unsent:
                pipes.register(self._in, select.POLLOUT)
            left_ms = 1000 * (until_s - self._clock())
            ready = {descriptor for descriptor, _ in pipes.poll(left_ms)} if left_ms > 0 else set()
            if not ready:
                self._lost("timeout")
                return
            if self._in.fileno() in ready:
                self._write()
            if self._out.fileno() in ready:
                self._read()

    # ── the pipes ─────────────────────────────────────────────────────────────────────────────────

    @property
    def _in(self) -> IO[bytes]:
        assert self._child is not None
        assert self._child.stdin is not None
        return self._child.stdin

    @property
    def _out(self) -> IO[bytes]:
        assert self._child is not None
        assert self._child.stdout is not None
        return self._child.stdout

    def _order(self, order: Order) -> None:
        was_idle = not self._unsent
        self._unsent.append(memoryview(framed(order)))
        if was_idle:
            self._write()

    def _write(self) -> None:
        """Send what the pipe takes; the loop calls again when it takes more."""
        if self._child is None:
            return
        loop = asyncio.get_running_loop()
        try:
            while self._unsent:
                rest = self._unsent[0]
                sent = os.write(self._in.fileno(), rest)
                if sent < len(rest):
                    self._unsent[0] = rest[sent:]
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            loop.add_writer(self._in.fileno(), self._write)
            return
        except OSError:
            self._unsent.clear()  # nobody reads; its end is noticed by what it writes
        loop.remove_writer(self._in.fileno())

    def _read(self) -> None:
        if self._child is None:
            return
        try:
            data = os.read(self._out.fileno(), _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._lost("died")
            return
        self._got += data
        try:
            while (message := taken(self._got)) is not None:
                self._hear(_ANSWERS.decode(message))
        except (msgspec.DecodeError, ValueError, KeyError) as error:
            self._lost(type(error).__name__)

    def _hear(self, message: Answering) -> None:
        if isinstance(message, Ready):
            self._is_ready = True
            return
        ticket = self._tickets[message.ticket]
        for n, (probabilities, found) in zip(ticket.abroad, message.answers, strict=True):
            ticket.answers[n] = Answer(np.frombuffer(probabilities, np.float32), found)
        del self._tickets[message.ticket]
        self._give(ticket)

    @staticmethod
    def _give(ticket: _Ticket) -> None:
        try:
            ticket.then([answer for answer in ticket.answers if answer is not None])
        except Exception as error:
            # The runner's own; it must not cost the other calls their answers.
            log.error("judging.answer_failed", error=type(error).__name__)

    # ── the child's end ───────────────────────────────────────────────────────────────────────────

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_over:
            self._timer = asyncio.get_running_loop().call_later(seconds, work)

    def _look(self) -> None:
        now_s = self._clock()
        if any(now_s - ticket.since_s > ANSWER_TIMEOUT_S for ticket in self._tickets.values()):
            self._lost("timeout")
        elif self._child is not None:
            self._later(LOOK_S, self._look)

    def _let_go(self) -> subprocess.Popen[bytes] | None:
        """Nothing more is read from the child, or written to it."""
        child, self._is_ready = self._child, False
        if self._timer is not None:
            self._timer.cancel()
        if child is None:
            return None
        loop = asyncio.get_running_loop()
        for end, remove in ((self._in, loop.remove_writer), (self._out, loop.remove_reader)):
            remove(end.fileno())
            end.close()
        self._unsent.clear()
        self._got.clear()
        self._child = None
        return child

    def _lost(self, reason: str) -> None:
        """Without the child: its calls are judged here from now on."""
        child = self._let_go()
        if child is None:
            return
        child.kill()
        code = child.wait()
        RESTARTS.inc()
        log.error("judging.lost", reason=reason, code=code, calls=len(self._abroad))
        for call_id, channels in self._abroad.items():
            self._local.open(call_id, channels)
            if (hold := self._held.get(call_id)) is not None:
                self._local.told(hold)
        self._abroad.clear()
        self._held.clear()
        tickets, self._tickets = self._tickets, {}
        self._later(AGAIN_S, self.start)
        for ticket in tickets.values():
            for n in ticket.abroad:
                ticket.answers[n] = self._anyhow(ticket.questions[n])
            self._give(ticket)

    def _anyhow(self, question: Question) -> Answer:
        """An answer, even where the question is what killed the child."""
        try:
            return self._local.answers([question])[0]
        except Exception as error:
            log.error("judging.failed", call_id=question.call_id, error=type(error).__name__)
            return Answer(np.zeros(len(question.windows), np.float32), ())


# ── the child's side ──────────────────────────────────────────────────────────────────────────────


def judge(orders: BinaryIO, answers: BinaryIO, local: LocalJudge) -> None:
    """Carry out ``orders`` until they end."""

    def tell(message: Answering) -> None:
        with contextlib.suppress(BrokenPipeError):  # the server is gone: nobody wants to know
            answers.write(framed(message))
            answers.flush()

    tell(Ready())
    while (message := read_message(orders)) is not None:
        match _ORDERS.decode(message):
            case Opened(call_id, channels):
                local.open(call_id, channels)
            case Told(hold):
                local.told(hold)
            case Closed(call_id):
                local.close(call_id)
            case Asked(ticket, asked):
                questions = [
                    Question(call_id, channel, first, np.frombuffer(pcm, np.int16).reshape(-1, WINDOW))
                    for call_id, channel, first, pcm in asked
                ]
                given = local.answers(questions)
                tell(
                    Answered(
                        ticket, [(answer.probabilities.tobytes(), list(answer.found)) for answer in given]
                    )
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-json", action="store_true")
    given = parser.parse_args()
    # Who stops the whole group of processes stops the server, and this ends behind it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logs.configure(given.log_level, given.log_json)
    silero.network()
    gc.collect()
    gc.freeze()
    judge(sys.stdin.buffer, sys.stdout.buffer, LocalJudge())


if __name__ == "__main__":
    main()
