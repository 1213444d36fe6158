"""Cuts one channel's audio into utterances. Pure: PCM in, speech edges and utterances out, in media time.

The rules, in the order in which they are asked, once per 32 ms window:

* **Onset**: ``ONSET`` of the last ``LOOKBACK`` windows are speech. The utterance then starts ``preroll``
  before the first of them, but never before the end of the utterance before.
* **Pause**: nothing but silence for the *hangover*. The hangover shrinks as the utterance grows: a short
  utterance waits for its second half, a long one is cut at the first breath, because everybody who
  waits for its alert waits for this.
* **Hard cut**: at ``longest`` the utterance is cut at the quietest window of its last third, and goes on
  as a new utterance without a break in the speech.
* **Partial**: whenever the speech has grown by ``partial_every`` since the last one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from streams.audio import Samples
from streams.events import (
    SAMPLE_RATE,
    AudioFrame,
    Channel,
    SpeechStarted,
    SpeechStopped,
    Utterance,
)
from streams.vad import WINDOW, WINDOW_MS, Vad

Heard = SpeechStarted | SpeechStopped | Utterance


@dataclass(frozen=True)
class Endpointing:
    """All in milliseconds."""

    preroll: int = 300
    tail: int = 160
    """Silence kept behind the speech: a model clips the last syllable without it."""
    hangover: tuple[tuple[int, int], ...] = ((0, 512), (2_000, 416), (4_000, 288), (6_000, 192))
    """(utterance at least this long, silence that ends it). The last step is the soft cut."""
    longest: int = 15_000
    first_partial: int = 900
    partial_every: int = 650

    def hangover_at(self, length_ms: int) -> int:
        return next(silence for least, silence in reversed(self.hangover) if length_ms >= least)


@dataclass(slots=True)
class _Window:
    start: int
    """Sample index since media time 0."""
    samples: Samples
    probability: float
    energy: float


class Listener:
    """Listens to one channel. Feed it frames in order; a jump in media time counts as silence."""

    SPEECH, SILENCE = 0.5, 0.35
    """Silero's usual hysteresis: speech begins above the first and ends below the second."""
    ONSET, LOOKBACK = 6, 9
    BLOCK = 3
    """Windows judged at once (96 ms): half the cost of judging them singly, for 48 ms more on average."""
    FAINT = 1_000.0
    """A window with less than this share (−30 dB) of the loudest one's energy is not the same sound."""
    JUMP_MS = 40
    LONGEST_FILL_MS = 1_500
    """A longer hole needs no more silence than this: every utterance has ended by then."""

    def __init__(
        self, call_id: str, channel: Channel, vad: Vad, endpointing: Endpointing | None = None
    ) -> None:
        self.call_id, self.channel = call_id, channel
        self._vad = vad
        self._rules = endpointing or Endpointing()
        self._position = 0
        """Sample index at which ``_rest`` begins."""
        self._rest = np.zeros(0, np.int16)
        self._before: deque[_Window] = deque(maxlen=self._rules.preroll // WINDOW_MS + 3 * self.LOOKBACK)
        self._speech: list[_Window] = []
        """The utterance in progress, pre-roll included; empty between utterances."""
        self._quiet = 0
        """Windows of silence at the end of ``_speech``."""
        self._partial_at = 0
        self._floor = 0
        """Sample index before which no new utterance may reach back."""

    @property
    def media_ms(self) -> int:
        """How far this channel was heard."""
        return self._ms(self._position + len(self._rest))

    @property
    def speaking(self) -> bool:
        return bool(self._speech)

    def push(self, frame: AudioFrame) -> list[Heard]:
        """Take the next frame and return what was heard, in order of media time."""
        out: list[Heard] = []
        jump = frame.media_ms - self.media_ms
        if jump > self.JUMP_MS:
            fill = min(jump, self.LONGEST_FILL_MS) * SAMPLE_RATE // 1000
            out += self._take(np.zeros(fill, np.int16))
            if jump > self.LONGEST_FILL_MS:
                self._rest = np.zeros(0, np.int16)
                self._before.clear()
                self._position = frame.media_ms * SAMPLE_RATE // 1000
        return out + self._take(np.frombuffer(frame.pcm, "<i2"))

    def finish(self) -> list[Heard]:
        """The channel has ended: cut what is being said."""
        if not self._speech:
            return []
        return self._cut("end", len(self._speech))

    def _take(self, samples: Samples) -> list[Heard]:
        self._rest = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        step = WINDOW * self.BLOCK
        usable = len(self._rest) // step * step
        if not usable:
            return []
        windows = self._rest[:usable].reshape(-1, WINDOW)
        self._rest = self._rest[usable:].copy()
        out: list[Heard] = []
        for samples_, probability in zip(windows, self._vad.probabilities(windows), strict=True):
            energy = float(np.mean(np.square(samples_.astype(np.float32))))
            out += self._hear(_Window(self._position, samples_, float(probability), energy))
            self._position += WINDOW
        return out

    def _hear(self, window: _Window) -> list[Heard]:
        if not self._speech:
            return self._hear_idle(window)
        self._speech.append(window)
        self._quiet = self._quiet + 1 if window.probability < self.SILENCE else 0
        length = self._length_ms()
        if self._quiet * WINDOW_MS >= self._rules.hangover_at(length):
            soft = length >= self._rules.hangover[-1][0]
            return self._cut("soft" if soft else "pause", len(self._speech))
        if len(self._speech) * WINDOW_MS >= self._rules.longest:
            return self._cut("hard", self._quietest())
        if length >= self._partial_at and not self._quiet:
            self._partial_at = length + self._rules.partial_every
            return [self._utterance(self._speech, final=False, endpoint="partial")]
        return []

    def _hear_idle(self, window: _Window) -> list[Heard]:
        self._before.append(window)
        recent = list(self._before)[-self.LOOKBACK :]
        speech = [w for w in recent if w.probability >= self.SPEECH]
        if len(speech) < self.ONSET:
            return []
        onset = self._onset(speech[0].start, speech)
        earliest = max(self._floor, onset - self._rules.preroll * SAMPLE_RATE // 1000)
        self._speech = [w for w in self._before if w.start >= earliest]
        self._before.clear()
        self._quiet = 0
        self._partial_at = self._rules.first_partial
        return [SpeechStarted(call_id=self.call_id, channel=self.channel, media_ms=self._ms(onset))]

    def _onset(self, start: int, speech: list[_Window]) -> int:
        """Sample index where the sound that became speech began: soft first syllables are judged late."""
        loud = max(w.energy for w in speech) / self.FAINT
        for window in reversed([w for w in self._before if w.start < start]):
            if window.start < self._floor or window.energy < loud:
                break
            start = window.start
        return start

    def _cut(self, endpoint: str, upto: int) -> list[Heard]:
        """End the utterance before window ``upto``; after a hard cut the rest begins the next one."""
        done, rest = self._speech[:upto], self._speech[upto:]
        hard = endpoint == "hard"
        utterance = self._utterance(done, final=True, endpoint=endpoint)
        if hard:
            self._floor = done[-1].start + WINDOW
            self._speech = rest
            self._partial_at = self._rules.first_partial
            return [utterance]
        # The silence behind the tail was used by nobody: the next utterance's pre-roll may reach into it.
        used = len(utterance.pcm) // 2 // WINDOW
        self._floor = done[0].start + used * WINDOW
        self._before.extend(done[used:])
        self._speech, self._quiet = [], 0
        stopped = SpeechStopped(call_id=self.call_id, channel=self.channel, media_ms=utterance.end_ms)
        return [stopped, utterance]

    def _utterance(self, windows: list[_Window], final: bool, endpoint: str) -> Utterance:
        last = len(windows)
        while last > 1 and windows[last - 1].probability < self.SILENCE:
            last -= 1
        tail = min(len(windows), last + self._rules.tail // WINDOW_MS)
        pcm = np.concatenate([w.samples for w in windows[:tail]])
        return Utterance(
            call_id=self.call_id,
            channel=self.channel,
            start_ms=self._ms(windows[0].start),
            end_ms=self._ms(windows[last - 1].start + WINDOW),
            pcm=pcm.astype("<i2").tobytes(),
            final=final,
            endpoint=endpoint,  # type: ignore[arg-type]
        )

    def _quietest(self) -> int:
        """Index behind the quietest window of the last third: where a hard cut hurts least."""
        start = len(self._speech) * 2 // 3
        energies = [w.energy for w in self._speech[start:-1]]
        return start + int(np.argmin(energies)) + 1

    def _length_ms(self) -> int:
        return (len(self._speech) - self._quiet) * WINDOW_MS

    @staticmethod
    def _ms(sample: int) -> int:
        return sample * 1000 // SAMPLE_RATE
