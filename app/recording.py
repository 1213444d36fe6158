"""Recordings in a process of their own, so that what encodes them never holds up what hears the calls.

As threads of the server's process the encoders take its one interpreter, thousands of times a second, from
the loop that hears all calls: with 150 calls finals came at 2.2 s (p95) instead of 0.8, while recordings were
Opus from the start (``python -m benchmarks.capacity``, and the same with ``--no-audio``).

``RecordingProcess`` is the server's side and looks like ``Recorders``; ``python -m app.recording`` is the
other. Down the child's standard input go orders, up its standard output what came of them: MessagePack behind
four bytes of length, little-endian. The child ends when its input does: also when the server was killed, and
then it still writes what had been handed over, and closes every file.

What bounds each step:

===========  ========  ====================================================================================
orders       100 ms    are gathered and sent together
pipe         32 MiB    7 s of 150 calls; full when the child is stopped or starved. Overflow: new audio is
                       dropped and counted, silence stands in its place
child        10 s      per call (``app.recorder``)
close        30 s      is waited for; then the call ends without, and that is logged
===========  ========  ====================================================================================

A child that dies is started again a second later; running calls go on in a second file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog
from prometheus_client import REGISTRY, Counter

from app import logs
from app.piped import framed, next_message, widen
from app.recorder import DROPPED, FAILED, Recorders
from app.settings import for_a_child
from streams.events import SAMPLE_RATE, AudioFrame, CallInfo

SEND_S = 0.1
MOST_UNSENT = 32 * 2**20
"""Bytes."""
CLOSE_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
AGAIN_S = 1.0
"""From a child's end to the next one's start."""
TELL_S = 1.0
"""How often the child tells what was lost."""
NICE = 10
"""Of the child: hearing goes before recording, which has seconds."""
_AUTOGROUP = Path("/proc/self/autogroup")
"""Where Linux gives each session an equal share of the processor, niceness counts within the session only:
it has to be told for the session too."""

log = structlog.get_logger(__name__)
RESTARTS = Counter("duting_recording_restarts", "Times that the process which records had died")


# ── what is said ──────────────────────────────────────────────────────────────────────────────────


class Begin(msgspec.Struct, tag=0, array_like=True):
    call: CallInfo
    wire_rate: int


class Piece(msgspec.Struct, tag=1, array_like=True):
    frame: AudioFrame


class Over(msgspec.Struct, tag=2, array_like=True):
    ticket: int
    """Comes back when the file is whole."""
    call_id: str
    media_ms: int


class Closed(msgspec.Struct, tag=0, array_like=True):
    ticket: int


class Lost(msgspec.Struct, tag=1, array_like=True):
    """Since the last time."""

    failed: int
    dropped_ms: dict[str, int]


Order = Begin | Piece | Over
Told = Closed | Lost
_ORDERS = msgspec.msgpack.Decoder(list[Order])
_TOLD = msgspec.msgpack.Decoder(Told)


# ── the server's side ─────────────────────────────────────────────────────────────────────────────


class RecordingProcess:
    """Records all running calls into files below ``folder``, in a process of its own. For one event loop.

    ``open`` before the first call, ``aclose`` after the last.
    """

    def __init__(self, folder: Path, log_level: str = "info", log_json: bool = False) -> None:
        self._command = [sys.executable, "-m", "app.recording", "--folder", str(folder.absolute())]
        self._command += ["--log-level", log_level, *(["--log-json"] if log_json else [])]
        self._orders: list[Order] = []
        self._unsent = 0
        """Bytes of audio among them."""
        self._sending: asyncio.TimerHandle | None = None
        self._running: dict[str, Begin] = {}
        self._closing: dict[int, asyncio.Future[None]] = {}
        self._tickets = 0
        self._child: Process | None = None
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start the child. Raises ``OSError`` where it cannot be started at all."""
        self._child = await self._start()
        self._watching = asyncio.create_task(self._watch(), name="recording")

    def start(self, call: CallInfo, wire_rate: int = SAMPLE_RATE) -> None:
        """Begin a recording; one of the same id that still runs is ended first. Never blocks.

        ``wire_rate``: hertz at which the audio came before it was brought to ``SAMPLE_RATE``.
        """
        begin = Begin(call, wire_rate)
        self._running[call.call_id] = begin
        self._order(begin)

    def frame(self, frame: AudioFrame) -> None:
        """Take a piece of audio. Never blocks; frames of calls that were not started are ignored."""
        if frame.call_id not in self._running:
            return
        if self._unsent > MOST_UNSENT:
            DROPPED.labels("overflow").inc(frame.duration_ms)
            return
        self._unsent += len(frame.pcm)
        self._order(Piece(frame))

    async def close(self, call_id: str, media_ms: int) -> None:
        """End a recording at ``media_ms`` (the call's length); returns when the file is complete.

        Silence fills up to there; audio beyond it is kept. Unknown ids are ignored.
        """
        if self._running.pop(call_id, None) is None or self._child is None:
            return  # without a child the file is as whole as it will be
        self._tickets += 1
        ticket = self._tickets
        closed = self._closing[ticket] = asyncio.get_running_loop().create_future()
        self._order(Over(ticket, call_id, media_ms))
        try:
            await asyncio.wait_for(closed, CLOSE_TIMEOUT_S)
        except TimeoutError:
            log.error("recording.not_closed", call_id=call_id, waited_s=CLOSE_TIMEOUT_S)
        finally:
            self._closing.pop(ticket, None)

    async def aclose(self) -> None:
        """End all recordings where they are, and the child; further frames are ignored."""
        self._running.clear()
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        child, self._child = self._child, None
        if child is None or child.stdin is None:
            return
        self._send(child)
        child.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._hear(child)
                await child.wait()
        except TimeoutError:
            log.error("recording.not_stopped", waited_s=STOP_TIMEOUT_S)
            child.kill()
            await child.wait()

    # ── orders ────────────────────────────────────────────────────────────────────────────────────

    def _order(self, order: Order) -> None:
        self._orders.append(order)
        if self._sending is None:
            self._sending = asyncio.get_running_loop().call_later(SEND_S, self._send)

    def _send(self, child: Process | None = None) -> None:
        self._sending = None
        child = child or self._child
        if child is None or child.stdin is None or child.stdin.is_closing():
            return  # until there is one again; what waits is bounded as what a child does not take is
        orders, self._orders = self._orders, []
        child.stdin.write(framed(orders))
        self._unsent = child.stdin.transport.get_write_buffer_size()

    # ── the child ─────────────────────────────────────────────────────────────────────────────────

    async def _start(self) -> Process:
        # A terminal's Ctrl-C is for the server, which then ends it in good order.
        child = await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, env=for_a_child(), start_new_session=True
        )
        if child.stdin is not None:
            widen(child.stdin.get_extra_info("pipe").fileno())
        return child

    async def _watch(self) -> None:
        """Hear what the child tells; when it dies, start another."""
        while True:
            if self._child is not None:
                code = await self._until_dead(self._child)
                self._child = None
                RESTARTS.inc()
                log.error("recording.died", code=code, calls=len(self._running))
                for closed in self._closing.values():
                    if not closed.done():  # its file is as whole as it will be
                        closed.set_result(None)
            await asyncio.sleep(AGAIN_S)
            try:
                child = await self._start()
            except OSError as error:
                log.error("recording.not_started", error=error.strerror)
                continue
            pieces = [order for order in self._orders if isinstance(order, Piece)]
            self._orders = [*self._running.values(), *pieces]
            self._child = child

    async def _until_dead(self, child: Process) -> int:
        try:
            await self._hear(child)
        except Exception as error:
            log.error("recording.not_understood", error=type(error).__name__)
            child.kill()
        return await child.wait()

    async def _hear(self, child: Process) -> None:
        assert child.stdout is not None
        while (message := await next_message(child.stdout)) is not None:
            told = _TOLD.decode(message)
            if isinstance(told, Closed):
                closed = self._closing.get(told.ticket)
                if closed is not None and not closed.done():
                    closed.set_result(None)
            else:
                FAILED.inc(told.failed)
                for reason, lost_ms in told.dropped_ms.items():
                    DROPPED.labels(reason).inc(lost_ms)


