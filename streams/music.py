"""Hold music and ring-back: nobody said that the customer is on hold, but one can hear it. Pure, media time.

A channel is looked at in blocks of half a second. A block in which somebody speaks, or in which it is quiet,
costs next to nothing; only of a loud one without speech a spectrum is taken. What makes it music is that its
energy stands in narrow peaks that stay where they are for a quarter of a second: noise, however coloured,
has no peaks, and what has peaks and moves is a voice.

* **On hold**: four seconds of music, or one tone that comes and goes as ring-back does.
* **Taken back**: somebody speaks for a second, it stays quiet (longer where the tone's own pauses are long),
  or noise has taken the music's place.

Both are told when they are sure and say when they began. Songs are beyond this: for the judge of speech,
singing is speech.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np

from streams.audio import Samples
from streams.events import SAMPLE_RATE, Channel, Hold
from streams.silero import WINDOW
from streams.vad import Probabilities
from streams.voice import RATE, halved

BLOCK: Final = 16
"""Windows."""
BLOCK_MS: Final = BLOCK * WINDOW * 1000 // SAMPLE_RATE

_LOUD: Final = (32768 * 10 ** (-46 / 20)) ** 2
"""Mean square above which a block is not quiet: −46 dB."""
_SPEECH: Final = 0.5
_SPOKEN: Final = BLOCK // 2
"""Windows of speech in a block in which somebody speaks."""
_STRAY: Final = 2
"""Windows that the judge may take for speech in a block of music."""

_FRAME: Final = 512
"""Samples at ``RATE``, 64 ms."""
_BIN_HZ: Final = RATE / _FRAME
_LOWEST, _HIGHEST = int(100 / _BIN_HZ), int(3_600 / _BIN_HZ)
_AROUND: Final = 12
"""Bins on each side over which the level around a peak is taken."""
_STANDS_OUT: Final = 10 ** (7 / 10)
_TONE: Final = 3
"""Bins on each side that belong to one tone, or to two as close as in ring-back."""

_LASTS: Final = 8
"""Blocks, 4 s."""
_MUSICAL: Final = 0.75
"""Share of the energy in peaks, mean over ``_LASTS`` blocks. Music 0.8 to 0.95; a crying child or a
ticking clock up to 0.72, machines, rain, sea and line noise below 0.3."""
_NOISY: Final = 0.3
_REST: Final = 1e-3
"""Mean square of a silent window over that of its block."""
_RESTS: Final = BLOCK // 4
"""Silent windows that music may have in a block. A busy tone has more, and is no hold: somebody has gone."""
_PURE: Final = 0.7
"""Share of the energy in one tone."""
_CADENCE: Final = 12
"""Blocks, 6 s: longer than ring-back is silent between two tones."""
_TONE_APART: Final = 7
"""Blocks between the first and the last of a tone that comes and goes."""
_CALM: Final = 4
"""Quiet blocks after which music has ended; and that ring-back has at least among ``_CADENCE``."""

_NO_VOICE: Final = ("quiet", "broken", "sound")

_WINDOW: Final = np.hanning(_FRAME).astype(np.float32)


class _Block(NamedTuple):
    kind: Literal["speech", "mixed", "quiet", "broken", "sound"]
    start_ms: int
    peaks: float = 0.0
    """Share of its energy in peaks."""
    tone: int | None = None
    """Bin of the one tone that it is; ``None`` if it is none."""


class Change(NamedTuple):
    held: bool
    media_ms: int


def spectrum(pcm: Samples) -> tuple[float, int | None]:
    """Of half a second of int16 at ``SAMPLE_RATE``: share of its energy in steady peaks, and its one tone."""
    frames = np.lib.stride_tricks.sliding_window_view(halved(pcm), _FRAME)[:: _FRAME // 2] * _WINDOW
    power = np.square(np.abs(np.fft.rfft(frames, axis=1)[:, _LOWEST:_HIGHEST]))
    halves = np.array_split(power, 2)
    shares = []
    for half in halves:
        # The mean of logarithms: a peak must be there in all of it, a click in one frame makes none.
        steady = np.log10(half + 1e-12).mean(axis=0)
        padded = np.pad(steady, (_AROUND + 1, _AROUND), mode="edge")
        sums = np.cumsum(padded)
        around = (sums[2 * _AROUND + 1 :] - sums[: -2 * _AROUND - 1]) / (2 * _AROUND + 1)
        energy = half.mean(axis=0)
        peaks = steady > around + np.log10(_STANDS_OUT)
        shares.append(float(energy[peaks].sum() / (energy.sum() + 1e-12)))
    energy = power.mean(axis=0)
    top = int(energy.argmax())
    tone = energy[max(0, top - _TONE) : top + _TONE + 1].sum() / (energy.sum() + 1e-12)
    return sum(shares) / len(shares), top if tone >= _PURE else None


class Music:
    """Listens to one channel for what is played to somebody on hold."""

    def __init__(self) -> None:
        self.held = False
        self._windows: list[Samples] = []
        """Of the block in progress; they follow each other."""
        self._speech: list[Probabilities] = []
        self._count = 0
        self._next = 0
        """Sample index behind the last window."""
        self._blocks: deque[_Block] = deque(maxlen=_CADENCE)
        self._patience = _CALM

    def heard(self, windows: Samples, probabilities: Probabilities, first: int) -> list[Change]:
        """Take windows, int16 of shape (n, WINDOW), the first beginning at sample ``first`` of the channel.

        ``probabilities``: of speech, one per window. How the windows come in pieces changes nothing.
        """
        out: list[Change] = []
        if first != self._next:
            self._missing(first, out)
        self._next = first + windows.size
        taken = 0
        while taken < len(windows):
            wanted = min(BLOCK - self._count, len(windows) - taken)
            self._windows.append(windows[taken : taken + wanted])
            self._speech.append(probabilities[taken : taken + wanted])
            taken += wanted
            self._count += wanted
            if self._count == BLOCK:
                end = self._next - (len(windows) - taken) * WINDOW
                self._judge(self._block((end - BLOCK * WINDOW) * 1000 // SAMPLE_RATE), out)
                self._windows, self._speech, self._count = [], [], 0
        return out

    def _missing(self, first: int, out: list[Change]) -> None:
        """Where audio is missing nothing plays."""
        self._windows, self._speech, self._count = [], [], 0
        blocks = (first - self._next) // (BLOCK * WINDOW)
        for number in range(min(blocks, _CADENCE)):
            self._judge(_Block("quiet", self._next * 1000 // SAMPLE_RATE + number * BLOCK_MS), out)

    def _block(self, start_ms: int) -> _Block:
        spoken = int(np.count_nonzero(np.concatenate(self._speech) >= _SPEECH))
        if spoken >= _SPOKEN:
            return _Block("speech", start_ms)
        windows = np.concatenate(self._windows)
        sample = windows[:, ::4].astype(np.float32)
        levels = np.einsum("ij,ij->i", sample, sample) / sample.shape[1]
        level = float(levels.mean())
        if level < _LOUD:
            return _Block("quiet", start_ms)
        if spoken > _STRAY:
            return _Block("mixed", start_ms)
        rests = int(np.count_nonzero(levels < level * _REST))
        return _Block("broken" if rests > _RESTS else "sound", start_ms, *spectrum(windows.reshape(-1)))

    def _judge(self, block: _Block, out: list[Change]) -> None:
        self._blocks.append(block)
        change = self._ended() if self.held else self._begun()
        if change is not None:
            self.held = change.held
            self._blocks.clear()
            out.append(change)

    def _begun(self) -> Change | None:
        blocks = list(self._blocks)
        last = blocks[-_LASTS:]
        sounds = [b for b in last if b.kind == "sound"]
        steady = len(sounds) >= _LASTS - 1 and all(b.kind in _NO_VOICE for b in last)
        if steady and len(last) == _LASTS and sum(b.peaks for b in last) >= _MUSICAL * _LASTS:
            self._patience = _CALM
            return Change(True, sounds[0].start_ms)
        tone = blocks[-1].tone
        if tone is None:
            return None
        tones = [n for n, b in enumerate(blocks) if b.tone is not None and abs(b.tone - tone) <= 1]
        if tones[-1] - tones[0] < _TONE_APART:
            return None
        since = blocks[tones[0] :]
        cadence = [b for b in since if b.kind == "quiet"]
        if len(cadence) >= _CALM and all(b.kind in _NO_VOICE for b in since):
            self._patience = _CADENCE
            return Change(True, since[0].start_ms)
        return None

    def _ended(self) -> Change | None:
        blocks = list(self._blocks)
        speech = [b for b in blocks[-3:] if b.kind == "speech"]
        if len(speech) >= 2:
            return Change(False, speech[0].start_ms)
        for lasts, kind in ((self._patience, "quiet"), (_LASTS, "sound")):
            last = blocks[-lasts:]
            alike = len(last) == lasts and all(b.kind == kind for b in last)
            if alike and sum(b.peaks for b in last) < _NOISY * lasts:
                return Change(False, last[0].start_ms)
        return None


class Holds:
    """Whether a call is on hold, by what its channels play.

    Where the telephony itself tells of holds, it knows better: from its first word on nothing is listened to.
    """

    def __init__(self, call_id: str, channels: Sequence[Channel]) -> None:
        self._call_id = call_id
        self._music: Mapping[Channel, Music] = {channel: Music() for channel in channels}
        self._held = False
        self._told = False

    def telephony_told(self) -> None:
        self._told = True

    def heard(
        self, channel: Channel, windows: Samples, probabilities: Probabilities, first: int
    ) -> list[Hold]:
        """See ``Music.heard``; ``KeyError`` if the call has no such channel."""
        if self._told:
            return []
        out: list[Hold] = []
        for change in self._music[channel].heard(windows, probabilities, first):
            held = change.held or any(m.held for c, m in self._music.items() if c != channel)
            if held != self._held:
                self._held = held
                out.append(Hold(call_id=self._call_id, media_ms=change.media_ms, held=held, source="music"))
        return out
