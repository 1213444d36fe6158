"""``duting worker asr``: the topic ``speech`` through one model."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import structlog

from streams import wire
from streams.events import Transcript
from streams.gateway import Message, WorkerState
from streams.kafka import fetch_speech
from streams.reading import Done, Reader
from streams.transcribe import Transcriber
from streams.worker import Out, Worker

log = structlog.get_logger(__name__)


class ReadingWorker(Worker):
    """``duting worker asr``: feeds the batches of one model; commits behind finished work only."""

    GROUP = "duting-asr"
    TOPICS = (wire.SPEECH,)
    IN_MODEL = 64
    """Finals in front of each model worker; beyond it speech waits on the broker."""
    DRAIN_S = 20.0

    def __init__(self, transcriber: Transcriber, **given: Any) -> None:
        super().__init__(**given)
        self._most = self.IN_MODEL * transcriber.workers
        self._eased = asyncio.Event()
        self._searches: set[asyncio.Task[None]] = set()
        self._partitions: dict[str, int] = {}
        self.reader = Reader(transcriber, self._post, self._fetch, on_step=lambda: None)

    def _post(self, message: Message, done: Done) -> None:
        def finished() -> None:
            done()
            self._eased.set()

        self._outbox.post([Out(message, finished)])

    async def _fetch(self, call_id: str, offset: int) -> wire.Speech | None:
        partition = self._partitions.get(call_id)
        return None if partition is None else await fetch_speech(self._brokers, partition, offset)

    def _is_full(self) -> bool:
        return self.reader.in_model >= self._most

    async def _take(self, value: wire.Speech | wire.Search, message: Any, done: Done) -> None:
        while self._is_full() or self._stop.is_set():
            self._eased.clear()
            await self._eased.wait()
        if isinstance(value, wire.Speech):
            try:
                self.reader.speech(value, message.offset, done)
            except Exception:
                if value.final:
                    # Those behind it must not wait for its words for ever.
                    self._post(Message(wire.TRANSCRIPTS, unreadable(value, message.offset)), _nothing)
                raise
            return
        self._partitions[value.call_id] = message.partition
        # The audio may have to be fetched: others do not wait for that. Bounded by the searches there are,
        # at most one for each final.
        task = asyncio.create_task(self._search(value, done))
        self._searches.add(task)
        task.add_done_callback(self._searches.discard)

    async def _search(self, search: wire.Search, done: Done) -> None:
        try:
            await self.reader.search(search, done)
        except Exception as error:
            log.error("search.failed", call_id=search.call_id, error=type(error).__name__)
            found = wire.Found(call_id=search.call_id, utterance_id=search.utterance_id)
            self._post(Message(wire.TRANSCRIPTS, found), done)
        finally:
            self._partitions.pop(search.call_id, None)
            self._eased.set()

    def _serve_timers(self) -> None:
        self.reader.tick()

    def _state(self) -> WorkerState:
        state = self.reader.state()
        return WorkerState(
            step=state.step,
            wait_s=state.wait_s,
            pace_ms=state.pace_ms,
            room=state.room,
            lag=self.lag,
            ready=self.readiness() is None,
        )

    async def _drain(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.DRAIN_S):
                while self.reader.in_model or self._searches:
                    self._eased.clear()
                    await self._eased.wait()
                await self._outbox.flush()

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            self.reader.close()


def unreadable(speech: wire.Speech, offset: int) -> wire.Read:
    """The answer to a final that cannot be read: no words."""
    transcript = Transcript(
        call_id=speech.call_id,
        utterance_id=f"{speech.call_id}:{speech.channel}:{speech.start_ms}",
        role=speech.channel,
        start_ms=speech.start_ms,
        end_ms=speech.end_ms,
        text="",
        final=True,
        rejected="unreadable",
    )
    return wire.Read(transcript=transcript, source=speech.source, seq=speech.seq, offset=offset)


def _nothing() -> None:
    pass
