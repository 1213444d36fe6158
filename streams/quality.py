"""What is wrong with a call's sound, measured while it is heard: see ``Trouble``. Pure, media time.

A channel is looked at in blocks of half a second; of a quiet one little more than its extremes. The rules:

* **Clipping**: over the last five seconds in which somebody spoke, two of a hundred samples were at full
  scale. Speech just under full scale has none there, 6 dB too loud one in two hundred, 12 dB three to ten.
* **Noise**: the channel was read as another codec than it is (``streams.mistaken``), in four pieces within a
  minute, and little sounds as it should; or it brings white noise, loud and up to the edges of
  its band, for five seconds without a word: bytes that are no sound at all. Rain, machines, music, a busy
  office, tones and modems are none of it: their spectrum is not flat, and what a telephone lets through ends
  at 3.4 kHz.
* **Dead**: nothing at all comes, or only digital silence, while the other side speaks on. A live line has
  noise, but a muted one has not, nor a headset that hears only voices. So one that has been alive has to be
  silent for a minute, half of it spoken by the other side, in which nobody who listens keeps quite still; one
  that never was, for half as long. Time on hold does not count.

What has begun is told once, and what has ended; at most ``MOST_TOLD`` times for each.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np

from streams.audio import Samples
from streams.events import SAMPLE_RATE, Channel, Hold, Trouble, TroubleKind
from streams.mistaken import Reading, mistaken, roughness
from streams.silero import WINDOW
from streams.vad import Probabilities

BLOCK: Final = 16
"""Windows."""
BLOCK_MS: Final = BLOCK * WINDOW * 1000 // SAMPLE_RATE
MOST_TOLD: Final = 10

_SPEECH: Final = 0.5
_SPOKEN: Final = BLOCK // 2
"""Windows of speech in a block in which somebody speaks."""
_STRAY: Final = 1
"""Windows that may pass for speech in a block of noise."""

_STILL: Final = 2
"""Between the extremes of a block of digital silence: A-law has no zero, and a filter may round."""
_FULL_SCALE: Final = 31_500
"""The highest step of mu-law is 32124, of A-law 32256, and the one below that 31100 or 31232."""
_CLIPPED, _CLEAN = 0.02, 0.005
_CLIPPED_BLOCKS: Final = 10
"""Of speech, 5 s."""

_LOUD: Final = 32768**2 * 10 ** (-45 / 10)
"""Mean square of a block in which something can be heard."""
_PIECES: Final = 4
"""Of a block; the loudest is read in other ways."""
_KEPT: Final = 118
"""Loud blocks that are remembered, a minute."""
_MISREAD: Final = 4
_MISREAD_SHARE: Final = 0.6
"""Of the pieces that sound as speech should: rare where the codec is wrong, many where it is right
and something crackles."""
_RIGHT: Final = 20
"""Such pieces after which a codec that was wrong is right."""

_SELDOM: Final = 4
"""After so many right pieces only every fourth block is looked at, until one is not right: a codec seldom
changes while people speak, and looking takes a tenth of all hearing."""

_BLARING: Final = 32768**2 * 10 ** (-20 / 10)
"""Mean square; random bytes have −5 dB as linear samples and −11 as G.711."""
_ROUGH: Final = (1.6, 2.4)
"""White noise has 2."""
_FLAT_DB: Final = 4.0
"""Between the loudest and the softest eighth of the band."""
_BANDS, _FRAME = 8, 256
_WHITE, _WHITE_OF = 10, 12
"""Blocks of white noise, 5 s, among so many that follow each other."""
_WINDOW: Final = np.hanning(_FRAME).astype(np.float32)

_ALIVE: Final = 4
"""Blocks with sound, 2 s: less is the click of a switch."""
_BACK: Final = 2
"""Blocks with sound after which a dead channel is alive."""
_LAG_MS: Final = 2_000
"""A channel that is so far behind the other one brings nothing."""


class Silence(NamedTuple):
    """How long a channel has to be silent, and how much of that the other side has to speak."""

    lasts_ms: int
    spoken_ms: int


FROM_THE_START: Final = Silence(30_000, 10_000)
AFTER_LIFE: Final = Silence(60_000, 30_000)


class Change(NamedTuple):
    """Something has begun to be wrong with a channel, or is right again."""

    kind: TroubleKind
    present: bool
    media_ms: int
    """When it was noticed."""
    since_ms: int
    """When it began, or ended."""
    measured: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    start_ms: int
    end_ms: int
    spoken: int
    """Windows of speech in it."""
    is_still: bool
    """Digital silence."""

    @property
    def is_speech(self) -> bool:
        return self.spoken >= _SPOKEN


class ChannelQuality:
    """Looks at one channel by itself; what two channels tell together is ``CallQuality``'s."""

    def __init__(self) -> None:
        self._windows: list[Samples] = []
        """Of the block in progress; they follow each other."""
        self._speech: list[Probabilities] = []
        self._count = 0
        self._next = 0
        """Sample index behind the last window."""
        self._clipping = _Clipping()
        self._misread = _Misread()
        self._white = _White()

    @property
    def media_ms(self) -> int:
        """How far this channel came."""
        return self._next * 1000 // SAMPLE_RATE

    def heard(
        self, windows: Samples, probabilities: Probabilities, first: int
    ) -> list[tuple[Block, list[Change]]]:
        """Take windows, int16 of shape (n, WINDOW), the first beginning at sample ``first`` of the channel.

        ``probabilities``: of speech, one per window. Returns the blocks that are complete, each with what it
        changes. How the windows come in pieces changes nothing.
        """
        if first != self._next:
            # What is missing is no sound: what began before it goes on behind it.
            self._windows, self._speech, self._count = [], [], 0
        self._next = first + windows.size
        out: list[tuple[Block, list[Change]]] = []
        taken = 0
        while taken < len(windows):
            wanted = min(BLOCK - self._count, len(windows) - taken)
            self._windows.append(windows[taken : taken + wanted])
            self._speech.append(probabilities[taken : taken + wanted])
            taken += wanted
            self._count += wanted
            if self._count == BLOCK:
                end = self._next - (len(windows) - taken) * WINDOW
                out.append(self._judge(end))
                self._windows, self._speech, self._count = [], [], 0
        return out

    def _judge(self, end: int) -> tuple[Block, list[Change]]:
        samples = np.concatenate(self._windows).reshape(-1)
        spoken = int(np.count_nonzero(np.concatenate(self._speech) >= _SPEECH))
        low, high = int(samples.min()), int(samples.max())
        block = Block(
            start_ms=(end - samples.size) * 1000 // SAMPLE_RATE,
            end_ms=end * 1000 // SAMPLE_RATE,
            spoken=spoken,
            is_still=high - low <= _STILL,
        )
        if block.is_still:
            return block, self._white.quiet(block)
        # A channel from 8 kHz has its own samples in every second place (``audio.Doubler``).
        wire = samples[::2].astype(np.float32)
        level = float(np.dot(wire, wire)) / len(wire)
        changes: list[Change] = []
        if level >= _LOUD:
            changes += self._misread.judge(block, samples)
            changes += self._white.judge(block, samples, level, self._misread.present)
        else:
            changes += self._white.quiet(block)
        if block.is_speech and not self._misread.suspected:
            changes += self._clipping.judge(block, wire, max(high, -low))
        return block, changes