# ── the child's side ──────────────────────────────────────────────────────────────────────────────


class _Losses:
    """What this process has counted, as differences."""

    def __init__(self) -> None:
        self._failed = 0
        self._dropped_ms: dict[str, int] = {}

    def since(self) -> Lost | None:
        failed = int(REGISTRY.get_sample_value("duting_recordings_failed_total") or 0)
        dropped = {
            sample.labels["reason"]: int(sample.value)
            for family in DROPPED.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        }
        lost = Lost(
            failed - self._failed,
            {reason: ms - self._dropped_ms.get(reason, 0) for reason, ms in dropped.items()},
        )
        self._failed, self._dropped_ms = failed, dropped
        return lost if lost.failed or any(lost.dropped_ms.values()) else None


async def record(folder: Path, orders: BinaryIO, told: BinaryIO) -> None:
    """Carry out ``orders`` until they end; what comes of them is written to ``told``."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), orders)
    recorders = Recorders(folder)
    losses = _Losses()
    closing: set[asyncio.Task[None]] = set()

    def tell(message: Told) -> None:
        with contextlib.suppress(BrokenPipeError):  # the server is gone: nobody wants to know
            told.write(framed(message))
            told.flush()

    async def close(over: Over) -> None:
        await recorders.close(over.call_id, over.media_ms)
        tell(Closed(over.ticket))

    async def tell_losses() -> None:
        while True:
            await asyncio.sleep(TELL_S)
            if (lost := losses.since()) is not None:
                tell(lost)

    telling = asyncio.create_task(tell_losses())
    while (message := await next_message(reader)) is not None:
        for order in _ORDERS.decode(message):
            if isinstance(order, Piece):
                recorders.frame(order.frame)
            elif isinstance(order, Begin):
                recorders.start(order.call, order.wire_rate)
            else:
                task = asyncio.create_task(close(order))
                closing.add(task)
                task.add_done_callback(closing.discard)
                # It takes its call out of those that run before anything that comes behind is carried out.
                await asyncio.sleep(0)
    await asyncio.gather(*closing)
    await recorders.aclose()
    telling.cancel()
    if (lost := losses.since()) is not None:
        tell(lost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-json", action="store_true")
    given = parser.parse_args()
    # Who stops the whole group of processes stops the server, and this ends behind it with every file whole.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(NICE)
        _AUTOGROUP.write_text(str(NICE))
    logs.configure(given.log_level, given.log_json)
    asyncio.run(record(given.folder, sys.stdin.buffer, sys.stdout.buffer))


if __name__ == "__main__":
    main()
