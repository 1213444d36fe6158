"""Cuts one channel's audio into utterances. Pure: PCM in, speech edges and utterances out, in media time.

The rules, in the order in which they are asked, once per 32 ms window:

* **Onset**: ``ONSET`` of the last ``LOOKBACK`` windows are speech. The utterance then starts ``preroll``
  before the first of them, but never before the end of the utterance before.
* **Pause**: nothing but silence for the *hangover*. The hangover shrinks as the utterance grows: a short
  utterance waits for its second half, a long one is cut at the first breath, because everybody who
  waits for its alert waits for this.
* **Hard cut**: at ``longest`` the utterance is cut at the quietest window of its last third, and goes on
  as a new utterance without a break in the speech.
* **Partial**: at a *breath*, silence that is too short to end the utterance but ends a group of words, so
  that what was said reads as a whole; where the silence goes on, it is what the final will hold, sample by
  sample. And whenever the speech has grown by ``partial_every`` since the last one.

How the audio is cut into frames changes nothing: windows are counted from the channel's first sample.
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
from streams.silero import WINDOW
from streams.vad import WINDOW_MS, Probabilities

Heard = SpeechStarted | SpeechStopped | Utterance

_NONE: Samples = np.zeros((0, WINDOW), np.int16)


@dataclass(frozen=True)
class Endpointing:
    """All in milliseconds."""

    preroll: int = 300
    tail: int = 128
    """Silence kept behind the speech: a model clips the last syllable without it."""
    hangover: tuple[tuple[int, int], ...] = ((0, 512), (2_000, 416), (4_000, 288), (6_000, 192))
    """(utterance at least this long, silence that ends it). The last step is the soft cut."""
    longest: int = 10_000
    first_partial: int = 900
    partial_every: int = 320
    """The finest pace; who computes them asks for as many as there is time for."""
    breath: int = 192
    """Longer than the closure of a stop consonant; no shorter than the tail."""
    breath_least: int = 700
    """Speech since the last breath."""
    breath_lead: int = 96
    """A breath that is found this shortly before the utterance would end tells nothing in time."""

    def hangover_at(self, length_ms: int) -> int:
        for least, silence in reversed(self.hangover):
            if length_ms >= least:
                return silence
        raise ValueError(f"expected a length of at least {self.hangover[0][0]} ms, got {length_ms}")


class _Run:
    """Audio that follows on itself, offered and not yet judged."""

    __slots__ = ("count", "parts", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        """Index of the first sample."""
        self.parts: list[Samples] = []
        self.count = 0
        """Samples in all parts."""

    @property
    def end(self) -> int:
        return self.start + self.count

    def add(self, samples: Samples) -> None:
        if len(samples):
            self.parts.append(samples)
            self.count += len(samples)

    def whole(self) -> Samples:
        """Its whole windows."""
        if len(self.parts) > 1:
            self.parts = [np.concatenate(self.parts)]
        size = self.count // WINDOW * WINDOW
        return self.parts[0][:size].reshape(-1, WINDOW) if size else _NONE

    def drop(self, samples: int) -> None:
        """Let go of the first ``samples``."""
        if samples:
            rest = np.concatenate(self.parts)[samples:] if len(self.parts) > 1 else self.parts[0][samples:]
            self.parts = [rest.copy()] if len(rest) else []
            self.start += samples
            self.count -= samples


class Listener:
    """Listens to one channel: ``offer`` it frames in order, have its ``windows`` judged (``streams.judge``),
    hand it its ``judged``, until there are no more windows. A jump in media time counts as silence.

    More may be offered while windows are with the judge.
    """

    SPEECH, SILENCE = 0.5, 0.35
    """Silero's usual hysteresis: speech begins above the first and ends below the second."""
    ONSET, LOOKBACK = 6, 9
    FAINT = 1_000.0
    """A window with less than this share (−30 dB) of the loudest one's energy is not the same sound."""
    JUMP_MS = 40
    LONGEST_FILL_MS = 1_500
    """A longer hole needs no more silence than this: every utterance has ended by then."""

    def __init__(self, call_id: str, channel: Channel, endpointing: Endpointing | None = None) -> None:
        self.call_id, self.channel = call_id, channel
        self._rules = endpointing or Endpointing()
        self._keep = self._rules.preroll // WINDOW_MS + 3 * self.LOOKBACK
        """Windows that are held between utterances."""
        self._runs: deque[_Run] = deque([_Run(0)])
        """What was offered and not yet judged. Between two of them is a hole. At the end of the first one is
        the silence that ends whatever was said in it."""
        self._windows: Samples | None = None
        """Those that are with the judge."""
        # The windows held: the utterance in progress, pre-roll included, or what may become pre-roll. In
        # parts, because a minute of silence is two thousand windows: no object is made for one.
        self._start = 0
        """Sample index of the first."""
        self._pcm = bytearray()
        self._probability: list[float] = []
        self._speaking = False
        self._quiet = 0
        """Windows of silence at the end of the utterance in progress."""
        self._partial_at = self._breath_at = 0
        self._floor = 0
        """Sample index before which no new utterance may reach back."""

    @property
    def media_ms(self) -> int:
        """How far this channel came."""
        return self._ms(self._runs[-1].end)

    @property
    def position(self) -> int:
        """Sample index of the first of ``windows()``."""
        return self._runs[0].start

    @property
    def asked_ms(self) -> int:
        """How far this channel is heard once ``windows()`` are judged; less than a window counts as heard."""
        run, size = self._runs[0], self.windows().size
        return self._ms(run.end if run.count - size < WINDOW else run.start + size)

    @property
    def speaking(self) -> bool:
        return self._speaking

    def offer(self, frame: AudioFrame) -> None:
        """Take the next frame; ``windows`` then says what has to be judged."""
        jump = frame.media_ms - self.media_ms
        if jump > self.JUMP_MS:
            hole = min(jump, self.LONGEST_FILL_MS) * SAMPLE_RATE // 1000
            self._runs[-1].add(np.zeros(hole, np.int16))
            if jump > self.LONGEST_FILL_MS:
                self._runs.append(_Run(frame.media_ms * SAMPLE_RATE // 1000))
        self._runs[-1].add(np.frombuffer(frame.pcm, "<i2", len(frame.pcm) // 2))

    def windows(self) -> Samples:
        """What has to be judged next: int16, shape (n, WINDOW); n may be 0. The same until it is judged."""
        if self._windows is None or not len(self._windows):
            self._windows = self._runs[0].whole()
        return self._windows

    def judged(self, probabilities: Probabilities) -> list[Heard]:
        """Take the probability of speech of each of ``windows()``; return what was heard.

        Raises ``ValueError`` when there are not as many.
        """
        windows, out = self.windows(), list[Heard]()
        if len(probabilities) != len(windows):
            raise ValueError(f"expected {len(windows)} probabilities, got {len(probabilities)}")
        self._windows = None
        if len(windows):
            self._pcm += windows.astype("<i2", copy=False).tobytes()
            first = len(self._probability)
            new: list[float] = probabilities.tolist()
            self._probability += new
            self._runs[0].drop(windows.size)
            if not self._speaking and max(new) < self.SPEECH:
                self._trim(len(self._probability))  # nothing can begin without a window of speech
            else:
                out = self._hear_from(first)
        if len(self._runs) > 1 and self._runs[0].count < WINDOW:
            self._runs.popleft()
            self._forget(len(self._probability))
            self._start = self.position
        return out

    def _hear_from(self, upto: int) -> list[Heard]:
        """Hear the windows held from ``upto`` on."""
        out: list[Heard] = []
        while upto < len(self._probability):
            upto += 1
            held = len(self._probability)
            out += self._hear(upto) if self._speaking else self._hear_idle(upto)
            upto -= held - len(self._probability)
        return out

    def finish(self) -> list[Heard]:
        """The channel has ended: cut what is being said."""
        if not self._speaking:
            return []
        upto = len(self._probability)
        return self._cut("end", upto, upto)

    def _trim(self, upto: int) -> None:
        """Between utterances: forget windows that no pre-roll will want once ``upto`` were heard."""
        # Not at every window: moving the rest costs as much as adding it.
        if upto > 2 * self._keep:
            self._forget(upto - self._keep)

    def _forget(self, windows: int) -> None:
        """Let go of the first ``windows`` windows."""
        self._start += windows * WINDOW
        del self._pcm[: windows * WINDOW * 2], self._probability[:windows]

    # Below, ``upto`` counts the windows held that were heard so far: the newest one is ``upto - 1``, and the
    # block's windows behind it are still to come. Forgetting windows lowers all counts by as many.

    def _hear(self, upto: int) -> list[Heard]:
        self._quiet = self._quiet + 1 if self._probability[upto - 1] < self.SILENCE else 0
        length = (upto - self._quiet) * WINDOW_MS
        if self._quiet * WINDOW_MS >= self._rules.hangover_at(length):
            soft = length >= self._rules.hangover[-1][0]
            return self._cut("soft" if soft else "pause", upto, upto)
        if upto * WINDOW_MS >= self._rules.longest:
            return self._cut("hard", self._quietest(upto), upto)
        if self._is_breath(length):
            self._breath_at = length + self._rules.breath_least
            self._partial_at = length + self._rules.partial_every
            return [self._utterance(upto, final=False, endpoint="breath")]
        if length >= self._partial_at and not self._quiet:
            self._partial_at = length + self._rules.partial_every
            return [self._utterance(upto, final=False, endpoint="partial")]
        return []

    def _is_breath(self, length_ms: int) -> bool:
        breath = self._rules.breath
        began = breath <= self._quiet * WINDOW_MS < breath + WINDOW_MS
        in_time = breath + self._rules.breath_lead <= self._rules.hangover_at(length_ms)
        return began and in_time and length_ms >= self._breath_at

    def _hear_idle(self, upto: int) -> list[Heard]:
        recent = max(0, upto - self.LOOKBACK)
        if self._probability[upto - 1] < self.SPEECH:
            self._trim(upto)
            return []
        speech = [w for w in range(recent, upto) if self._probability[w] >= self.SPEECH]
        if len(speech) < self.ONSET:
            return []
        onset = self._onset(speech, upto)
        earliest = max(self._floor, self._start + onset * WINDOW - self._rules.preroll * SAMPLE_RATE // 1000)
        onset_ms = self._ms(self._start + onset * WINDOW)
        # The first window that begins at or behind `earliest`, of those that are kept for this.
        self._forget(max(0, upto - self._keep, -(-(earliest - self._start) // WINDOW)))
        self._speaking, self._quiet = True, 0
        self._partial_at, self._breath_at = self._rules.first_partial, self._rules.breath_least
        return [SpeechStarted(call_id=self.call_id, channel=self.channel, media_ms=onset_ms)]

    def _onset(self, speech: list[int], upto: int) -> int:
        """Window in which the sound that became speech began: soft first syllables are judged late."""
        energies = self._energies(0, upto)
        loud = max(energies[w] for w in speech) / self.FAINT
        onset = speech[0]
        for window in range(speech[0] - 1, max(0, upto - self._keep) - 1, -1):
            if self._start + window * WINDOW < self._floor or energies[window] < loud:
                break
            onset = window
        return onset

    def _cut(self, endpoint: str, end: int, upto: int) -> list[Heard]:
        """End the utterance before window ``end``; after a hard cut the rest begins the next one."""
        utterance = self._utterance(end, final=True, endpoint=endpoint)
        if endpoint == "hard":
            self._forget(end)
            self._floor = self._start
            self._quiet = min(self._quiet, upto - end)
            self._partial_at, self._breath_at = self._rules.first_partial, self._rules.breath_least
            return [utterance]
        # The silence behind the tail was used by nobody: the next utterance's pre-roll may reach into it.
        self._forget(len(utterance.pcm) // 2 // WINDOW)
        self._floor = self._start
        self._speaking, self._quiet = False, 0
        stopped = SpeechStopped(call_id=self.call_id, channel=self.channel, media_ms=utterance.end_ms)
        return [stopped, utterance]

    def _utterance(self, upto: int, final: bool, endpoint: str) -> Utterance:
        last = upto
        while last > 1 and self._probability[last - 1] < self.SILENCE:
            last -= 1
        tail = min(upto, last + self._rules.tail // WINDOW_MS)
        return Utterance(
            call_id=self.call_id,
            channel=self.channel,
            start_ms=self._ms(self._start),
            end_ms=self._ms(self._start + last * WINDOW),
            pcm=bytes(self._pcm[: tail * WINDOW * 2]),
            final=final,
            endpoint=endpoint,  # type: ignore[arg-type]
        )

    def _quietest(self, upto: int) -> int:
        """Count of windows up to the quietest of the last third: where a hard cut hurts least."""
        start = upto * 2 // 3
        return start + int(np.argmin(self._energies(start, upto - 1))) + 1

    def _energies(self, start: int, stop: int) -> list[float]:
        """Mean squares of the windows from ``start`` to before ``stop``; asked for once an utterance."""
        pcm = bytes(self._pcm[start * WINDOW * 2 : stop * WINDOW * 2])
        windows = np.frombuffer(pcm, "<i2").reshape(-1, WINDOW).astype(np.float32)
        energies: list[float] = np.square(windows).mean(axis=1).tolist()
        return energies

    @staticmethod
    def _ms(sample: int) -> int:
        return sample * 1000 // SAMPLE_RATE