class _Clipping:
    def __init__(self) -> None:
        self._shares: deque[tuple[int, float]] = deque(maxlen=_CLIPPED_BLOCKS)
        """Of the last blocks of speech: start, and how many of its samples were at full scale."""
        self._present = False

    def judge(self, block: Block, wire: np.ndarray, peak: int) -> list[Change]:
        clipped = np.count_nonzero(np.abs(wire) >= _FULL_SCALE) / len(wire) if peak >= _FULL_SCALE else 0.0
        self._shares.append((block.start_ms, clipped))
        if len(self._shares) < _CLIPPED_BLOCKS:
            return []
        share = sum(s for _, s in self._shares) / len(self._shares)
        if self._present:
            if share >= _CLEAN:
                return []
        elif share < _CLIPPED:
            return []
        self._present = not self._present
        since = self._shares[0][0]
        return [Change("clipping", self._present, block.end_ms, since, f"{100 * share:.0f} %")]


class _Misread:
    """Whether speech comes out when the bytes are read in another way."""

    def __init__(self) -> None:
        self._blocks: deque[tuple[int, Reading | Literal["right"] | None]] = deque(maxlen=_KEPT)
        """Loud ones: when they began, and how they were read."""
        self.present = False
        self._right = 0
        """Pieces that sounded as speech should, since the last that did not."""
        self._passed = 0
        """Blocks since the last one that was looked at."""

    @property
    def suspected(self) -> bool:
        return self.present or any(reading not in ("right", None) for _, reading in self._blocks)

    def judge(self, block: Block, samples: Samples) -> list[Change]:
        if self._right >= _RIGHT and not self.present and self._passed < _SELDOM - 1:
            self._passed += 1
            return []
        self._passed = 0
        pieces = samples.reshape(_PIECES, -1)
        squares = pieces[:, ::8].astype(np.float32)
        loudest = int(np.einsum("ij,ij->i", squares, squares).argmax())
        reading = mistaken(pieces[loudest])
        if reading is not None:
            self._right = self._right + 1 if reading == "right" else 0
        self._blocks.append((block.start_ms, reading))
        if self.present:
            return self._over(block)
        found = Counter(reading for _, reading in self._blocks if reading is not None)
        right = found.pop("right", 0)
        wrong, count = max(found.items(), key=lambda one: one[1], default=("", 0))
        if count < max(_MISREAD, _MISREAD_SHARE * right):
            return []
        self.present = True
        since = next(start for start, other in self._blocks if other == wrong)
        return [Change("noise", True, block.end_ms, since, wrong)]

    def _over(self, block: Block) -> list[Change]:
        right = 0
        for start, reading in reversed(self._blocks):
            if reading not in ("right", None):
                return []
            right += reading == "right"
            if right == _RIGHT:
                self.present = False
                self._blocks.clear()
                return [Change("noise", False, block.end_ms, start)]
        return []


