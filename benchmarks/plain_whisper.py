"""faster-whisper as most people run it: one ``WhisperModel.transcribe`` per utterance, one lock around it.

The utterances are those of our own listener, offered at the moment at which it cuts them, so that what is
compared is what stands behind: full 30 s windows one after the other, against batches of short ones.
Greedy, no timestamps, no temperature fallback: the fastest that ``transcribe`` offers.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.played import Audio, Read
from streams.events import SAMPLE_RATE, Channel, Utterance
from streams.testing import Alone, play
from streams.vad import SileroVad

TAIL_S = 5.0
"""As for the other peer: what is not there so long after the call has ended is not seen."""


def utterances(audio: Audio) -> list[tuple[float, Utterance]]:
    """(media time in seconds at which it was cut, final utterance) of both channels, in order of the cut."""
    out: list[tuple[float, Utterance]] = []
    for channel, samples in audio.samples.items():
        listener = Alone(audio.call.name, channel, SileroVad())
        for frame in play(audio.call.name, channel, samples):
            heard = listener.push(frame)
            out += [(_seconds(listener), h) for h in heard if isinstance(h, Utterance) and h.final]
        out += [(_seconds(listener), h) for h in listener.finish() if isinstance(h, Utterance)]
    return sorted(out, key=lambda cut: cut[0])


def _seconds(listener: Alone) -> float:
    return listener.media_ms / 1000


class PlainWhisper:
    """One model, one thread: the lock. Close it when done."""

    def __init__(self, model: Path, prompt: str | None) -> None:
        from faster_whisper import WhisperModel

        self._prompt = prompt
        self._model = WhisperModel(
            str(model), device="cpu", compute_type="int8", cpu_threads=len(os.sched_getaffinity(0))
        )
        self.busy_s = self.speech_s = 0.0
        self._lock = ThreadPoolExecutor(1, thread_name_prefix="plain-whisper")
        self._cut: dict[str, list[tuple[float, Utterance]]] = {}
        self._transcribe(bytes(2 * SAMPLE_RATE))
        # Without the first call, which allocates.
        self.busy_s = 0.0
        self.speech_s = 0.0

    def prepare(self, audio: Audio) -> None:
        """Listen to a call ahead of time: the cuts are the same at any speed."""
        self._cut[audio.call.name] = utterances(audio)

    async def listen(self, audio: Audio, call_id: str) -> tuple[float, list[Read]]:
        """One call in real time: clock at media time 0, and what was read."""
        reads: list[Read] = []
        started = time.monotonic()
        pending: list[asyncio.Task[None]] = []
        for at_s, utterance in self._cut[audio.call.name]:
            # A call that is hung up early cuts what is being said; what begins later is not heard.
            if utterance.end_ms / 1000 > audio.seconds:
                continue
            await asyncio.sleep(started + min(at_s, audio.seconds) - time.monotonic())
            pending.append(asyncio.create_task(self._read(utterance, reads)))
        await asyncio.sleep(started + audio.seconds + TAIL_S - time.monotonic())
        for task in pending:
            task.cancel()
        return started, reads

    async def _read(self, utterance: Utterance, reads: list[Read]) -> None:
        loop = asyncio.get_running_loop()
        text = await loop.run_in_executor(self._lock, self._transcribe, utterance.pcm)
        channel: Channel = utterance.channel
        start, end = utterance.start_ms / 1000, utterance.end_ms / 1000
        reads.append(Read(time.monotonic(), channel, start, end, text, done=True))

    def _transcribe(self, pcm: bytes) -> str:
        begun = time.monotonic()
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
        segments, _ = self._model.transcribe(
            samples,
            language="zh",
            beam_size=1,
            temperature=0.0,
            without_timestamps=True,
            condition_on_previous_text=False,
            initial_prompt=self._prompt,
        )
        text = "".join(segment.text for segment in segments)
        self.busy_s += time.monotonic() - begun
        self.speech_s += len(samples) / SAMPLE_RATE
        return text

    def close(self) -> None:
        self._lock.shutdown(wait=False, cancel_futures=True)
