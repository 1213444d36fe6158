"""Is this speech? A cheap gate (WebRTC) asks first, a judge (Silero) decides.

Both look at windows of 512 samples, 32 ms at 16 kHz. A level below ``FLOOR_DBFS`` costs next to nothing, the
gate about 10 µs a window, the judge about 15 when it hears many channels together (``together``), 120 when
it hears one alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import numpy as np
import numpy.typing as npt
import webrtcvad

from streams import silero
from streams.audio import Samples
from streams.events import SAMPLE_RATE
from streams.silero import CONTEXT, WINDOW

WINDOW_MS = WINDOW * 1000 // SAMPLE_RATE

Probabilities = npt.NDArray[np.float32]


class Vad(Protocol):
    """Speech probability of successive windows of one channel."""

    def probabilities(self, windows: Samples) -> Probabilities:
        """``windows``: int16, shape (n, WINDOW), following each other. Returns float32, shape (n,)."""
        ...


def together(asked: Sequence[tuple[Vad, Samples]]) -> list[Probabilities]:
    """``probabilities`` of many channels, each at most once; those of ``SileroVad`` in one run.

    The same as asking one after the other, up to the rounding of float32.
    """
    out: list[Probabilities | None] = [None] * len(asked)
    waiting: list[tuple[int, SileroVad, _Asked]] = []
    for (index, (vad, windows)), loud in zip(enumerate(asked), _loud(asked), strict=True):
        if isinstance(vad, SileroVad):
            wanted = vad.gate(windows, loud)
            if wanted is None:
                out[index] = np.zeros(len(windows), np.float32)
            else:
                waiting.append((index, vad, wanted))
        else:
            out[index] = vad.probabilities(windows)
    if waiting:
        # The network wants those with the most windows first.
        waiting.sort(key=lambda entry: -len(entry[2].rows))
        for (index, _, wanted), heard in zip(waiting, _judge(waiting), strict=True):
            probabilities = np.zeros(wanted.windows, np.float32)
            probabilities[wanted.places] = heard[wanted.picked]
            out[index] = probabilities
    return [probabilities for probabilities in out if probabilities is not None]


def _loud(asked: Sequence[tuple[Vad, Samples]]) -> list[list[bool]]:
    """Of each channel's windows, which are above ``SileroVad.FLOOR_DBFS``."""
    if not asked:
        return []
    scaled = np.concatenate([windows for _, windows in asked]).astype(np.float32)
    loud = (np.einsum("ij,ij->i", scaled, scaled) > SileroVad.FLOOR).tolist()
    ends = accumulate(len(windows) for _, windows in asked)
    return [loud[end - len(windows) : end] for end, (_, windows) in zip(ends, asked, strict=True)]


class _Asked:
    """What the judge has to hear of one channel, and where the answers belong."""

    __slots__ = ("picked", "places", "rows", "windows")

    def __init__(self, windows: int) -> None:
        self.windows = windows
        self.rows: list[Samples] = []
        self.picked: list[int] = []
        """Those of ``rows`` that were asked for; the others only warm the judge up."""
        self.places: list[int] = []
        """Of each of them: which of the windows it is."""


class SileroVad:
    """The gate, and this channel's state of the judge. The network itself is shared by all channels.

    A window goes to the judge when its level is above ``FLOOR_DBFS`` and the gate heard something in it
    or in one of the ``LINGER`` windows before; all others are 0. The judge is recurrent: before it is asked
    again it hears the last ``WARM_UP`` windows that it was spared, or it would miss the first syllable.
    """

    FLOOR_DBFS = -62.0
    LINGER = 10
    WARM_UP = 16

    FLOOR = WINDOW * (32768.0**2) * 10 ** (FLOOR_DBFS / 10)
    """``FLOOR_DBFS`` as the sum of a window's squares."""

    def __init__(self) -> None:
        self._gate = webrtcvad.Vad(2)
        self.h = np.zeros(silero.CELLS, np.float32)
        self.c = np.zeros(silero.CELLS, np.float32)
        self.context = np.zeros(CONTEXT, np.int16)
        """End of the last window that the judge heard."""
        self._linger = 0
        self._spared: deque[Samples] = deque(maxlen=self.WARM_UP)
        """Windows that the judge has not heard, the newest last."""

    def probabilities(self, windows: Samples) -> Probabilities:
        return together([(self, windows)])[0]

    def gate(self, windows: Samples, loud: Sequence[bool]) -> _Asked | None:
        """What the judge has to hear of ``windows``; ``None``: nothing, all of them are silence.

        ``loud``: which of them are above ``FLOOR_DBFS``.
        """
        if not self._linger and True not in loud:
            self._spared.extend(windows)
            return None
        asked = _Asked(len(windows))
        for place, (window, is_loud) in enumerate(zip(windows, loud, strict=True)):
            # 480 samples: WebRTC's VAD takes 10, 20 or 30 ms and nothing else.
            if is_loud and self._gate.is_speech(window[:480].tobytes(), SAMPLE_RATE):
                self._linger = self.LINGER
            else:
                self._linger = max(0, self._linger - 1)
            if self._linger:
                asked.rows += self._spared
                self._spared.clear()
                asked.picked.append(len(asked.rows))
                asked.places.append(place)
                asked.rows.append(window)
            else:
                self._spared.append(window)
        return asked if asked.places else None


def _judge(waiting: Sequence[tuple[int, SileroVad, _Asked]]) -> list[Probabilities]:
    """Probabilities of each channel's ``rows``; the channels' states move on."""
    vads = [vad for _, vad, _ in waiting]
    counts = [len(asked.rows) for _, _, asked in waiting]
    samples = np.empty((sum(counts), CONTEXT + WINDOW), np.int16)
    samples[:, CONTEXT:] = [row for _, _, asked in waiting for row in asked.rows]
    # Each window stands behind the end of the one before it; a channel's first behind the last one it heard.
    samples[1:, :CONTEXT] = samples[:-1, -CONTEXT:]
    ends = np.cumsum(counts)
    samples[ends - counts, :CONTEXT] = [vad.context for vad in vads]
    h, c = np.stack([vad.h for vad in vads]), np.stack([vad.c for vad in vads])
    heard = silero.network().run(samples * np.float32(1 / 32768), counts, h, c)
    for index, (vad, end) in enumerate(zip(vads, ends.tolist(), strict=True)):
        vad.h, vad.c = h[index], c[index]
        vad.context = samples[end - 1, -CONTEXT:].copy()
    return np.split(heard, ends[:-1])