class _White:
    """Whether there is white noise where speech should be."""

    def __init__(self) -> None:
        self._blocks: deque[tuple[int, bool]] = deque(maxlen=_WHITE_OF)
        self._present = False

    def judge(self, block: Block, samples: Samples, level: float, known: bool) -> list[Change]:
        """``known``: the channel is noise by other signs already, and that was told."""
        is_white = not known and block.spoken <= _STRAY and level >= _BLARING and _is_white(samples)
        return self._next(block, is_white)

    def quiet(self, block: Block) -> list[Change]:
        return self._next(block, False)

    def _next(self, block: Block, is_white: bool) -> list[Change]:
        if block.is_speech:
            self._blocks.clear()
        self._blocks.append((block.start_ms, is_white))
        count = sum(white for _, white in self._blocks)
        if not self._present and count >= _WHITE:
            self._present = True
            since = next(start for start, white in self._blocks if white)
            return [Change("noise", True, block.end_ms, since, "white noise")]
        if self._present and not count:
            self._present = False
            return [Change("noise", False, block.end_ms, self._blocks[0][0])]
        return []


def _is_white(samples: Samples) -> bool:
    wire = np.ascontiguousarray(samples[::2])
    if not _ROUGH[0] <= roughness(wire) <= _ROUGH[1]:
        return False
    frames = wire[: len(wire) // _FRAME * _FRAME].reshape(-1, _FRAME).astype(np.float32) * _WINDOW
    power = np.square(np.abs(np.fft.rfft(frames, axis=1)))[:, 1:].mean(axis=0)
    bands = power.reshape(_BANDS, -1).mean(axis=1) + 1e-9
    return bool(10 * np.log10(bands.max() / bands.min()) <= _FLAT_DB)


class _Life:
    """Whether a channel brings anything, while the other one speaks."""

    def __init__(self, since_ms: int) -> None:
        self.since_ms = since_ms
        """When it was heard last, or was taken back from hold."""
        self.spoken_ms = 0
        """Of the other side since then."""
        self.sounds = 0
        """Blocks with sound in all, as far as they count."""
        self.in_a_row = 0
        self.dead = False

    def sound(self, block: Block) -> Change | None:
        self.sounds += 1
        self.in_a_row += 1
        if self.in_a_row >= _BACK or not self.dead:
            self.since_ms, self.spoken_ms = block.end_ms, 0
        if not self.dead or self.in_a_row < _BACK:
            return None
        self.dead = False
        return Change("dead", False, block.end_ms, block.end_ms - self.in_a_row * BLOCK_MS)

    def silence(self) -> None:
        self.in_a_row = 0

    def judge(self, now_ms: int) -> Change | None:
        needed = AFTER_LIFE if self.sounds >= _ALIVE else FROM_THE_START
        lasts = now_ms - self.since_ms
        if self.dead or lasts < needed.lasts_ms or self.spoken_ms < needed.spoken_ms:
            return None
        self.dead = True
        return Change("dead", True, now_ms, self.since_ms, f"{lasts // 1000} s")


class CallQuality:
    """What is wrong with the sound of a call."""

    def __init__(self, call_id: str, channels: Sequence[Channel]) -> None:
        self._call_id = call_id
        self._channels = {channel: ChannelQuality() for channel in channels}
        self._lives: dict[Channel, _Life] = {}
        """From the first sound of any channel on: a call may have been heard elsewhere before."""
        self._held = False
        self._told: Counter[tuple[Channel, TroubleKind]] = Counter()
        self._present: set[tuple[Channel, TroubleKind]] = set()

    @property
    def is_held(self) -> bool:
        return self._held

    def hold(self, hold: Hold) -> None:
        """The call is on hold, or was taken back."""
        if self._held and not hold.held:
            for life in self._lives.values():
                life.since_ms, life.spoken_ms = max(life.since_ms, hold.media_ms), 0
        self._held = hold.held

    def heard(
        self, channel: Channel, windows: Samples, probabilities: Probabilities, first: int
    ) -> list[Trouble]:
        """See ``ChannelQuality.heard``; ``KeyError`` if the call has no such channel."""
        out: list[Trouble] = []
        for block, changes in self._channels[channel].heard(windows, probabilities, first):
            for change in changes:
                self._tell(channel, change, out)
            if len(self._channels) > 1:
                self._live(channel, block, out)
        return out

    def _live(self, channel: Channel, block: Block, out: list[Trouble]) -> None:
        if not self._lives:
            self._lives = {each: _Life(block.start_ms) for each in self._channels}
        own = self._lives[channel]
        if block.is_still:
            own.silence()
        elif (change := own.sound(block)) is not None:
            self._tell(channel, change, out)
        for other, life in self._lives.items():
            if other == channel or self._held:
                continue
            if block.is_speech and block.end_ms > life.since_ms:
                life.spoken_ms += BLOCK_MS
            # How far it is known to be silent: it may only be a little behind.
            known_ms = max(self._channels[other].media_ms, block.end_ms - _LAG_MS)
            if (change := life.judge(min(block.end_ms, known_ms))) is not None:
                self._tell(other, change, out)

    def _tell(self, channel: Channel, change: Change, out: list[Trouble]) -> None:
        key = channel, change.kind
        if change.present == (key in self._present):
            return
        if change.present:
            if self._told[key] >= MOST_TOLD:
                return
            self._told[key] += 1
            self._present.add(key)
        else:
            self._present.discard(key)
        out.append(
            Trouble(
                call_id=self._call_id,
                channel=channel,
                kind=change.kind,
                present=change.present,
                media_ms=change.media_ms,
                since_ms=change.since_ms,
                measured=change.measured,
            )
        )
