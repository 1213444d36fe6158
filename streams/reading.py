"""What a recognition worker does: utterances and searches in, transcripts and word times out.

It keeps no state of calls: what it holds is what is in the model, and lately read utterances, for the times
of their words. A message is ``done`` when nothing of it is owed any more; then it may be committed.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
from msgspec.structs import replace

from streams import wire
from streams.events import Utterance, Word
from streams.gateway import Message, WorkerState
from streams.headroom import Headroom
from streams.recognise import Recogniser
from streams.transcribe import Transcriber
from streams.work import Recognised

log = structlog.get_logger(__name__)

Done = Callable[[], None]
Post = Callable[[Message, Done], None]
"""Takes what is to be sent, and what is to be called once it is kept by the broker."""
Fetch = Callable[[str, int], Awaitable[wire.Speech | None]]
"""Reads an utterance of a call again, by its offset; ``None`` where it is not kept any more."""


def _nothing() -> None:
    pass


@dataclass(slots=True)
class _Final:
    speech: wire.Speech
    """Without its audio."""
    offset: int
    done: list[Done] = field(default_factory=list)


class Reader:
    """One per process, for one event loop.

    Args:
        post: takes what is to be sent.
        fetch: reads speech again that is not held any more.
        on_step: told when the step of degradation has changed.
    """

    HELD_BYTES = 64 * 1024 * 1024
    """Audio of utterances lately read, for the times of their words: half an hour of it. The oldest go."""
    ANSWERED = 2_000
    """Finals that are remembered: a message that comes again is not read again. The oldest go."""
    IDLE_S = 60.0
    """A call that says nothing for so long: what was read of an unfinished utterance of its goes."""

    def __init__(
        self,
        transcriber: Transcriber,
        post: Post,
        fetch: Fetch,
        on_step: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._post, self._fetch, self._clock, self._wall = post, fetch, clock, wall
        self._workers = transcriber.workers
        self.recogniser = Recogniser(
            transcriber,
            on_final=self._on_final,
            on_partial=self._on_partial,
            on_step=on_step,
            clock=clock,
        )
        self._finals: dict[str, _Final] = {}
        """In the model, by utterance."""
        self._partials: OrderedDict[str, tuple[wire.Speech, int]] = OrderedDict()
        """The newest beginning of utterances still being said, without audio; at most one a channel lives."""
        self._beginnings: dict[tuple[str, str], tuple[int, bytes]] = {}
        """By call and channel: where the utterance being said began, and its audio so far. Goes with its
        final, or when the call falls silent."""
        self._answered: OrderedDict[str, wire.Read] = OrderedDict()
        self._held: OrderedDict[str, tuple[Utterance, str]] = OrderedDict()
        self._held_bytes = 0
        self._last: dict[str, float] = {}
        """Clock at which a call last sent something."""

    @property
    def in_model(self) -> int:
        """Finals that are owed."""
        return len(self._finals)

    # ── in ────────────────────────────────────────────────────────────────────────────────────────

    def speech(self, speech: wire.Speech, offset: int, done: Done) -> None:
        """Read an utterance. Raises ``WireError`` where its audio is broken."""
        utterance = self._whole(speech)
        self._last[speech.call_id] = self._clock()
        if utterance is None:
            done()
            return
        name = utterance.utterance_id
        light = replace(speech, packed=b"")
        prompt = self.recogniser.prompt(speech.prompt)
        if not speech.final:
            # A beginning is worth nothing once more of it has come: it is not read again after a crash.
            if name not in self._answered and name not in self._finals:
                self._partials[name] = (light, offset)
                self._partials.move_to_end(name)
                self.recogniser.submit(utterance, prompt, live=speech.live)
            done()
            return
        if (read := self._answered.get(name)) is not None:
            self._post(Message(wire.TRANSCRIPTS, read), done)
        elif (final := self._finals.get(name)) is not None:
            final.done.append(done)
        else:
            self._partials.pop(name, None)
            self._finals[name] = _Final(light, offset, [done])
            self._hold(utterance, speech.prompt)
            self.recogniser.submit(utterance, prompt, live=speech.live)

    def _whole(self, speech: wire.Speech) -> Utterance | None:
        """The utterance, or its beginning, with what earlier messages brought of it; ``None`` where these did
        not come here: then there is no partial, and the final brings all."""
        channel = (speech.call_id, speech.channel)
        if speech.final:
            self._beginnings.pop(channel, None)
            return wire.utterance(speech)
        start_ms, before = self._beginnings.pop(channel, (-1, b""))
        if speech.skipped and (start_ms != speech.start_ms or len(before) < 2 * speech.skipped):
            return None
        utterance = wire.utterance(speech, before[: 2 * speech.skipped])
        self._beginnings[channel] = (speech.start_ms, utterance.pcm)
        return utterance

    async def search(self, search: wire.Search, done: Done) -> None:
        """Find when the words of a final were said."""
        held = self._held.get(search.utterance_id)
        if held is None:
            speech = await self._fetch(search.call_id, search.offset)
            if speech is not None:
                held = (wire.utterance(speech), speech.prompt)

        def found(words: tuple[Word, ...]) -> None:
            answer = wire.Found(call_id=search.call_id, utterance_id=search.utterance_id, words=words)
            self._post(Message(wire.TRANSCRIPTS, answer), done)

        if held is None or held[0].utterance_id != search.utterance_id:
            found(())
            return
        utterance, prompt = held
        self.recogniser.locate(utterance, self.recogniser.prompt(prompt), search.text, found)

    def tick(self) -> None:
        """Call a few times a second."""
        self.recogniser.tick()
        limit = self._clock() - self.IDLE_S
        for call_id in [call_id for call_id, at in self._last.items() if at < limit]:
            del self._last[call_id]
            self.recogniser.forget(call_id)
            for name in [name for name, (s, _) in self._partials.items() if s.call_id == call_id]:
                del self._partials[name]
            for channel in [channel for channel in self._beginnings if channel[0] == call_id]:
                del self._beginnings[channel]

    # ── out ───────────────────────────────────────────────────────────────────────────────────────

    def _on_final(self, recognised: Recognised) -> None:
        name = recognised.transcript.utterance_id
        final = self._finals.pop(name)
        read = self._read(recognised, final.speech, final.offset)
        self._answered[name] = read
        if len(self._answered) > self.ANSWERED:
            self._answered.popitem(last=False)
        first, *others = final.done
        self._post(Message(wire.TRANSCRIPTS, read), first)
        for done in others:
            done()

    def _on_partial(self, recognised: Recognised) -> None:
        known = self._partials.get(recognised.transcript.utterance_id)
        if known is not None:
            self._post(Message(wire.TRANSCRIPTS, self._read(recognised, *known)), _nothing)

    def _read(self, recognised: Recognised, speech: wire.Speech, offset: int) -> wire.Read:
        return wire.Read(
            transcript=recognised.transcript,
            source=speech.source,
            seq=speech.seq,
            offset=offset,
            read=recognised.read,
            asr_s=round(recognised.asr_s, 4),
            cut_s=speech.cut_at,
            done_s=self._wall(),
        )

    def _hold(self, utterance: Utterance, prompt: str) -> None:
        self._held[utterance.utterance_id] = (utterance, prompt)
        self._held_bytes += len(utterance.pcm)
        while self._held_bytes > self.HELD_BYTES:
            _, (gone, _) = self._held.popitem(last=False)
            self._held_bytes -= len(gone.pcm)

    # ── how it does ───────────────────────────────────────────────────────────────────────────────

    def state(self) -> WorkerState:
        """What gateways have to know before they take a call or ask for a partial."""
        now, recogniser = self._clock(), self.recogniser
        headroom = recogniser.headroom
        room = Headroom.MOST_FINALS * self._workers / max(1e-9, headroom.call_cost)
        return WorkerState(
            step=recogniser.degradation.step,
            wait_s=round(recogniser.degradation.wait_s, 4),
            pace_ms=headroom.partial_pace_ms(now),
            room=min(1_000_000, int(room)),
        )

    def close(self) -> None:
        self.recogniser.close()
